"""Certificates from an ACME server: requested, stored and renewed."""
