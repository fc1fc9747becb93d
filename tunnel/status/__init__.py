"""Counters, metrics, process state and the endpoints of the status port."""
