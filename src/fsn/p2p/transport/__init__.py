"""Streams between authenticated peers: the contract (`base`), the real thing (`libp2p`) and the one for tests (`memory`)."""
