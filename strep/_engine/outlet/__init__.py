"""From the ring out: which packets are due, what their payloads are, and what they become."""
