"""Streams for other frameworks: :mod:`.pipecat` and :mod:`.livekit`, each with an extra of its name."""
