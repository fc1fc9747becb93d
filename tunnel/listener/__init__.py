"""One listener: its socket, sessions, targets and generation; everything from accept to close."""
