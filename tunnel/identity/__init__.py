"""Where an identity comes from, and how it is kept fresh."""
