"""Gives a plain TCP service or client a SPIFFE identity: mutual TLS outside, plain bytes inside."""

__version__ = "0.1.0"
