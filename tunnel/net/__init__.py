"""Addresses, listening sockets and dialling: plain TCP and Unix sockets, no TLS."""
