"""Certificates and certification paths, as RFC 5280 has them."""
