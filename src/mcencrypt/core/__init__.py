"""The protocol, without I/O: bytes, direction and time in; verdicts, packets and events out."""
