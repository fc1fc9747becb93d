"""TLS: contexts, peer authentication, the engine in memory, and its driver for trio streams; the only user of OpenSSL."""
