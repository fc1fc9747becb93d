"""`tunnel config`: check, show, describe and make configuration files."""
