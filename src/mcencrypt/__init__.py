"""mcencrypt: every byte between MultiChain nodes encrypted and authenticated, without touching multichaind."""
