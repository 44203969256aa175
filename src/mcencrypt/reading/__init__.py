"""Captures of the wire, read without keys: packets, streams put together again, and what their bytes are."""
