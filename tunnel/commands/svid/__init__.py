"""`tunnel svid`: X.509-SVIDs and JWT-SVIDs in files or on a terminal."""
