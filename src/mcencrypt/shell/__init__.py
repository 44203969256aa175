"""Everything that touches the kernel: sockets, clocks, files, subprocesses and randomness."""
