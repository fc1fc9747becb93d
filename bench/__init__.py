"""Measures what this checkout costs beside HAProxy in the same role; nothing in the package `tunnel` knows it."""
