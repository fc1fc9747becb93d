"""Measures the cost of this checkout next to HAProxy in the same role; the package `tunnel` does not use it."""
