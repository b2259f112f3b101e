"""R and MOS of windows by the E-model: each on the scale of its stream. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...quality import SCALES, Impairment, Scale, mos_from_r, r_factor, r_factor_fullband, r_factor_wideband
from .columns import Columns, column

if TYPE_CHECKING:
    from .quality_modes import CodecModes
    from .quality_windows import WindowFigures

__all__ = ["MODELS", "CodecCosts", "Rating"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

MODELS: Final[dict[Scale, str]] = {"narrowband": "G.107", "wideband": "G.107.1", "fullband": "G.107.2"}
_MAX_BURST_R: Final = 8.0  # BurstR up to which G.107 (table 3) allows it


class Rating(NamedTuple):
    """What windows are worth, float64 (n,); R and MOS of the stream's scale."""

    buffer_ms: F64  # the listener's jitter buffer
    delay_ms: F64  # absolute delay
    ie: F64
    bpl: F64
    r: F64
    mos_cq: F64
    mos_lq: F64


class CodecCosts(Columns):
    """What each stream's codec costs, and on which scale."""

    ie: F64 = column(np.float64)
    bpl: F64 = column(np.float64)
    scale: npt.NDArray[np.int8] = column(np.int8)  # by SCALES

    def learn(self, row: int, cost: Impairment) -> None:
        """The codec of a stream is known now."""
        self.ie[row], self.bpl[row] = cost.ie, cost.bpl
        self.scale[row] = SCALES.index(cost.scale)

    def scale_of(self, row: int) -> Scale:
        return SCALES[int(self.scale[row])]

    def rate(self, windows: WindowFigures, modes: CodecModes, delay_ms: float, latency_ms: float | None) -> Rating:
        """Rate windows. ``delay_ms`` and ``latency_ms`` as :class:`.quality.QualityMeter` has them."""
        row = windows.row
        if latency_ms is None:
            buffer_ms = windows.wait_ms + 2.0 * windows.jitter_ms
        else:
            buffer_ms = np.full(len(row), latency_ms)
        ta = delay_ms + windows.packet_ms + buffer_ms
        scale = self.scale[row]
        ie, bpl = modes.cost(row, windows.modes, self.ie[row], self.bpl[row])
        r, listening = np.empty(len(row)), np.empty(len(row))
        for index in np.unique(scale).tolist():
            of = scale == index
            cost: dict[str, Any] = {
                "ie": ie[of],
                "bpl": bpl[of],
                "ppl": 100.0 * windows.missing[of],
                "burst_r": np.minimum(windows.burst_r[of], _MAX_BURST_R),
            }
            r[of], listening[of] = _rated(SCALES[index], cost, ta[of])
        mos_cq, mos_lq = mos_from_r(r, scale=scale), mos_from_r(listening, scale=scale)
        return Rating(buffer_ms, ta, ie, bpl, r, mos_cq, mos_lq)


def _rated(scale: Scale, cost: dict[str, Any], ta: F64) -> tuple[F64, F64]:
    """R of the conversation and of listening, on a scale."""
    if scale == "fullband":
        return r_factor_fullband(**cost, ta=ta), r_factor_fullband(**cost)
    model = r_factor_wideband if scale == "wideband" else r_factor
    return model(**cost, ta=ta, t=ta, tr=2.0 * ta), model(**cost)
