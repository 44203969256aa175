"""Prometheus metrics, served by a process of their own.

Not by a thread: a thread that holds the interpreter's lock and is then put aside for another program would hold up the
packets, whatever priority the packet loop has.  And what strangers may speak HTTP to should hold neither keys
nor rights.  The daemon's part (`supervisor`) is one small message for each scrape.
"""
