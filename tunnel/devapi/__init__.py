"""A throw-away authority and the Workload API that hands out what it signs: for development and tests only."""
