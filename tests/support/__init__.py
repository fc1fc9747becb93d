"""What tests of several packages share: factories, fakes, and real processes to test against."""
