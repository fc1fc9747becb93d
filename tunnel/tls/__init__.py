"""TLS in memory, without sockets: contexts, peer authentication and the engine; the only user of OpenSSL."""
