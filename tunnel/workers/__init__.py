"""Several processes for the connections of one program: the parent, which has everything else, and its workers."""
