"""Streams to other machines, through NATS."""
