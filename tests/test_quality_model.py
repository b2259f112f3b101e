"""The E-model against what others have published: the Recommendations' own figures, and other implementations.

Vectors on GitHub: ``manucorporat/e-model`` README (R of G.107's defaults), ``bgrewell/loom``
core/quality/emodel/emodel_test.go (narrowband and wideband, with delay, loss and bursts), ``NormB/sipnab``
src/rtp/emodel_wb.rs (wideband MOS of AMR-WB modes, with G.113's tables), ``sipwise/rtpengine``
t/auto-daemon-tests-mos-fullband.pl (fullband MOS, cut to one digit).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strep
from strep.quality import (
    CODECS,
    SCALES,
    burst_ratio,
    effective_impairment,
    gilbert_burst_ratio,
    impairment_of,
    impairments_by_mode,
    mos_from_r,
    r_factor,
    r_factor_fullband,
    r_factor_wideband,
)


def test_the_defaults_give_what_the_recommendation_says() -> None:
    """G.107 section 7.7: with all default values R = 93.2; Annex B: MOS 4.41."""
    assert r_factor() == pytest.approx(93.206208, abs=1e-6)  # e-model's README: "R = 93.206208"
    assert mos_from_r(r_factor()) == pytest.approx(4.409406, abs=1e-6)
    assert isinstance(r_factor(), float)


@pytest.mark.parametrize(
    ("options", "r", "mos"),
    [
        ({"ta": 100}, 90.663730, 4.354920),
        ({"ta": 150}, 89.539132, 4.327546),
        ({"ta": 250}, 79.177101, 3.992519),
        ({"ppl": 1, "bpl": 25.1}, 89.566361, 4.328232),
        ({"ppl": 5, "bpl": 25.1}, 77.425477, 3.923091),
        ({"ppl": 2, "ie": 11, "bpl": 19}, 74.206208, 3.787558),
        ({"ppl": 5, "bpl": 25.1, "burst_r": 2}, 93.206208 - 17.210145, None),
    ],
)
def test_narrowband_vectors(options: dict[str, float], r: float, mos: float | None) -> None:
    echo = {"t": options["ta"], "tr": 2 * options["ta"]} if "ta" in options else {}
    found = r_factor(**options, **echo)
    assert found == pytest.approx(r, abs=2e-6)
    if mos is not None:
        assert mos_from_r(found) == pytest.approx(mos, abs=1e-6)


@pytest.mark.parametrize(
    ("ta", "ie", "r", "mos"),
    [
        (0, 0, 128.846315, 4.499152),
        (0, 5, 123.846315, 4.456839),
        (50, 0, 128.255018, 4.495632),
        (150, 5, 122.421331, 4.439743),
    ],
)
def test_wideband_vectors(ta: float, ie: float, r: float, mos: float) -> None:
    found = r_factor_wideband(ta=ta, t=ta, tr=2 * ta, ie=ie)
    assert found == pytest.approx(r, abs=2e-6)
    assert mos_from_r(found, wideband=True) == pytest.approx(mos, abs=1e-6)


def test_mos_of_amr_wb_modes() -> None:
    """G.107.1 equations 7-1, A-1, A-2 with the Ie,wb of G.113 table IV.1, without echo: R = 129 - Ie."""
    modes = np.array([1.0, 8.0, 13.0, 41.0, 56.0])
    wanted = [4.4940, 4.4206, 4.3371, 3.5123, 2.9220]
    np.testing.assert_allclose(mos_from_r(129 - modes, wideband=True), wanted, atol=5e-5)
    lossy = 129 - effective_impairment(20, 4.3, 2)
    assert mos_from_r(lossy, wideband=True) == pytest.approx(3.4062, abs=5e-5)


@pytest.mark.parametrize(("loss", "delay_ms", "mos"), [(3, 140, 3.0), (5, 220, 2.2)])
def test_fullband_vectors(loss: float, delay_ms: float, mos: float) -> None:
    """rtpengine's "MOS degraded" and "MOS very degraded" of opus: round trip 250 and 400 ms, jitter 15 and 20 ms. Its
    Ie is 10.2, its Bpl 4.3; it says what one digit shows, rounded down."""
    found = mos_from_r(r_factor_fullband(ta=delay_ms, ie=10.2, bpl=4.3, ppl=loss), scale="fullband")
    assert mos <= found < mos + 0.1


def test_fullband_ends_where_it_should() -> None:
    assert r_factor_fullband() == r_factor_fullband(ta=100) == 148
    assert mos_from_r(148, scale="fullband") == 4.5
    assert r_factor_fullband(ppl=100, bpl=1e-9) == pytest.approx(148 - 132)
    assert r_factor_fullband(ta=400) == pytest.approx(148 - 1.48 * (r_factor() - r_factor(ta=400)))
    assert r_factor_fullband(ie=5, a=5) == 148


def test_the_scales_map_to_mos_by_their_own_divisors() -> None:
    r = np.array([[50.0], [93.2], [120.0]])
    found = mos_from_r(r, scale=np.arange(3))
    for i, (name, divisor) in enumerate(zip(SCALES, (1, 1.29, 1.48), strict=True)):
        np.testing.assert_array_equal(found[:, i], mos_from_r(r[:, 0], scale=name))
        np.testing.assert_allclose(found[:, i], mos_from_r(r[:, 0] / divisor))
    np.testing.assert_array_equal(found[:, 1], mos_from_r(r[:, 0], wideband=True))
    with pytest.raises(strep.ConfigurationError, match="narrowband, wideband or fullband"):
        mos_from_r(90, scale="ultraband")


def test_what_the_modes_of_amr_wb_cost() -> None:
    """G.113 (09/2024) tables IV.1 and IV.4, as sipnab has them; the MOS it prints beside them."""
    modes = {mode.mode: mode for mode in impairments_by_mode("amr-wb")}
    ie = {"6.6": 41, "8.85": 26, "12.65": 13, "14.25": 10, "15.85": 7, "18.25": 5, "19.85": 3, "23.05": 1, "23.85": 8}
    assert {name: mode.ie for name, mode in modes.items()} == ie
    assert [modes[name].bpl for name in ("12.65", "23.05", "23.85")] == [4.3, 4.6, 4.9]
    printed = {"6.6": 3.51, "8.85": 4.02, "14.25": 4.39, "15.85": 4.43, "18.25": 4.46, "19.85": 4.48, "23.05": 4.49}
    for name, mos in printed.items():
        assert mos_from_r(129 - modes[name].ie, scale=modes[name].scale) == pytest.approx(mos, abs=0.0051)
    assert all(not mode.published and mode.scale == "wideband" for mode in modes.values())
    assert [mode.scale for mode in impairments_by_mode("opus")] == ["fullband"] * 5
    assert impairments_by_mode("PCMU") == impairments_by_mode("EVS") == ()


def test_mos_by_annex_b() -> None:
    """G.107 table B.1 (R 90, 80, 70, 60, 50: MOS 4.34, 4.03, 3.60, 3.10, 2.58), to its two digits."""
    np.testing.assert_allclose(mos_from_r([90, 80, 70, 60, 50]), [4.34, 4.03, 3.60, 3.10, 2.58], atol=0.0061)
    np.testing.assert_array_equal(mos_from_r([-5, 0, 3, 100, 129]), [1, 1, 1, 4.5, 4.5])
    np.testing.assert_allclose(mos_from_r([64.5, 116.1], wideband=[True, False]), [2.575, 4.5])


def test_effective_impairment() -> None:
    np.testing.assert_allclose(
        effective_impairment([11, 11, 0, 0, 0], [19, 19, 25.1, 25.1, 25.1], [0, 2, 1, 5, 5], [1, 1, 1, 2, 0.5]),
        [11, 19, 3.639847, 17.210145, 15.780731],
        atol=1e-6,
    )
    assert effective_impairment(7, 0, 0) == 7  # no robustness, but nothing lost


@pytest.mark.parametrize("model", [r_factor, r_factor_wideband])
def test_arrays_are_as_good_as_one_by_one(model: Any) -> None:
    ta, ppl = np.array([0.0, 80.0, 200.0, 400.0])[:, None], np.array([0.0, 1.0, 3.0, 10.0])
    grid = model(ta=ta, t=ta, tr=2 * ta, ppl=ppl, bpl=25.1, burst_r=1.5)
    assert grid.shape == (4, 4)
    for i in range(4):
        for k in range(4):
            one = model(ta=ta[i, 0], t=ta[i, 0], tr=2 * ta[i, 0], ppl=ppl[k], bpl=25.1, burst_r=1.5)
            assert one == pytest.approx(grid[i, k], abs=1e-9)
    assert (np.diff(grid, axis=0) < 0).all()
    assert (np.diff(grid, axis=1) < 0).all()


def test_sidetone_and_echo_have_their_special_cases() -> None:
    """G.107: below T = 1 ms the echo is sidetone; STMR below 9 and above 20 dB change the talker echo (7-23, 7-24)."""
    assert r_factor(t=0.99) > r_factor(t=60)
    assert r_factor(t=60, stmr=21) < r_factor(t=60, stmr=20)
    # e-model (Go) has these branches too; Ist of STMR 8 is 3.4 at T = 60 ms
    assert r_factor(t=60, stmr=8) < r_factor(t=60, stmr=15)
    assert r_factor(a=5) == pytest.approx(r_factor() + 5)
    assert r_factor(qdu=4) < r_factor()


def test_codecs() -> None:
    assert impairment_of("pcmu") == CODECS["PCMU"]
    assert (impairment_of("PCMA", concealment=False).bpl, impairment_of("PCMA").bpl) == (4.3, 25.1)
    assert [impairment_of("L16", rate).scale for rate in (8000, 16_000, 48_000)] == list(SCALES)
    assert impairment_of("PCMU", 16_000, concealment=False).scale == "wideband"
    assert impairment_of("L16", 16_000).wideband
    assert impairment_of("EVS").published is False
    scales = {"G722": "wideband", "AMR-WB": "wideband", "OPUS": "fullband"}
    for name, codec in CODECS.items():
        assert codec.bpl > 0, name
        assert codec.published == ("estimated" not in codec.source), name
        base, _, of = name.partition("/")
        by_rate = {"16000": "wideband", "44100": "fullband"}.get(of)
        assert codec.scale == (by_rate or scales.get(base, "narrowband")), name
    assert {"AMR-WB/6.6", "OPUS/super-wideband", "L16/44100"} <= set(CODECS)


@settings(deadline=None)
@given(p=st.floats(0.001, 0.5), q=st.floats(0.05, 1.0))
def test_burst_ratio_of_a_gilbert_model(p: float, q: float) -> None:
    """Counts that a Gilbert model has on average give 1 / (p + q) (never less than 1)."""
    packets = 1e6
    lost = packets * p / (p + q)
    found = burst_ratio(lost, lost * q, packets - lost)
    assert found == pytest.approx(max(1.0, float(gilbert_burst_ratio(p, q))), rel=1e-9)


def test_burst_ratio_of_random_loss_is_one() -> None:
    lost = np.random.default_rng(1).random(200_000) < 0.1
    runs = np.count_nonzero(lost[1:] & ~lost[:-1]) + int(lost[0])
    assert burst_ratio(lost.sum(), runs, (~lost).sum()) == pytest.approx(1, abs=0.02)
    assert burst_ratio(0, 0, 500) == 1
    assert burst_ratio(0, 0, 0) == 1
    with pytest.raises(strep.ConfigurationError):
        gilbert_burst_ratio(0.1, 0.0)
