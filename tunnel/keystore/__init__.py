"""Certificates, keys and anchors in files, read into values that are right once made. Everything here blocks."""
