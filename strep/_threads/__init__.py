"""What threads share: a bounded queue with a thread behind it, incidents, and an archive of what has ended."""
