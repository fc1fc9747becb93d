"""What operators and their programs see: the status port, counts and metrics."""
