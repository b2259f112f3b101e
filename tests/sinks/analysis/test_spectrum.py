"""Streaming spectra are those that scipy computes from the whole signal."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from support import MS, Arrival, batch_of, leg_id, payload_of, pcmu, steady

import strep
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._model.exceptions import ConfigurationError
from strep.sinks import Spectrum


def feed(sink: Spectrum, arrivals: list[Arrival], step: int = 40) -> list[strep.StreamInfo]:
    engine = Engine(release=Release(40 * MS))
    dispatcher = Dispatcher([sink])
    arrivals = sorted(arrivals, key=lambda a: a.ns)
    for begin in range(0, len(arrivals), step):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + step])))
    dispatcher.handle(engine.flush())
    dispatcher.close(5)
    assert dispatcher.reports()[0]["failed"] is None
    return [report.stream for report in sorted(dispatcher.ended, key=lambda r: r.stream.serial)]


def audio(packets: int, first: int = 0) -> np.ndarray:
    return np.concatenate([pcmu(payload_of(first + k)) for k in range(packets)]) / 32_768


@pytest.mark.parametrize(("size", "hop", "step"), [(256, None, 40), (512, 128, 7), (200, 200, 1000)])
def test_average_and_spectrogram_are_scipys(size: int, hop: int | None, step: int) -> None:
    spectrum = Spectrum(size, hop, seconds=30)
    streams = feed(spectrum, [a for n in range(5) for a in steady(150, call=leg_id(n), first=100 * n)], step)
    overlap = size - (hop or size // 2)
    for n, stream in enumerate(streams):
        x = audio(150, 100 * n)
        frequency, wanted = scipy.signal.welch(x, 8000, nperseg=size, noverlap=overlap, detrend=False)
        found = spectrum.average(stream)
        assert found is not None
        np.testing.assert_array_equal(spectrum.frequency_hz, frequency)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6 * wanted.max())
        f, t, wanted = scipy.signal.spectrogram(
            x, 8000, window="hann", nperseg=size, noverlap=overlap, detrend=False, mode="psd"
        )
        shown = spectrum.spectrogram(stream)
        assert shown is not None
        np.testing.assert_allclose(shown.time_s, t)
        np.testing.assert_allclose(shown.psd.T, wanted, rtol=1e-4, atol=1e-6 * wanted.max())
        assert shown.psd.dtype == np.float32
        assert len(f) == shown.psd.shape[1]


def test_thirds_of_an_octave_hold_all_power_of_a_tone() -> None:
    t = np.arange(8000) / 8000
    tone = np.rint(8000 * np.sin(2 * np.pi * 1000 * t)).astype(np.int16)
    coded = strep._codecs.g711.encode(strep._codecs.g711.PCMU, tone).tobytes()
    arrivals = [Arrival(a.ns, a.data[:-160] + coded[160 * k : 160 * k + 160]) for k, a in enumerate(steady(50))]
    spectrum = Spectrum(512)
    (stream,) = feed(spectrum, arrivals)
    figures = spectrum.figures(stream)["spectrum"]
    level = dict(zip(figures["hz"], figures["dbfs"], strict=True))
    assert level[1000.0] == pytest.approx(20 * np.log10(8000 / 32_768) - 3.01, abs=0.1)
    assert max(v for f, v in level.items() if not 790 < f < 1260) < level[1000.0] - 35
    assert figures["frames"] == (8000 - 512) // 256 + 1
    assert list(level) == sorted(level)
    assert 631.0 in level


def test_the_last_seconds_only_and_no_more_streams_than_there_is_room_for() -> None:
    frames = round(1.0 * 8000 / 128)
    spectrum = Spectrum(256, seconds=1.0, max_bytes=3 * frames * (129 * 4 + 8))
    streams = feed(spectrum, [a for n in range(5) for a in steady(150, call=leg_id(n))])
    shown = [spectrum.spectrogram(stream) for stream in streams]
    assert [s is not None for s in shown] == [True] * 3 + [False] * 2
    assert spectrum.report()["without_spectrogram"] == 2
    assert shown[0] is not None
    x = audio(150)
    _, t, wanted = scipy.signal.spectrogram(x, 8000, window="hann", nperseg=256, noverlap=128, detrend=False)
    np.testing.assert_allclose(shown[0].time_s, t[-frames:])
    np.testing.assert_allclose(shown[0].psd.T, wanted[:, -frames:], rtol=1e-4, atol=1e-6 * wanted.max())
    # places of streams that ended are taken by new ones, the oldest first
    (later,) = feed(spectrum, steady(150, call=leg_id(9)))
    assert spectrum.spectrogram(later) is not None
    assert all(spectrum.average(s) is not None for s in streams)


def test_what_was_not_received_is_not_averaged() -> None:
    whole, holed = Spectrum(256, 256), Spectrum(256, 256)
    (a,) = feed(whole, steady(400))
    (b,) = feed(holed, [x for k, x in enumerate(steady(400)) if not 100 <= k < 200])
    count = [s.figures(x)["spectrum"]["frames"] for s, x in ((whole, a), (holed, b))]
    assert count[0] == 400 * 160 // 256
    assert count[1] == pytest.approx(count[0] - 100 * 160 / 256, abs=1)


def test_all_live_streams_as_arrays_and_wrong_arguments() -> None:
    spectrum, engine = Spectrum(seconds=0), Engine()
    dispatcher = Dispatcher([spectrum])
    dispatcher.handle(engine.receive(batch_of(sorted(steady(100) + steady(100, call=leg_id(1)), key=lambda a: a.ns))))
    dispatcher.handle(engine.advance(steady(100)[-1].ns + 1000 * MS))
    dispatcher._lanes[0].close(5)
    columns = spectrum.arrays()
    assert columns["psd"].shape == (2, 129)
    assert columns["frames"].tolist() == [(16_000 - 256) // 128 + 1] * 2
    stream = engine.registry.live()[0]
    assert spectrum.spectrogram(stream) is None
    np.testing.assert_array_equal(spectrum.average(stream), columns["psd"][0])
    for options in ({"size": 15}, {"size": 0}, {"seconds": -1}, {"hop": 999}):
        with pytest.raises(ConfigurationError):
            Spectrum(**options)  # type: ignore[arg-type]
