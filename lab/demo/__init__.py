"""`make demo`: two nodes behind a NAT router, in plaintext, then encrypted, then in plaintext again."""
