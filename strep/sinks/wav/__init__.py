"""Recordings: WAV files written by threads of their own."""
