"""SPIFFE mutual TLS for plain TCP services and clients."""

__version__ = "0.1.0"
