"""`tunnel status` and `tunnel top`: the overview of a proxy as text, once or live in a terminal."""
