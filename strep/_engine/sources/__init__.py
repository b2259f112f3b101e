"""Which stream a packet belongs to, and whether it may."""
