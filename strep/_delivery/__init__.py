"""From blocks of audio to whoever wants them: sinks in lanes of their own, and iterators."""
