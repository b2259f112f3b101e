"""How good a call is by what the network did to it: the E-model (ITU-T G.107; wideband: G.107.1).

    R = Ro - Is - Id - Ie,eff + A          noise, loudness and sidetone, delay and echo, coding and loss, advantage

R becomes a mean opinion score (MOS) by G.107 Annex B; wideband, where R goes up to 129, by G.107.1 Annex A. All
arguments may be arrays, which are broadcast. Results are float64: arrays, or a scalar if all arguments are scalars.
Nothing is clipped except where the Recommendation says so: R may be below 0 (its MOS is 1).

The model estimates what people would say on average of such connections. It does not listen: a call whose microphone
is broken has the MOS of its network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ._codecs.facts import CODECS as _FACTS
from ._codecs.facts import Impairment
from ._model.exceptions import ConfigurationError

__all__ = [
    "CODECS",
    "Impairment",
    "burst_ratio",
    "effective_impairment",
    "gilbert_burst_ratio",
    "impairment_of",
    "mos_from_r",
    "r_factor",
    "r_factor_wideband",
]

F64 = npt.NDArray[np.float64]
Values = npt.ArrayLike


def _impairments() -> dict[str, Impairment]:
    both = [
        pair
        for name, row in _FACTS.items()
        for pair in ((name, row.impairment), (f"{name}/wideband", row.impairment_wideband))
    ]
    return {name: impairment for name, impairment in both if impairment is not None}


CODECS: Final[Mapping[str, Impairment]] = _impairments()  # by RTP encoding name, in upper case
_UNKNOWN: Final = Impairment(10.0, 10.0, False, False, "estimated: a codec of which nothing is known here")
_WIDEBAND_RATE: Final = 16_000  # Hz


def impairment_of(codec: str, sample_rate: int = 8000, *, concealment: bool = True) -> Impairment:
    """What a codec costs, by its RTP encoding name (any case). ``sample_rate`` in Hz: L16 from 16 kHz on is wideband.

    ``concealment`` False: G.711 as if holes were played as silence (Bpl 4.3 instead of 25.1). Never raises: unknown
    names get a middling estimate, and its ``source`` says so.
    """
    row = _FACTS.get(codec.upper())
    if row is None:
        return _UNKNOWN
    if row.impairment_bare and not concealment:
        return row.impairment_bare
    if row.impairment_wideband and sample_rate >= _WIDEBAND_RATE:
        return row.impairment_wideband
    return row.impairment or _UNKNOWN


def effective_impairment(ie: Values, bpl: Values, loss_percent: Values, burst_ratio: Values = 1.0) -> F64:
    """Ie,eff (G.107 equation 7-29; with burst_ratio 1 also G.107.1 equation 7-15).

    ``loss_percent`` 0 to 100, what came too late included; ``burst_ratio`` at least 1 (less is taken for 1).
    """
    ie_, bpl_, loss = (np.asarray(v, np.float64) for v in (ie, bpl, loss_percent))
    bursts = np.maximum(np.asarray(burst_ratio, np.float64), 1.0)
    with np.errstate(invalid="ignore"):  # nothing lost and no robustness: 0/0
        share = np.where(loss > 0, loss / (loss / bursts + bpl_), 0.0)
    return _plain(ie_ + (95.0 - ie_) * share)


def r_factor(
    *,
    slr: Values = 8.0,
    rlr: Values = 2.0,
    stmr: Values = 15.0,
    lstr: Values = 18.0,
    ds: Values = 3.0,
    telr: Values = 65.0,
    wepl: Values = 110.0,
    t: Values = 0.0,
    tr: Values = 0.0,
    ta: Values = 0.0,
    qdu: Values = 1.0,
    ie: Values = 0.0,
    bpl: Values = 4.3,
    ppl: Values = 0.0,
    burst_r: Values = 1.0,
    nc: Values = -70.0,
    nfor: Values = -64.0,
    ps: Values = 35.0,
    pr: Values = 35.0,
    a: Values = 0.0,
    mt: Values = 100.0,
    st: Values = 1.0,
) -> F64:
    """R of a narrowband connection by ITU-T G.107 (06/2015), section 7; names and defaults are those of its table 3.

    ``slr, rlr`` send and receive loudness ratings, dB · ``stmr, lstr`` sidetone masking, listener sidetone rating, dB
    ``ds`` D-value of the telephone, send side · ``telr`` talker echo loudness rating, dB
    ``wepl`` weighted echo path loss, dB · ``t`` mean one-way delay of the echo path, ms
    ``tr`` round trip in the 4-wire loop, ms · ``ta`` absolute delay, ms · ``qdu`` quantizing distortion units
    ``ie, bpl`` the codec's (:func:`impairment_of`) · ``ppl`` lost packets, percent · ``burst_r`` :func:`burst_ratio`
    ``nc`` circuit noise, dBm0p · ``nfor`` noise floor, dBmp · ``ps, pr`` room noise, dB(A) · ``a`` advantage
    ``mt, st`` delay that is just noticed, ms, and sensitivity to it

    With the defaults R = 93.2.
    """
    slr_, rlr_, stmr_, t_, ro_args = (np.asarray(v, np.float64) for v in (slr, rlr, stmr, t, nfor))
    no = _noise(slr_, rlr_, lstr, ds, nc, ro_args, ps, pr)
    ro = 15.0 - 1.5 * (slr_ + no)  # 7-2
    # simultaneous impairments
    xolr = slr_ + rlr_ + 0.2 * (64.0 + no - rlr_)  # 7-10
    iolr = 20.0 * ((1.0 + (xolr / 8.0) ** 8) ** 0.125 - xolr / 8.0)  # 7-9
    stmro = -10.0 * np.log10(_power(-stmr_) + np.exp(-t_ / 4.0) * _power(-np.asarray(telr, np.float64)))  # 7-12
    ist = (
        12.0 * (1.0 + ((stmro - 13.0) / 6.0) ** 8) ** (1 / 8)
        - 28.0 * (1.0 + ((stmro + 1.0) / 19.4) ** 35) ** (1 / 35)
        - 13.0 * (1.0 + ((stmro - 3.0) / 33.0) ** 13) ** (1 / 13)
        + 29.0
    )  # 7-11
    q = 37.0 - 15.0 * np.log10(np.asarray(qdu, np.float64))  # 7-17
    g = 1.07 + 0.258 * q + 0.0602 * q**2  # 7-16
    y = (ro - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0  # 7-14
    z = 46.0 / 30.0 - g / 40.0  # 7-15
    iq = 15.0 * np.log10(1.0 + 10.0**y + 10.0**z)  # 7-13
    # delay and echo
    terv = np.asarray(telr, np.float64) + _echo_delay(t_)  # 7-22
    terv = np.where(stmr_ < 9.0, terv + ist / 2.0, terv)  # 7-23
    roe = -1.5 * (no - rlr_)  # 7-20
    idte = _talker_echo(roe, 80.0 + 2.5 * (terv - 14.0), t_)  # 7-19, 7-21
    idte = np.where(stmr_ > 20.0, np.sqrt(idte**2 + ist**2), idte)  # 7-24
    idte = np.where(t_ < 1.0, 0.0, idte)  # an echo that comes at once is sidetone
    delay = idte + _listener_echo(ro, wepl, tr) + _pure_delay(ta, mt, st)
    return _plain(
        ro - (iolr + ist + iq) - delay - effective_impairment(ie, bpl, ppl, burst_r) + np.asarray(a, np.float64)
    )


def r_factor_wideband(
    *,
    slr: Values = 8.0,
    rlr: Values = 2.0,
    lstr: Values = 18.0,
    ds: Values = 3.0,
    telr: Values = 65.0,
    wepl: Values = 110.0,
    t: Values = 0.0,
    tr: Values = 0.0,
    ta: Values = 0.0,
    ie: Values = 0.0,
    bpl: Values = 4.3,
    ppl: Values = 0.0,
    burst_r: Values = 1.0,
    nc: Values = -70.0,
    nfor: Values = -96.0,
    ps: Values = 35.0,
    pr: Values = 35.0,
    a: Values = 0.0,
) -> F64:
    """R of a wideband connection, up to 129, by ITU-T G.107.1 (06/2019), section 7; names as in :func:`r_factor`.

    Noise (Ro = 129) and simultaneous impairments (0) are for further study there. Its echo needs the noise all the
    same, which is taken as G.107 has it, with G.107.1's noise floor. ``burst_r`` as in G.107 (G.107.1 knows random loss
    only).
    """
    slr_, rlr_, t_ = (np.asarray(v, np.float64) for v in (slr, rlr, t))
    ro = np.float64(129.0)  # 7-2
    roe = -1.5 * (_noise(slr_, rlr_, lstr, ds, nc, nfor, ps, pr) - rlr_)  # 7-6
    k = np.where(t_ < 100.0, 0.08 * t_ + 10.0, 18.0)  # 7-9, 7-10
    terv = np.asarray(telr, np.float64) + k + _echo_delay(t_)  # 7-8
    idte = _talker_echo(roe, 80.0 + 3.0 * (terv - 14.0), t_)  # 7-5, 7-7
    delay = idte + _listener_echo(ro, wepl, tr) + 1.29 * _pure_delay(ta, 100.0, 1.0)  # 7-13
    return _plain(ro - delay - effective_impairment(ie, bpl, ppl, burst_r) + np.asarray(a, np.float64))


def mos_from_r(r: Values, *, wideband: Any = False) -> F64:
    """MOS, 1 to 4.5, of R: G.107 Annex B, or, where ``wideband`` (bool, may be an array), G.107.1 Annex A."""
    rx = np.asarray(r, np.float64)
    rx = np.clip(np.where(np.asarray(wideband, np.bool_), rx / 1.29, rx), 0.0, 100.0)
    # below R = 6.5 the polynomial dips under 1: the Recommendation lets it, people cannot
    return _plain(np.maximum(1.0 + 0.035 * rx + rx * (rx - 60.0) * (100.0 - rx) * 7e-6, 1.0))


def burst_ratio(lost: Values, runs: Values, received: Values) -> F64:
    """BurstR (G.107 section 7.5): mean length of runs of lost packets, over what it were were they lost at random.

    ``lost`` packets in ``runs`` runs, and ``received``: counts. Never less than 1; 1 when nothing is lost.
    """
    lost_, runs_, received_ = (np.asarray(v, np.float64) for v in (lost, runs, received))
    total = np.maximum(lost_ + received_, 1.0)
    mean = lost_ / np.maximum(runs_, 1.0)
    # at random a run has 1 / (1 - loss) packets on average
    return _plain(np.maximum(mean * received_ / total, 1.0))


def gilbert_burst_ratio(p: Values, q: Values) -> F64:
    """BurstR of a two-state Markov (Gilbert) model: 1 / (p + q) (G.107 section 7.5).

    ``p`` the probability that a packet is lost after a received one, ``q`` that one is received after a lost one.
    Raises ConfigurationError unless 0 <= p <= 1 and 0 < q <= 1.
    """
    p_, q_ = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if not (np.all((p_ >= 0) & (p_ <= 1)) and np.all((q_ > 0) & (q_ <= 1))):
        raise ConfigurationError("p and q are probabilities: 0 to 1, and q more than 0")
    return _plain(1.0 / (p_ + q_))


def _noise(slr: F64, rlr: F64, lstr: Values, ds: Values, nc: Values, nfor: Values, ps: Values, pr: Values) -> F64:
    """No, dBm0p: the sum of the powers of all noise (G.107 equations 7-3 to 7-7)."""
    lstr_, ds_, nc_, nfor_, ps_, pr_ = (np.asarray(v, np.float64) for v in (lstr, ds, nc, nfor, ps, pr))
    nos = ps_ - slr - ds_ - 100.0 + 0.004 * (ps_ - (slr + rlr) - ds_ - 14.0) ** 2
    pre = pr_ + 10.0 * np.log10(1.0 + _power(10.0 - lstr_))
    nor = rlr - 121.0 + pre + 0.008 * (pre - 35.0) ** 2
    return _plain(10.0 * np.log10(_power(nc_) + _power(nos) + _power(nor) + _power(nfor_ + rlr)))


def _power(decibel: F64) -> F64:
    return _plain(10.0 ** (decibel / 10.0))


def _echo_delay(t: F64) -> F64:
    return _plain(-40.0 * np.log10((1.0 + t / 10.0) / (1.0 + t / 150.0)) + 6.0 * np.exp(-0.3 * t**2))


def _talker_echo(roe: F64, re: F64, t: F64) -> F64:
    half = (roe - re) / 2.0
    return _plain((half + np.sqrt(half**2 + 100.0) - 1.0) * -np.expm1(-t))


def _listener_echo(ro: F64 | np.float64, wepl: Values, tr: Values) -> F64:
    """Idle (G.107 equations 7-25, 7-26)."""
    rle = 10.5 * (np.asarray(wepl, np.float64) + 7.0) * (np.asarray(tr, np.float64) + 1.0) ** -0.25
    half = (ro - rle) / 2.0
    return _plain(half + np.sqrt(half**2 + 169.0))


def _pure_delay(ta: Values, mt: Values, st: Values) -> F64:
    """Idd (G.107 equations 7-27, 7-28): nothing up to ``mt``."""
    ta_, mt_, power = np.asarray(ta, np.float64), np.asarray(mt, np.float64), 6.0 * np.asarray(st, np.float64)
    x = np.log2(np.maximum(ta_ / mt_, 1.0))
    return _plain(25.0 * ((1.0 + x**power) ** (1.0 / power) - 3.0 * (1.0 + (x / 3.0) ** power) ** (1.0 / power) + 2.0))


def _plain(values: Any) -> F64:
    """Scalars as such, not as arrays without dimensions."""
    result: F64 = np.asarray(values, np.float64)[()]
    return result
