"""Preflight checks of a configuration, and verification of certificates and tokens: findings, and nothing is started."""
