"""Network protocols without sockets: PROXY v2, CONNECT and SOCKS5, and a reader of binary fields."""
