"""What publishing to NATS and reading from it share: connections, names of streams and subjects."""
