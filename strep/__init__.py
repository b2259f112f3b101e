"""Receives forked call media."""
