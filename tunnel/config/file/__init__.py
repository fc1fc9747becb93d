"""The configuration file: TOML with the line of each key, the schema of its tables, and the `ProcessConfig` that they build."""
