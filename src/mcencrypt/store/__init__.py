"""What lies on disk: configuration, keys, peers, and the position in which the operator left the switch."""
