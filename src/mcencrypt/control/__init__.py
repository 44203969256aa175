"""The UNIX socket between the command line and a running daemon, and the lock that there is one."""
