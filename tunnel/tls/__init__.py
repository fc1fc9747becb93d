"""TLS in memory: contexts, verification and the engine; no sockets, and the only place that knows OpenSSL."""
