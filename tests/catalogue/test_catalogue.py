"""What was recorded is found again: in SQLite and in PostgreSQL alike."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

import strep
from strep.catalogue import CallQuery, Catalogue, CatalogueError, CatalogueWriter, moment, rebuild
from strep.catalogue.rows import leg_rows, ns_of

S = 1_000_000_000
T0 = 1_790_000_000 * S


def stream(direction: str = "inbound", lost: int = 0, mos: float | None = None, seconds: float = 10) -> dict[str, Any]:
    return {
        "leg": "a",
        "direction": direction,
        "codec": "PCMU",
        "first_arrival_ns": T0,
        "last_arrival_ns": T0 + round(seconds * S),
        "duration_s": seconds,
        "packets_received": 500,
        "packets_lost": lost,
        "jitter_ms": {"mean": 1.5, "max": 2, "last": 1},
        "end": "stopped",
        "files": [f"x/a-{direction}.wav"],
        **({} if mos is None else {"quality": {"mos_cq": mos, "mos_min": mos - 0.5}}),
        "dtmf": {"count": 1, "digits": "5", "events": [{"digit": "5", "position_s": 1.0, "duration_s": 0.1}]},
    }


def document(number: int, *, call: int | None = None, at_s: int = 0, **more: Any) -> dict[str, Any]:
    began = datetime.fromtimestamp(T0 / S + at_s, UTC)
    found: dict[str, Any] = {
        "schema": 1,
        "call_leg_id": str(uuid.UUID(int=number)),
        "call_session_id": None if call is None else str(uuid.UUID(int=call)),
        "call_control_id": f"v3:{number}",
        "connection_id": "77",
        "leg": "a",
        "from": f"+1555010{number:04d}",
        "to": "+15550199999",
        "initiated_at": began.isoformat().replace("+00:00", "Z"),
        "ended_at": (began + timedelta(seconds=20)).isoformat().replace("+00:00", "Z"),
        "hangup_cause": "normal_clearing",
        "error": None,
        "fork_events": [{"event": "fork_started", "time": "2026-09-21T13:33:20.000000001Z", "text": "took it"}],
        "streams": [stream(), stream("outbound", lost=3)],
        **more,
    }
    for entry in found["streams"]:
        for name in ("first_arrival_ns", "last_arrival_ns"):
            entry[name] += (at_s + 1) * S
    return found


def keys(found: list[dict[str, Any]]) -> list[str]:
    return [leg["call_control_id"] for call in found for leg in call["legs"]]


def test_what_is_put_is_found_and_shown(catalogue: Catalogue) -> None:
    for n in range(1, 6):
        catalogue.put(document(n, call=100 + n // 2, at_s=10 * n), f"{n}/leg.json")
    calls = catalogue.find(CallQuery())
    assert [len(call["legs"]) for call in calls] == [2, 2, 1]  # the latest first: 4 and 5, 2 and 3, 1
    assert calls[0]["legs"][0]["packets_lost"] == 3
    shown = catalogue.show("v3:3")
    assert shown is not None
    assert shown == catalogue.show(str(uuid.UUID(int=3))) == catalogue.show(str(uuid.UUID(int=101)))
    (recording,) = shown["legs"][1]["recordings"]
    assert [s["direction"] for s in recording["streams"]] == ["inbound", "outbound"]
    assert recording["files"][0] == {"path": "x/a-inbound.wav", "streams": [0], "place": None}
    assert [event["kind"] for event in recording["events"]] == ["fork_started", "dtmf", "dtmf"]
    assert recording["events"][1]["data"] == {"digit": "5"}
    assert recording["events"][0]["time_ns"] == ns_of("2026-09-21T13:33:20.000000001Z")
    assert catalogue.show("nobody") is None


def test_the_same_file_again_takes_the_place_of_the_first(catalogue: Catalogue) -> None:
    catalogue.put(document(1), "1/leg.json")
    before = catalogue.count()
    catalogue.put(document(1, error="late"), "1/leg.json")
    assert catalogue.count() == before
    ((call),) = catalogue.find(CallQuery())
    assert call["legs"][0]["error"] == "late"
    catalogue.put(document(1), "1/leg-2.json")  # another run recorded more of it
    assert catalogue.count()["recordings"] == 2
    assert catalogue.count()["legs"] == 1


def test_a_live_call_is_there_and_becomes_a_recorded_one(catalogue: Catalogue) -> None:
    live = {**document(1), "streams": [], "ended_at": None}
    catalogue.put(live, None)
    assert keys(catalogue.find(CallQuery(outcome="live"))) == ["v3:1"]
    catalogue.put(document(1), "1/leg.json")
    catalogue.put(live, None)  # told late
    assert keys(catalogue.find(CallQuery(outcome="recorded"))) == ["v3:1"]


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({"from_number": "+15550100002"}, [2]),
    ({"from_number": "+1555010*"}, [5, 4, 3, 2, 1]),
    ({"from_number": "*0003"}, [3]),
    ({"from_number": "+1_5*"}, []),
    ({"from_number": "%"}, []),
    ({"to_number": "+15550199999", "outcome": "no_media"}, [4]),
    ({"since_ns": T0 + 30 * S}, [5, 4, 3]),
    ({"since_ns": T0 + 20 * S, "until_ns": T0 + 40 * S}, [3, 2]),
    ({"outcome": "no_file"}, [5]),
    ({"mos_below": 3.0}, [3]),
    ({"tags": {"case": "7"}}, [2]),
    ({"tags": {"case": "8"}}, []),
    ({"limit": 2}, [5, 4]),
]


def test_each_filter(catalogue: Catalogue) -> None:
    special: dict[int, dict[str, Any]] = {
        3: {"streams": [stream(mos=3.2), stream("outbound", mos=4.4)]},
        4: {"streams": []},
        5: {"error": "no file could be made of inbound: the summary's sinks say why"},
    }
    for n in range(1, 6):
        catalogue.put(document(n, call=100 + n, at_s=10 * n, **special.get(n, {})), f"{n}/leg.json")
    assert catalogue.tag("v3:2", {"case": "7", "gone": "x"})
    assert catalogue.tag(str(uuid.UUID(int=2)), {"gone": None})
    assert not catalogue.tag("nobody", {"case": "7"})
    for options, wanted in FILTERS:
        found = catalogue.find(CallQuery(**options))
        assert keys(found) == [f"v3:{n}" for n in wanted], options
    catalogue.put(document(2, call=102), "2/leg.json")
    assert catalogue.find(CallQuery(tags={"case": "7"}))[0]["tags"] == {"case": "7"}  # they stay


def test_hostile_words_are_only_words(catalogue: Catalogue) -> None:
    evil = "'; DROP TABLE legs; --\0\ud800" + "x" * 5000
    catalogue.put(document(1, **{"from": evil, "hangup_cause": evil}), "1/leg.json")
    ((call),) = catalogue.find(CallQuery())
    assert call["from_number"].startswith("'; DROP TABLE legs; --")
    assert len(call["from_number"]) == 2000
    assert keys(catalogue.find(CallQuery(from_number="'; DROP*"))) == ["v3:1"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from([*document(1), "recovered", "silent"]), json_values),
    st.lists(
        st.dictionaries(st.sampled_from([*stream(), "level", "speech", "quality", "tones"]), json_values), max_size=3
    ),
)
def test_any_document_is_rows_or_none(tmp_path_factory: pytest.TempPathFactory, found: Any, streams: Any) -> None:
    content = {**found, "streams": streams, "call_leg_id": "1"}
    with Catalogue(tmp_path_factory.mktemp("any") / "c.sqlite") as catalogue:
        catalogue.put(content, "1/leg.json")
        assert catalogue.count()["legs"] == 1
    with pytest.raises(ValueError, match="call_leg_id"):
        leg_rows({**content, "call_leg_id": None}, None, "")


def test_it_is_made_anew_of_the_files(tmp_path: Path, url: str) -> None:
    wanted = []
    for n in range(1, 8):
        folder = tmp_path / "calls" / str(n)
        folder.mkdir(parents=True)
        (folder / "leg.json").write_text(json.dumps(document(n, call=n // 2 + 1)))
        wanted.append((document(n, call=n // 2 + 1), f"{n}/leg.json"))
    (tmp_path / "calls" / "1" / "leg-2.json").write_text(json.dumps(document(1, call=1)))
    wanted.append((document(1, call=1), "1/leg-2.json"))
    (tmp_path / "calls" / "2" / "leg-2.json").write_text("{")
    (tmp_path / "calls" / "3" / "legend.json").write_text("{}")
    with Catalogue(url, machine="one") as catalogue, Catalogue(tmp_path / "as-it-went.sqlite", machine="one") as went:
        done = rebuild(catalogue, tmp_path / "calls")
        assert (done.legs, done.failed) == (8, 1)
        for content, file in wanted:
            went.put(content, file)
        assert catalogue.find(CallQuery()) == went.find(CallQuery())
        before = catalogue.count()
        rebuild(catalogue, tmp_path / "calls")
        assert catalogue.count() == before == went.count()


def test_many_writers_at_once(url: str) -> None:
    def work(machine: str) -> None:
        with Catalogue(url, machine=machine) as mine:
            for n in range(1, 21):
                mine.put(document(n, call=100), f"{n}/leg.json")

    Catalogue(url).close()
    threads = [threading.Thread(target=work, args=(f"m{k}",)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Catalogue(url) as catalogue:
        assert catalogue.count() == {
            "calls": 1, "legs": 20, "recordings": 60, "streams": 120, "files": 120, "events": 180,
        }  # fmt: skip


def test_a_newer_version_is_refused(url: str) -> None:
    Catalogue(url).close()
    engine = create_engine(
        f"sqlite:///{url}" if "://" not in url else url.replace("postgresql:", "postgresql+psycopg:")
    )
    with engine.begin() as connection:
        connection.execute(text("UPDATE strep_catalogue SET version = 99"))
    engine.dispose()
    with pytest.raises(CatalogueError, match=r"version 99, and this strep knows 1: update strep"):
        Catalogue(url)


def test_wrong_urls_say_what_would_be_right(tmp_path: Path) -> None:
    for wrong in ("mysql://x", "nonsense://x"):
        with pytest.raises(strep.ConfigurationError, match="postgresql://USER@HOST/DATABASE"):
            Catalogue(wrong)
    with pytest.raises(CatalogueError, match="cannot be opened"):
        Catalogue(tmp_path / "no" / "folder" / "c.sqlite")
    with pytest.raises(CatalogueError, match="cannot be opened") as failed:
        Catalogue("postgresql://u:secret@127.0.0.1:1/x")
    assert "secret" not in str(failed.value)
    assert failed.value.passing


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strep.catalogue.store._CONNECT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(CatalogueError, match="timeout") as failed:
            Catalogue(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x")
        assert failed.value.passing


class TestWriter:
    def test_what_the_database_does_not_take_waits_and_is_written(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "later"

        def opened() -> Catalogue:
            return Catalogue(folder / "c.sqlite", machine="one")

        writer = CatalogueWriter(opened, "one")
        writer.start()
        writer.put(document(1), "1/leg.json")
        while writer.problem is None:
            threading.Event().wait(0.01)
        writer.put({"call_leg_id": None}, "2/leg.json")
        folder.mkdir()
        for n in range(3, 6):
            writer.put(document(n), f"{n}/leg.json")
        writer_done(writer, 4)
        writer.stop(10)
        figures = {"kept": 4, "waiting": 0, "left_out": 0, "refused": 1, "problem": None}
        assert writer.figures() == figures
        with opened() as catalogue:
            assert catalogue.count()["legs"] == 4
        assert [r.message for r in caplog.records if "again" in r.message]

    def test_what_is_too_much_is_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("strep.catalogue.writer._WAITING", 3)

        def never() -> Catalogue:
            raise CatalogueError("it is gone", passing=True)

        writer = CatalogueWriter(never, "one")
        for n in range(1, 11):
            writer.put(document(n), f"{n}/leg.json")
        assert writer.figures()["waiting"] == 3
        writer.start()
        writer.stop(10)
        assert writer.figures()["left_out"] == 10


def writer_done(writer: CatalogueWriter, count: int) -> None:
    for _ in range(2000):
        if writer.kept >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(writer.figures())


NOW = datetime(2026, 11, 29, 16, 30, 5, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("now", "2026-11-29T16:30:05+01:00"),
        ("today", "2026-11-29T00:00:00+01:00"),
        ("yesterday", "2026-11-28T00:00:00+01:00"),
        ("yesterday 15:00", "2026-11-28T15:00:00+01:00"),
        ("15:00:07", "2026-11-29T15:00:07+01:00"),
        ("2h", "2026-11-29T14:30:05+01:00"),
        ("90 m ago", "2026-11-29T15:00:05+01:00"),
        ("1.5d", "2026-11-28T04:30:05+01:00"),
        ("2026-11-01", "2026-11-01T00:00:00+01:00"),
        ("2026-11-01 08:15", "2026-11-01T08:15:00+01:00"),
        ("2026-11-01T08:15:00Z", "2026-11-01T08:15:00+00:00"),
    ],
)
def test_moments(words: str, wanted: str) -> None:
    assert moment(words, NOW) == int(datetime.fromisoformat(wanted).timestamp()) * S


@pytest.mark.parametrize("words", ["", "soon", "yesterday noon", "25:00", "2026-13-01", "9999999999999h"])
def test_what_is_no_moment(words: str) -> None:
    with pytest.raises(strep.ConfigurationError, match='"yesterday 15:00"'):
        moment(words, NOW)
