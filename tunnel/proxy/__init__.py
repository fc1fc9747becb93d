"""Sessions, tunnels and the process that runs them: where all other parts are joined."""
