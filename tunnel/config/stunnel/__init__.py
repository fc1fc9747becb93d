"""Conversion of configuration files of stunnel."""
