"""Certificates from an ACME authority: asked for, kept on disk, renewed in time."""
