"""Helpers of tests of several packages: factories, fakes, and real processes as peers."""
