"""The whole configuration as frozen values, and the command line that makes them."""
