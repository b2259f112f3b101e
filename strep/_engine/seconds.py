"""What happens once a second of arrival time, with all that came before: whatever was sent off when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.events import Event, Notice
from .._model.time import SECOND_NS
from .._model.types import StreamEvent, StreamInfo
from .containment import Containment
from .endings import Endings
from .playout import Playout
from .state import StreamState
from .streams.supply import SUPPLY_WINDOW_NS

__all__ = ["EachSecond"]

I64 = npt.NDArray[np.int64]

_STARVED: Final = "starved"


class EachSecond:
    """``pressed_rows`` gives the rows in which a key is down; ``overdue(now_ns, rows)`` the key presses of rows whose
    end was never told. Events are appended to ``events``."""

    def __init__(
        self,
        state: StreamState,
        containment: Containment,
        playout: Playout,
        endings: Endings,
        pressed_rows: Callable[[], I64],
        overdue: Callable[[int, I64], list[Event]],
        events: list[Event],
        *,
        idle_ns: int,
    ) -> None:
        self._state = state
        self._containment = containment
        self._playout = playout
        self._endings = endings
        self._pressed_rows = pressed_rows
        self._overdue = overdue
        self._events = events
        self._idle_ns = idle_ns

    def boundary(self, now_ns: int) -> None:
        """A second has ended, or several have, before ``now_ns``."""
        self._playout.hand_over_waiting()
        self._adopt_clocks()
        self._tell_overdue(now_ns // SECOND_NS * SECOND_NS)
        self._endings.end_idle(now_ns - self._idle_ns)
        self._throttle()
        self._tell_starved(now_ns // SECOND_NS * SECOND_NS)

    def _adopt_clocks(self) -> None:
        """Streams count with their senders' clocks as they were measured by now, whatever has left its ring yet."""
        state = self._state
        if state.sender_clocks.active:
            self._playout.send_ready(state.sender_clocks.watched(np.arange(len(state.registry.info))))
        state.adopt_clocks()

    def _tell_overdue(self, now_ns: int) -> None:
        pressed = self._pressed_rows()
        if pressed.size:
            self._playout.send_ready(pressed)

            def tell(rows: I64) -> None:
                self._events.extend(self._overdue(now_ns, rows))

            self._containment.run("presses", self._pressed_rows(), tell)

    def _tell_starved(self, now_ns: int) -> None:
        """Look at the audio of streams whose window is complete."""
        state = self._state
        rows = state.supply.due(np.flatnonzero(state.first_arrival_ns[: len(state.registry.info)]), now_ns)
        if not rows.size:
            return
        self._playout.send_ready(rows)
        rows = rows[state.first_arrival_ns[rows] != 0]

        def tell(rows: I64) -> None:
            ratio, begins = state.supply.close(rows, now_ns, state.suppresses(rows))
            for row, one in zip(rows[begins].tolist(), ratio[begins].tolist(), strict=True):
                info = state.registry.info[row]
                if info is not None:
                    self._events.extend(_starved(info, one, int(state.timeline.position[row]), now_ns))

        self._containment.run("supply", rows, tell)

    def _throttle(self) -> None:
        """Refuse streams that have sent far too much for long."""
        state = self._state
        infos = state.registry.info
        rows = slice(len(infos))
        for row in state.throttle.second(state.reception.received[rows], state.audio_s(rows)).tolist():
            info = infos[row]
            if info is not None:
                text = "sends more than 1,000 packets or 20 s of audio a second for long: refused until it is calm"
                info.notes.append(text)
                self._events.append(Notice(info, text))


def _starved(info: StreamInfo, ratio: float, position: int, now_ns: int) -> list[Event]:
    """Of each second only ``ratio`` seconds of audio were sent: told each time that it begins, noted the first time."""
    window_s = SUPPLY_WINDOW_NS / SECOND_NS
    begin = max(0, position - round(window_s * info.sample_rate))
    events: list[Event] = [
        StreamEvent(info, "starved", begin, now_ns - SUPPLY_WINDOW_NS, window_s, {"media_ratio": round(ratio, 4)})
    ]
    if not any(note.startswith(_STARVED) for note in info.notes):
        text = f"{_STARVED}: {ratio:.0%} of the audio was sent in 10 s, though no packets are missing for the rest"
        info.notes.append(text)
        events.append(Notice(info, text))
    return events
