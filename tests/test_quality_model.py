"""The E-model against what others have published: the Recommendations' own figures, and other implementations.

Vectors on GitHub: ``manucorporat/e-model`` README (R of G.107's defaults), ``bgrewell/loom``
core/quality/emodel/emodel_test.go (narrowband and wideband, with delay, loss and bursts), ``NormB/sipnab``
src/rtp/emodel_wb.rs (wideband MOS of AMR-WB modes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strep
from strep.quality import (
    CODECS,
    burst_ratio,
    effective_impairment,
    gilbert_burst_ratio,
    impairment_of,
    mos_from_r,
    r_factor,
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
    assert impairment_of("L16", 8000).wideband is False
    assert impairment_of("L16", 16_000).wideband is True
    assert impairment_of("EVS").published is False
    for name, codec in CODECS.items():
        assert codec.bpl > 0, name
        assert codec.published == ("estimated" not in codec.source), name
        assert codec.wideband == (name in ("G722", "AMR-WB", "OPUS", "L16/wideband"))


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
