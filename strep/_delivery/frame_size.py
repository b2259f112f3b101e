"""How many samples a frame has."""

from __future__ import annotations

from .._model.exceptions import ConfigurationError

__all__ = ["frame_size"]


def frame_size(ms: float | None, n: int | None, rate: int) -> int:
    """Samples of a frame of ``ms`` milliseconds (20 by default) or ``n`` samples at ``rate`` Hz. Raises
    ConfigurationError."""
    if n is not None:
        if ms is not None:
            raise ConfigurationError(f"frames of {ms} ms and of {n} samples: give one of the two")
        if n < 1:
            raise ConfigurationError(f"frames of {n} samples: choose 1 or more")
        return n
    ms = 20 if ms is None else ms
    size = round(rate * ms / 1000)
    if size < 1 or abs(size * 1000 - rate * ms) > 1e-6:
        samples = f"{rate * ms / 1000:g} samples"
        raise ConfigurationError(f"{ms} ms at {rate} Hz is {samples}: choose a whole number of samples")
    return size
