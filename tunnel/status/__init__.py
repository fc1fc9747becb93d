"""What an operator sees: counts and metrics, and the status port that serves them."""
