"""Analyzers: what is heard in the audio, and how well."""
