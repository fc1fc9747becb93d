"""`tunnel exec`: run a command that reaches servers through authenticated connections."""
