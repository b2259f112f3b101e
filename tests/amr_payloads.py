"""Packed codecs as SDP spells them, and sound payloads of AMR."""

from __future__ import annotations

from hypothesis import strategies as st

from strep._codecs import amr

SPELLED = [
    "G722/8000", "G729/8000", "opus/48000", "opus/48000/2", "AMR/8000", "AMR/8000;octet-align=0",
    "AMR/8000;octet-align=1", "AMR-WB/16000", "AMR-WB/16000;octet-align=0", "AMR-WB/16000;octet-align=1", "GSM/8000",
    "iLBC/8000",
]  # fmt: skip


def amr_payloads(wide: bool) -> st.SearchStrategy[bytes]:
    """Sound ones of either format, whole and cut."""
    sizes = amr.SPEECH_BITS[wide]
    kinds = st.sampled_from([kind for kind, bits in enumerate(sizes) if bits >= 0])

    def frame(kind: int, sound: bool, fill: int) -> amr.AmrFrame:
        number = fill % (1 << sizes[kind]) if sizes[kind] else 0
        size = -(-sizes[kind] // 8)
        return amr.AmrFrame(kind, sound, (number << 8 * size - sizes[kind]).to_bytes(size, "big"))

    frames = st.lists(st.builds(frame, kinds, st.booleans(), st.integers(0, 1 << 477)), min_size=1, max_size=15)
    whole = st.builds(lambda f, a, c: amr.pack(f, wide=wide, octet_aligned=a, mode_request=c), frames, st.booleans(),
                      st.integers(0, 15))  # fmt: skip
    return st.one_of(whole, st.builds(lambda p, n: p[:n], whole, st.integers(0, 70)))
