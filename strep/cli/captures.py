"""What is told of capture files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console

__all__ = ["tell_capture"]

_MOST_NAMES: Final = 8  # of what is told of a file, in a line
_DAMAGE: Final = {
    "truncated_file": "the file ends inside a record: it was read up to there",
    "truncated_compression": "the compressed file is cut: it was read up to there",
    "damaged_compression": "the compressed file is damaged: it was read up to there",
    "bad_record": "the file has a record that cannot be one: it was read up to there",
    "bad_block": "the file has blocks that cannot be ones",
}
_ODD: Final = {
    "cut": "datagrams were not captured whole: they count for loss and jitter, but have no audio",
    "sorted": "datagrams stood behind later ones: they were put in order of time",
    "retimed": "datagrams had times out of line, or of a clock that was set: they were given times that go on",
    "untimed": "datagrams have no times in the file: no jitter can be told",
}


def tell_capture(err: Console, capture: Mapping[str, Any]) -> None:
    """What a person should know of a capture file that was read, a line each. ``capture``: as of a summary."""
    left_out = {cause: count for cause, count in capture["skipped"].items() if cause not in _DAMAGE}
    if left_out:
        share = f"{sum(left_out.values()):,} of {capture['frames']:,} frames left out"
        err.print(f"{share}: {_counts(left_out)}", soft_wrap=True)
    if capture["encapsulated"]:
        err.print(f"looked into {_counts(capture['encapsulated'])}", soft_wrap=True)
    lines = [text for cause, text in _DAMAGE.items() if cause in capture["skipped"]]
    lines += [f"{capture[name]:,} {text}" for name, text in _ODD.items() if capture[name]]
    for line in lines:
        err.print(line, soft_wrap=True, style="yellow")


def _counts(counts: Mapping[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count:,} {name}" for name, count in most[:_MOST_NAMES]]
    return ", ".join(told) + (f" and {len(most) - _MOST_NAMES} more kinds" if len(most) > _MOST_NAMES else "")
