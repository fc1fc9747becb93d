"""The data plane: the event loop, the steps before a relay, and the relay."""
