"""Pictures of recorded calls."""
