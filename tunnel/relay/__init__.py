"""The data plane: one event loop over the hot sockets, and the two-way relay."""
