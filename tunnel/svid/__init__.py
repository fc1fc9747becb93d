"""Identities for programs that take them from files or on a command line, rather than through a proxy."""
