"""The fewest datagrams that still do it: delta debugging (Zeller, Hildebrandt 2002), by actor, then one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .machine import Setup, Violation, survives
from .wire import SILENT, Datagram, datagrams_of

__all__ = ["ddmin", "literal", "shrunk"]

T = TypeVar("T")


def ddmin(items: list[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """A part of ``items``, in order, that fails and of which no single item can be left out."""
    parts = 2
    while len(items) > 1:
        size = -(-len(items) // parts)
        for begin in range(0, len(items), size):
            rest = items[:begin] + items[begin + size :]
            if rest and fails(rest):
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(len(items), 2 * parts)
    return items


def shrunk(rows: npt.NDArray[np.void], setup: Setup, found: Violation) -> npt.NDArray[np.void]:
    """Rows of a storm that bring the same violation about."""

    alone = found.kind != "real"  # then the real calls need not be there

    def fails_with(part: npt.NDArray[np.void]) -> bool:
        try:
            survives(part, setup, alone=alone)
        except Violation as violation:
            return violation.what == found.what
        return False

    if alone and not fails_with(rows):
        alone = False
    actors = np.unique(rows["actor"]).tolist()
    actors = ddmin(actors, lambda some: fails_with(rows[np.isin(rows["actor"], some)]))
    rows = rows[np.isin(rows["actor"], actors)]
    chosen = ddmin(list(range(len(rows))), lambda some: fails_with(rows[some]))
    rows = rows[chosen].copy()
    plain = rows.copy()
    plain["pool"] = SILENT
    return plain if fails_with(plain) else rows


def literal(rows: npt.NDArray[np.void]) -> str:
    """As a Python literal for a regression test."""
    lines = [_line(one) for one in datagrams_of(rows)]
    return "[\n" + "".join(f"    {line},\n" for line in lines) + "]"


def _line(one: Datagram) -> str:
    usual = Datagram(0, b"", 0)
    data = one.data
    same = len(data) - len(data.rstrip(data[-1:]))  # bytes at the end that are alike
    head, tail = (data[: len(data) - same], f" + bytes([{data[-1]}]) * {same}") if same > 8 else (data, "")
    shown = f'bytes.fromhex("{head.hex()}"){tail}'
    more = "".join(
        f", {name}={getattr(one, name)}"
        for name in ("source", "port", "local")
        if getattr(one, name) != getattr(usual, name)
    )
    return f"Datagram({one.ns}, {shown}, {one.length}{more})"
