"""The codecs for people: the table in README, and what help texts say."""

from __future__ import annotations

from .facts import CODECS, REDUNDANT, CodecFacts

__all__ = ["codec_table", "simulated_codecs"]


def codec_table() -> str:
    """All codecs that are decoded here, and RED, which carries them, as a table in Markdown. It ends with a newline."""
    lines = [
        "| codec | spelled (`--pt N=…`) | payload type unless told | decoded by "
        "| lost packets, for ears (`conceal=True`) | `strep simulate` sends |",
        "|---|---|---|---|---|---|",
    ]
    for row in CODECS.values():
        if row.decodable:
            extra = f", extra `{row.extra}`" if row.extra else ""
            simulated = f"payload type {row.simulated_type}" if row.encodable else "–"
            cells = (
                row.title or row.name,
                f"`{row.spelling or row.codec}`",
                ", ".join(map(str, _understood(row))) or "–",
                row.decoded_by + extra,
                row.concealed_by,
                simulated,
            )
            lines.append(f"| {' | '.join(cells)} |")
    red = (
        "RED (RFC 2198)",
        f"`{REDUNDANT}/8000`",
        "–",
        "its blocks' decoders",
        "copies in later packets, exactly",
        "–",
    )
    lines.append(f"| {' | '.join(red)} |")
    return "\n".join(lines) + "\n"


def simulated_codecs() -> str:
    """What can be simulated, in words: "PCMU, PCMA, L16 (as L16/16000, payload type 96), ..."."""
    *most, last = (_simulated(row) for row in CODECS.values() if row.encodable)
    return f"{', '.join(most)} or {last}" if most else last


def _understood(row: CodecFacts) -> list[int]:
    """Payload types that are taken for the codec when nobody says anything."""
    dynamic = [row.dynamic_type] if row.habitual and row.dynamic_type is not None else []
    return [*row.static_types, *dynamic]


def _simulated(row: CodecFacts) -> str:
    notes = [f"as {row.simulated_as}"] if row.simulated_as else []
    if row.dynamic_type is not None:
        notes.append(f"payload type {row.dynamic_type}")
    return f"{row.name} ({', '.join(notes)})" if notes else row.name
