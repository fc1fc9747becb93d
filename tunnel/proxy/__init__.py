"""The process: its identity sources, listeners, status ports, reloads and supervisor."""
