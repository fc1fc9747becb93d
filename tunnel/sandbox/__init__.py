"""What the process may no longer do once it runs: files and ports beyond its flags."""
