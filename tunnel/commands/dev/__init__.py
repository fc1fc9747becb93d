"""`tunnel dev`: serve a Workload API for development and tests."""
