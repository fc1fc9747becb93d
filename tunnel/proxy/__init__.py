"""The proxy: its process, listeners and connections, built from the other packages."""
