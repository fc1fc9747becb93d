"""`tunnel demo`: show a connection from end to end with real processes."""
