"""Protocols spoken to the hops beside us, as bytes and values: pure."""
