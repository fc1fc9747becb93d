"""A diagnosis before anything is started: each part looks at one thing and says what it has seen."""
