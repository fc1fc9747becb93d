"""`tunnel server` and `tunnel client`: flags by subject, the `ProcessConfig` that they build, and the start."""
