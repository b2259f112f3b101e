"""Why no media comes of a fork that was started, or not all of it: sentences made of facts. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .._model.addresses import host_and_port

__all__ = ["Diagnosis", "Facts", "Finding", "diagnose"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a fork. The counts are of the whole receiver, since the fork began.

    host, port: as they were advertised (rx_tx: the port of rx). listening: the addresses of the receiver's ports that
    the fork goes to. api_error: what fork_start was answered with, if not with ok. hooks: whether any webhook of the
    call was heard of. others: streams of other legs that came. inbound, outbound: packets of this fork.
    """

    mode: str
    stream_type: str
    host: str
    port: int
    listening: tuple[str, ...] = ()
    api_on_this_machine: bool = False
    api_error: str | None = None
    waited_s: float = 0.0
    hooks: bool = False
    hook_started: bool = False
    hook_stopped: bool = False
    call_ended: bool = False
    leg_known: bool = True
    datagrams: int = 0
    by_kind: Mapping[str, int] = field(default_factory=dict)
    rejected_by: Mapping[str, int] = field(default_factory=dict)
    malformed: int = 0
    kernel_dropped: int = 0
    others: int = 0
    inbound: int = 0
    outbound: int = 0
    encrypted: bool = False


@dataclass(frozen=True)
class Finding:
    """Something that was found: ``code`` for programs, a sentence, and what to do ("" when there is nothing)."""

    code: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.advice}".rstrip()


@dataclass(frozen=True)
class Diagnosis:
    """``media``: whether any came. ``findings``: the likeliest reason first; empty when all is well."""

    media: bool
    findings: tuple[Finding, ...]
    facts: Facts = field(repr=False)

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the findings, in their order."""
        return tuple(finding.code for finding in self.findings)

    def __str__(self) -> str:
        facts = self.facts
        came = f"{facts.inbound} inbound and {facts.outbound} outbound packets in {facts.waited_s:.1f} s"
        head = f"media comes: {came}" if self.media else f"no media: nothing of this call in {facts.waited_s:.1f} s"
        return "\n".join([head, *(f"- {finding}" for finding in self.findings)])

    def as_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return {"media": self.media, "findings": [asdict(f) for f in self.findings], "facts": asdict(self.facts)}


_REJECTED: Final = {
    "source": (
        "{n} packets came from networks that allow does not name.",
        "Add the platform's media networks to allow.",
    ),
    "call_leg": (
        "{n} packets were of call legs that are not among call_legs.",
        "Add this call's call_leg_id, or leave call_legs out.",
    ),
    "unannounced": (
        "{n} packets were of call legs that nobody announced.",
        "Give the fork its call_leg_id, or feed it the call's webhooks.",
    ),
    "ended": (
        "{n} packets were of a call leg that had been ended.",
        "Announce the leg anew before it is forked again.",
    ),
    "probation": (
        "{n} packets never followed one another, as those of a stream do.",
        "They are damaged or made up, or nearly all are lost on the way.",
    ),
}
_KINDS: Final = {
    "rtcp": ("RTCP", "It is not forked: some other program sends to this port."),
    "sip": ("SIP", "The port is taken for a SIP endpoint: advertise a media port of its own."),
    "t38": ("T.38", "It is fax, which carries no audio."),
    "stun": ("STUN", "It comes from WebRTC clients, not from a fork."),
    "zrtp": ("ZRTP", "It comes from phones that agree on keys with each other, not from a fork."),
    "keepalive": ("keep-alives", "They hold a NAT's mapping open; media may follow, or the sender has none."),
    "dtls": ("DTLS", "A WebRTC client takes this port for its peer: advertise another one."),
    "other": ("of no kind that is known", "Some other program sends to this port."),
}


def diagnose(facts: Facts) -> Diagnosis:
    """What the facts come to."""
    media = facts.inbound + facts.outbound > 0
    return Diagnosis(media, tuple(_of_media(facts) if media else _of_silence(facts)), facts)


def _of_media(facts: Facts) -> Iterator[Finding]:
    if facts.encrypted:
        yield _srtp(facts)
    if not facts.inbound or not facts.outbound:
        there, missing = ("inbound", "outbound") if facts.inbound else ("outbound", "inbound")
        advice = "The other party may be silent, muted or on hold, or its audio does not reach the platform."
        if facts.mode == "rx_tx":
            name = "tx" if missing == "outbound" else "rx"
            advice += f" Or the port of {name} is not open to the outside: both ports of a pair must be."
        yield Finding("one_direction", f"Only {there} media comes, nothing {missing}.", advice)
    if facts.kernel_dropped:
        yield _kernel(facts)


def _of_silence(facts: Facts) -> Iterator[Finding]:
    if facts.api_error is not None:
        yield Finding("api", f"The API did not start the fork: {facts.api_error}.")
        return
    if facts.call_ended:
        yield Finding("call_ended", "The call has ended.", "Fork it while it lives.")
    elif facts.hook_stopped:
        yield Finding("fork_stopped", "The platform said call.fork.stopped.", "Someone else may have stopped the fork.")
    elif facts.hooks and not facts.hook_started:
        yield Finding(
            "no_webhook",
            "The API said ok, other webhooks of the call came, but not call.fork.started.",
            "The fork may not have begun: the call may be on hold or not answered yet.",
        )
    yield from _of_address(facts)
    yield from _of_datagrams(facts)
    if facts.kernel_dropped:
        yield _kernel(facts)
    if facts.encrypted:
        yield _srtp(facts)
    if not facts.datagrams and not facts.kernel_dropped:
        yield Finding(
            "nothing",
            f"Not a single datagram reached this machine's port {_ports(facts)}.",
            f"Look whether UDP to {_advertised(facts)} is let through (cloud security group, firewall, NAT): "
            f"tcpdump -ni any udp port {facts.port}",
        )


def _of_address(facts: Facts) -> Iterator[Finding]:
    address = ipaddress.ip_address(facts.host)
    if not facts.api_on_this_machine:
        if address.is_loopback:
            yield Finding(
                "loopback",
                f"{facts.host} was advertised: to the platform that is its own machine.",
                "Advertise this machine's public address.",
            )
        elif not address.is_global:
            yield Finding(
                "private",
                f"{facts.host} was advertised, a private address that the platform cannot reach.",
                "Advertise the public address, and forward its UDP ports to this machine.",
            )
    elif not address.is_loopback and not facts.datagrams:
        yield Finding(
            "remote",
            f"The API runs on this machine, and {facts.host} was advertised.",
            "For tests advertise 127.0.0.1.",
        )
    local = [text.rpartition(":")[0].strip("[]") for text in facts.listening]
    if local and not address.is_loopback and all(ipaddress.ip_address(host).is_loopback for host in local):
        yield Finding(
            "bound_to_loopback",
            f"The receiver listens on {', '.join(facts.listening)} only, which nothing from outside reaches.",
            "Listen on 0.0.0.0 or on the address that is advertised.",
        )


def _of_datagrams(facts: Facts) -> Iterator[Finding]:
    kinds = facts.by_kind
    for cause, (text, advice) in _REJECTED.items():
        if count := facts.rejected_by.get(cause, 0):
            yield Finding(f"rejected_{cause}", text.format(n=count), advice)
    if facts.mode == "target" and kinds.get("rtp", 0):
        yield Finding(
            "no_header",
            f"{kinds['rtp']} packets of plain RTP came, without the STREP header.",
            'If they are of this call, the account gets no header: fork with mode="rx_tx".',
        )
    if facts.mode == "rx_tx" and kinds.get("strep", 0) and not facts.others:
        yield Finding(
            "header",
            f"{kinds['strep']} packets with the STREP header came, where plain RTP was asked for.",
            'They may be of another fork, with mode="target".',
        )
    if facts.others:
        known = "of other calls" if facts.leg_known else "of calls, but this one's call_leg_id is not known"
        advice = "" if facts.leg_known else "Give the fork its call_leg_id, or feed it the call's webhooks."
        if facts.leg_known:
            advice = "The way is open; this call's fork has not begun, or its call_leg_id is another one."
        yield Finding("others", f"{facts.others} streams came {known}.", advice)
    for kind, (name, advice) in _KINDS.items():
        if count := kinds.get(kind, 0):
            yield Finding(f"kind_{kind}", f"{count} datagrams came that are {name}, not media.", advice)
    if facts.malformed:
        yield Finding(
            "malformed", f"{facts.malformed} datagrams came that are damaged.", "strep inspect on a recording says how."
        )


def _srtp(facts: Facts) -> Finding:
    how = 'mode="rx_tx", stream_type="decrypted"' if facts.stream_type != "decrypted" else "another stream_type"
    return Finding("srtp", "The payloads look encrypted (SRTP): they are not decoded.", f"Fork with {how}.")


def _kernel(facts: Facts) -> Finding:
    return Finding(
        "kernel",
        f"The kernel dropped {facts.kernel_dropped} datagrams: the receive buffer was full.",
        "Raise it: sysctl -w net.core.rmem_max=67108864",
    )


def _advertised(facts: Facts) -> str:
    return host_and_port(facts.host, facts.port)


def _ports(facts: Facts) -> str:
    return ", ".join(text.rpartition(":")[2] for text in facts.listening) or str(facts.port)
