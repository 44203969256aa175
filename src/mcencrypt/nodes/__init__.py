"""MultiChain nodes on this machine, as /proc shows them: their settings and their sockets."""
