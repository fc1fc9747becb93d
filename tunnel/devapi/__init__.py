"""A Workload API with temporary certificate authorities, for development and tests only."""
