"""What the SPIFFE standards say, as values and rules: pure, no sockets, no clock of its own."""
