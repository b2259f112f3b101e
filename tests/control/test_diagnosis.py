"""Why no media comes: what is said of which facts, and strep doctor --call."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import pytest
from control.test_sessions import world

from strep.control import Diagnosis, Facts
from strep.control._diagnosis import diagnose

PUBLIC: dict[str, Any] = {
    "mode": "target", "stream_type": "raw", "host": "203.0.113.7", "port": 9000, "listening": ("0.0.0.0:9000",),
    "waited_s": 5.0, "hooks": True, "hook_started": True,
}  # fmt: skip
REACHED = {"host": "8.8.8.8"}  # 203.0.113.0/24 is for documentation: not global


def of(**facts: Any) -> Diagnosis:
    return diagnose(Facts(**{**PUBLIC, **REACHED, **facts}))


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({}, ("nothing",)),
        ({"api_error": "fork_start: 401 Unauthorized"}, ("api",)),
        ({"host": "10.0.0.5"}, ("private", "nothing")),
        ({"host": "100.64.0.5"}, ("private", "nothing")),
        ({"host": "fd00::1"}, ("private", "nothing")),
        ({"host": "127.0.0.1"}, ("loopback", "nothing")),
        ({"host": "127.0.0.1", "api_on_this_machine": True}, ("nothing",)),
        ({"api_on_this_machine": True}, ("remote", "nothing")),
        ({"listening": ("127.0.0.1:9000",)}, ("bound_to_loopback", "nothing")),
        ({"listening": ("127.0.0.1:9000",), "host": "127.0.0.1", "api_on_this_machine": True}, ("nothing",)),
        ({"hook_started": False}, ("no_webhook", "nothing")),
        ({"hook_started": False, "hooks": False}, ("nothing",)),
        ({"hook_stopped": True}, ("fork_stopped", "nothing")),
        ({"call_ended": True, "hook_stopped": True}, ("call_ended", "nothing")),
        ({"datagrams": 9, "rejected_by": {"source": 9}, "by_kind": {"strep": 9}}, ("rejected_source",)),
        ({"datagrams": 9, "rejected_by": {"call_leg": 9}}, ("rejected_call_leg",)),
        ({"datagrams": 9, "rejected_by": {"unannounced": 8, "probation": 1}},
         ("rejected_unannounced", "rejected_probation")),
        ({"datagrams": 9, "by_kind": {"sip": 4, "t38": 3, "rtcp": 2}}, ("kind_rtcp", "kind_sip", "kind_t38")),
        ({"datagrams": 9, "by_kind": {"dtls": 8, "other": 1}}, ("kind_dtls", "kind_other")),
        ({"datagrams": 9, "by_kind": {"rtp": 9}, "others": 1}, ("no_header", "others")),
        ({"datagrams": 9, "by_kind": {"strep": 9}, "mode": "rx_tx"}, ("header",)),
        ({"datagrams": 9, "by_kind": {"strep": 9}, "others": 2, "leg_known": False}, ("others",)),
        ({"datagrams": 9, "malformed": 9}, ("malformed",)),
        ({"datagrams": 0, "kernel_dropped": 7}, ("kernel",)),
        ({"inbound": 5, "outbound": 5}, ()),
        ({"inbound": 5}, ("one_direction",)),
        ({"outbound": 5, "mode": "rx_tx"}, ("one_direction",)),
        ({"inbound": 5, "outbound": 5, "encrypted": True, "kernel_dropped": 1}, ("srtp", "kernel")),
    ],
)  # fmt: skip
def test_what_is_found(facts: dict[str, Any], codes: tuple[str, ...]) -> None:
    found = of(**facts)
    assert found.codes == codes
    assert found.media == bool(facts.get("inbound") or facts.get("outbound"))
    for finding in found.findings:
        assert finding.text.endswith((".", "?"))
        assert str(finding) in str(found)
    assert json.loads(json.dumps(found.as_dict()))["media"] == found.media


def test_the_sentences_name_what_was_seen() -> None:
    assert "tcpdump -ni any udp port 9000" in str(of())
    assert "10.0.0.5" in str(of(host="10.0.0.5"))
    assert "only inbound" in str(of(inbound=3)).lower()
    assert "port of rx" in str(of(outbound=3, mode="rx_tx"))
    assert 'mode="rx_tx"' in str(of(datagrams=9, by_kind={"rtp": 9}))
    assert "decrypted" in str(of(inbound=5, outbound=5, encrypted=True))


async def doctor(*arguments: str, key: str, url: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "strep", "doctor", "--base-url", url, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "TELNYX_API_KEY": key},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.sockets
@pytest.mark.parametrize("mode", ["target", "rx_tx"])
async def test_doctor_forks_a_call_and_tells(mode: str) -> None:
    async with world(2, hooks=False) as w:
        call, other = w.api.calls
        keys = {"key": w.api.api_key, "url": w.api.base_url}
        common = ("--mode", mode, "--listen", "127.0.0.1:0", "--wait", "8")
        code, out, err = await doctor("--call", call.call_control_id, *common, **keys)
        assert (code, out) == (0, "")
        assert "forking to" in err
        assert "media comes: " in err
        code, out, err = await doctor("--call", "v3:none", "--json", *common, **keys)
        assert (code, json.loads(out)["media"]) == (5, False)
        assert "90015" in err
        if mode == "target":
            common = ("--listen", "127.0.0.1:0", "--wait", "0.4", "--advertise", "127.0.0.1:9", "--json")
            code, out, _ = await doctor("--call", other.call_control_id, *common, **keys)
            assert (code, json.loads(out)["findings"][0]["code"]) == (7, "nothing")
        assert w.commands("fork_start") == w.commands("fork_stop")
        w.check_left_nothing()
