"""Tests; the folders have the names of the packages that they test, and `support/` has what they share."""
