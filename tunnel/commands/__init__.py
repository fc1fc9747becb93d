"""The commands: one module or folder each, with its flags, the configuration that they build, and what it runs."""
