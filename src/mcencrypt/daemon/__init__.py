"""The process: everything put together around one event loop."""
