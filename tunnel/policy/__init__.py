"""Rego policies: a verdict on a peer's certificate from a process of its own, as the optional extra `opa`."""
