"""Rego policies that authorize peers, evaluated in separate processes; needs the optional extra `opa`."""
