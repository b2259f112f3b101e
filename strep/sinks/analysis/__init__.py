"""Analyzers: what is heard in the audio, and how well.

Sinks: ``level``, ``speech``, ``dtmf``, ``tones``, ``spectrum``, ``quality``; what they have in common is ``analyzer``.

- Frames of all streams as matrices: ``bank`` (with ``dense``, ``row_resampler``, ``frame_cutter``,
  ``missing_samples``) gives ``frame_batch``.
- State of all streams: ``columns``.
- Level: ``p56`` (active speech level).
- Speech: ``vad`` judges frames, ``segmenter`` makes segments, ``dialogue_monitor`` follows call legs (``dialogue``),
  ``talk`` defines turns and interruptions.
- Keys: ``keys``. Tones: ``tonal`` windows, ``tone_burst``, ``tone_cadences``. Levels of both: ``dbm0``.
- Quality: ``quality_windows``, ``loss_bursts``, ``quality_series``.
"""
