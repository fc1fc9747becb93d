"""Certificates, private keys and trust anchors in files. Functions here block."""
