"""The configuration as frozen values, and the parsers of single values."""
