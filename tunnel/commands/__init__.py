"""The commands beside the proxy itself, one module each."""
