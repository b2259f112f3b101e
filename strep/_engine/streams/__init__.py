"""What is kept of a stream: its jitter ring, reception, timeline and clock."""
