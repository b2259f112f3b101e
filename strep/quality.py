"""How good a call is by what the network did to it: the E-model (ITU-T G.107; wideband G.107.1; fullband G.107.2).

    R = Ro - Is - Id - Ie,eff + A          noise, loudness and sidetone, delay and echo, coding and loss, advantage

There are three scales, for what is compared with what people know of telephones of that bandwidth: *narrowband*
(300-3,400 Hz, R up to 93.2 with all defaults), *wideband* (50-7,000 Hz, up to 129), *fullband* (20-20,000 Hz, up to
148). R becomes a mean opinion score (MOS) by G.107 Annex B, after division by 1.29 or 1.48 on the others (Annexes A of
G.107.1 and G.107.2). So a clean call has a MOS of about 4.4 on each: figures of different scales must not be compared.

All arguments may be arrays, which are broadcast. Results are float64: arrays, or a scalar if all arguments are scalars.
Nothing is clipped except where the Recommendation says so: R may be below 0 (its MOS is 1).

What is from where: narrowband from G.107 (06/2015), whose own figures the tests have. Wideband from G.107.1 (06/2019);
its corrigendum of 01/2020, which has another equation 7-6, was not at hand. Nor was the text of G.107.2: its constants
are those of an implementation (``sipwise/rtpengine`` daemon/ssrc.c), see :func:`r_factor_fullband`. What each codec
costs, and by which table, its :class:`Impairment` says; the modes of AMR-WB are those of G.113 (09/2024) as
``NormB/sipnab`` src/rtp/emodel_wb.rs quotes it.

The model estimates what people would say on average of such connections. It does not listen: a call whose microphone
is broken has the MOS of its network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from ._codecs.facts import CODECS as _FACTS
from ._codecs.facts import Impairment, Scale
from ._model.exceptions import ConfigurationError

__all__ = [
    "CODECS",
    "SCALES",
    "Impairment",
    "Scale",
    "burst_ratio",
    "effective_impairment",
    "gilbert_burst_ratio",
    "impairment_of",
    "impairments_by_mode",
    "mos_from_r",
    "r_factor",
    "r_factor_fullband",
    "r_factor_wideband",
]

F64 = npt.NDArray[np.float64]
Values = npt.ArrayLike


SCALES: Final[tuple[Scale, ...]] = get_args(Scale)
_DIVISORS: Final = np.array([1.0, 1.29, 1.48])  # of R, by SCALES: then it is G.107's


def _impairments() -> dict[str, Impairment]:
    found: dict[str, Impairment] = {}
    for name, row in _FACTS.items():
        if row.impairment is not None:
            found[name] = row.impairment
        found |= {f"{name}/{rate}": by_rate for rate, by_rate in row.impairment_by_rate.items()}
        found |= {f"{name}/{by_mode.mode}": by_mode for by_mode in row.impairment_modes}
    return found


# By RTP encoding name in upper case; with "/" and the sample rate from which on, or the mode: "L16/16000", "AMR-WB/6.6"
CODECS: Final[Mapping[str, Impairment]] = _impairments()
_UNKNOWN: Final = Impairment(10.0, 10.0, "narrowband", False, "estimated: a codec of which nothing is known here")


def impairment_of(codec: str, sample_rate: int = 8000, *, concealment: bool = True) -> Impairment:
    """What a codec costs, by its RTP encoding name (any case). ``sample_rate`` in Hz: of L16 and G.711, which may have
    any, 16 kHz and more are wideband, 44.1 kHz and more fullband. Of a codec with modes: what it usually costs.

    ``concealment`` False: G.711 as if holes were played as silence (Bpl 4.3 instead of 25.1). Never raises: unknown
    names get a middling estimate, and its ``source`` says so.
    """
    row = _FACTS.get(codec.upper())
    if row is None:
        return _UNKNOWN
    by_rate = [impairment for rate, impairment in row.impairment_by_rate.items() if sample_rate >= rate]
    if by_rate:
        return by_rate[-1]
    if row.impairment_bare and not concealment:
        return row.impairment_bare
    return row.impairment or _UNKNOWN


def impairments_by_mode(codec: str) -> tuple[Impairment, ...]:
    """What each mode of a codec costs; empty if it has none that differ. AMR-WB: nine modes by frame type, 6.6 to
    23.85 kbit/s; opus: five by bandwidth. They are all of one scale."""
    row = _FACTS.get(codec.upper())
    return row.impairment_modes if row is not None else ()


def effective_impairment(
    ie: Values, bpl: Values, loss_percent: Values, burst_ratio: Values = 1.0, *, most: float = 95.0
) -> F64:
    """Ie,eff (G.107 equation 7-29; with burst_ratio 1 also G.107.1 equation 7-15).

    ``loss_percent``: 0 to 100, packets that came too late included. ``burst_ratio``: at least 1 (less is taken for 1).
    ``most``: what it tends to, 95 on the narrowband and the wideband scale, 132 on the fullband one.
    """
    ie_, bpl_, loss = (np.asarray(v, np.float64) for v in (ie, bpl, loss_percent))
    bursts = np.maximum(np.asarray(burst_ratio, np.float64), 1.0)
    with np.errstate(invalid="ignore"):  # 0/0 where nothing is lost and bpl is 0
        share = np.where(loss > 0, loss / (loss / bursts + bpl_), 0.0)
    return _plain(ie_ + (most - ie_) * share)


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
    idte = np.where(t_ < 1.0, 0.0, idte)  # an echo without delay is sidetone
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

    G.107.1 leaves noise (Ro = 129) and simultaneous impairments (0) for further study. Its talker echo depends on the
    noise nevertheless: it is computed as in G.107, with G.107.1's noise floor. ``burst_r`` works as in G.107; G.107.1
    itself considers random loss only.
    """
    slr_, rlr_, t_ = (np.asarray(v, np.float64) for v in (slr, rlr, t))
    ro = np.float64(129.0)  # 7-2
    roe = -1.5 * (_noise(slr_, rlr_, lstr, ds, nc, nfor, ps, pr) - rlr_)  # 7-6
    k = np.where(t_ < 100.0, 0.08 * t_ + 10.0, 18.0)  # 7-9, 7-10
    terv = np.asarray(telr, np.float64) + k + _echo_delay(t_)  # 7-8
    idte = _talker_echo(roe, 80.0 + 3.0 * (terv - 14.0), t_)  # 7-5, 7-7
    delay = idte + _listener_echo(ro, wepl, tr) + 1.29 * _pure_delay(ta, 100.0, 1.0)  # 7-13
    return _plain(ro - delay - effective_impairment(ie, bpl, ppl, burst_r) + np.asarray(a, np.float64))


def r_factor_fullband(
    *,
    ta: Values = 0.0,
    ie: Values = 0.0,
    bpl: Values = 4.3,
    ppl: Values = 0.0,
    burst_r: Values = 1.0,
    a: Values = 0.0,
) -> F64:
    """R of a fullband connection, up to 148, after ITU-T G.107.2, by what implementations of it show; names as in
    :func:`r_factor`.

    Ro = 148, Id = 1.48 Idd (no echo), Ie,eff tends to 132. Noise is taken to be the default, under which Ro is 148.
    ``burst_r`` works as in G.107.
    """
    delay = 1.48 * _pure_delay(ta, 100.0, 1.0)
    return _plain(148.0 - delay - effective_impairment(ie, bpl, ppl, burst_r, most=132.0) + np.asarray(a, np.float64))


def mos_from_r(r: Values, *, wideband: Any = False, scale: Scale | npt.ArrayLike | None = None) -> F64:
    """MOS, 1 to 4.5, of R on a scale: G.107 Annex B; of R / 1.29 (wideband) or R / 1.48 (fullband).

    ``scale``: one of :data:`SCALES`, or indices of these (may be an array). ``wideband`` (bool, may be an array) is the
    older way to say it, if ``scale`` is None. Raises ConfigurationError for a scale that there is not.
    """
    if isinstance(scale, str):
        if scale not in SCALES:
            raise ConfigurationError(f"scale {scale!r}: narrowband, wideband or fullband")
        scale = SCALES.index(scale)
    index = np.asarray(wideband, np.bool_) if scale is None else np.asarray(scale)
    rx = np.clip(np.asarray(r, np.float64) / _DIVISORS[index.astype(np.int64)], 0.0, 100.0)
    # Below R = 6.5 the polynomial falls below 1, which the Recommendation permits; opinion scores begin at 1.
    return _plain(np.maximum(1.0 + 0.035 * rx + rx * (rx - 60.0) * (100.0 - rx) * 7e-6, 1.0))


def burst_ratio(lost: Values, runs: Values, received: Values) -> F64:
    """BurstR (G.107 section 7.5): the mean length of runs of lost packets, divided by what it would be at random loss.

    ``lost`` packets in ``runs`` runs, and ``received``: counts. Never less than 1; 1 when nothing is lost.
    """
    lost_, runs_, received_ = (np.asarray(v, np.float64) for v in (lost, runs, received))
    total = np.maximum(lost_ + received_, 1.0)
    mean = lost_ / np.maximum(runs_, 1.0)
    # at random loss a run has 1 / (1 - loss) packets on average
    return _plain(np.maximum(mean * received_ / total, 1.0))


def gilbert_burst_ratio(p: Values, q: Values) -> F64:
    """BurstR of a two-state Markov (Gilbert) model: 1 / (p + q) (G.107 section 7.5).

    ``p``: the probability that a packet is lost after a received one; ``q``: that one is received after a lost one.
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
    """float64; an array without dimensions becomes a scalar."""
    result: F64 = np.asarray(values, np.float64)[()]
    return result
