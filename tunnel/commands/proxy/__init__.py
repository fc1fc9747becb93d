"""`tunnel server` and `tunnel client`: flags by subject, the `ProxyConfig` that they build, and the start."""
