"""`tunnel run`: run a command together with its proxies."""
