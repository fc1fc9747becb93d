"""The command line: its grammar, help, completion, manual pages, what is printed, and the exit code."""
