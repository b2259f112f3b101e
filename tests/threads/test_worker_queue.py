"""A thread with a bounded queue before it: what it takes, in which order, and how it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from strep._threads.incidents import Incident, Incidents
from strep._threads.worker_queue import WorkerQueue

PATIENCE_S = 10.0  # with a slow machine


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Gate:
    """Work that stands still until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun: list[Any] = []
        self.done: list[Any] = []

    def __call__(self, item: Any) -> None:
        self.begun.append(item)
        assert self.open.wait(PATIENCE_S)
        self.done.append(item)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_items_are_worked_on_in_order_by_one_thread() -> None:
    found: list[tuple[int, str]] = []
    queue: WorkerQueue[int] = WorkerQueue(
        lambda item: found.append((item, threading.current_thread().name)), name="strep-test"
    )
    assert all(queue.put(n) for n in range(1000))
    assert queue.close(PATIENCE_S)
    assert found == [(n, "strep-test") for n in range(1000)]
    assert (len(queue), queue.size, queue.idle, queue.ended, queue.alive) == (0, 0, True, True, False)


@pytest.mark.parametrize("size", [1, 1000], ids=["items", "bytes"])
def test_what_has_no_room_is_refused(gate: Gate, size: int) -> None:
    queue: WorkerQueue[int] = WorkerQueue(gate, name="strep-test", limit=5 * size)
    assert queue.put(0, size)
    wait_until(lambda: gate.begun)
    taken = [queue.put(n, size) for n in range(1, 10)]
    assert taken == [True] * 4 + [False] * 5  # the one that is being worked on counts
    assert (len(queue), queue.size) == (4, 5 * size)
    assert queue.put(100, 0)  # of no size: always
    gate.open.set()
    assert queue.close(PATIENCE_S)
    assert gate.done == [0, 1, 2, 3, 4, 100]


def test_what_is_reserved_elsewhere_takes_room(gate: Gate) -> None:
    queue: WorkerQueue[int] = WorkerQueue(gate, name="strep-test", limit=10)
    queue.put(0, 4)
    wait_until(lambda: gate.begun)
    assert queue.put(1, 4)
    assert not queue.put(2, 1, reserved=2)
    assert queue.put(2, 1, reserved=1)
    gate.open.set()
    assert queue.close(PATIENCE_S)


def test_an_item_before_which_none_waits_is_taken_whatever_its_size(gate: Gate) -> None:
    queue: WorkerQueue[int] = WorkerQueue(gate, name="strep-test", limit=10)
    assert queue.put(0, 1_000_000)
    wait_until(lambda: gate.begun)
    assert queue.put(1, 1_000_000)
    assert not queue.put(2, 1)
    gate.open.set()
    assert queue.close(PATIENCE_S)
    assert gate.done == [0, 1]


def test_who_must_not_lose_anything_waits_for_room(gate: Gate) -> None:
    queue: WorkerQueue[int] = WorkerQueue(gate, name="strep-test", limit=3)
    taken: list[bool] = []
    feeder = threading.Thread(target=lambda: taken.extend(queue.put(n, 1, wait=True) for n in range(20)))
    feeder.start()
    wait_until(lambda: len(taken) == 3)
    time.sleep(0.02)
    assert (len(taken), queue.size) == (3, 3)
    gate.open.set()
    feeder.join(PATIENCE_S)
    assert queue.close(PATIENCE_S)
    assert taken == [True] * 20
    assert gate.done == list(range(20))


def test_waiting_for_room_ends_when_half_of_it_is_free(gate: Gate) -> None:
    queue: WorkerQueue[int] = WorkerQueue(gate, name="strep-test", limit=4)
    queue.wait_for_room()
    for n in range(4):
        queue.put(n, 1)
    sizes: list[int] = []
    waiting = threading.Thread(target=lambda: (queue.wait_for_room(), sizes.append(queue.size)))
    waiting.start()
    time.sleep(0.02)
    assert not sizes
    gate.open.set()
    waiting.join(PATIENCE_S)
    assert sizes
    assert sizes[0] <= 2
    assert queue.close(PATIENCE_S)


def test_what_raises_goes_to_incidents_and_the_thread_goes_on() -> None:
    incidents = Incidents(lambda: 0)
    told: list[Incident] = []
    incidents.listen(told.append)
    done: list[int] = []

    def work(item: int) -> None:
        if item % 2:
            raise ValueError(item)
        done.append(item)

    queue: WorkerQueue[int] = WorkerQueue(
        work, name="strep-test", limit=10_000, on_fault=lambda error: incidents.fault("test", error)
    )
    for n in range(10):
        assert queue.put(n, 1)
    assert queue.close(PATIENCE_S)
    assert done == [0, 2, 4, 6, 8]
    assert incidents.faults() == {"test": 5}
    assert [i.kind for i in told] == ["fault"]
    assert queue.size == 0


def test_what_raises_is_logged_where_nobody_wants_to_know(caplog: pytest.LogCaptureFixture) -> None:
    queue: WorkerQueue[int] = WorkerQueue(lambda item: 1 // item, name="strep-test")
    with caplog.at_level(logging.ERROR, "strep"):
        queue.put(0)
        assert queue.close(PATIENCE_S)
    assert "strep-test" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_thread_that_hangs_is_left_behind(gate: Gate) -> None:
    finished: list[list[int]] = []
    queue: WorkerQueue[int] = WorkerQueue(gate, name="strep-test", finish=finished.append)
    for n in range(5):
        queue.put(n, 1)
    wait_until(lambda: gate.begun)
    began = time.monotonic()
    assert not queue.close(0.05)
    assert time.monotonic() - began < PATIENCE_S / 2
    assert queue.alive
    assert queue.abandon() == [1, 2, 3, 4]
    assert (len(queue), queue.size, queue.idle, queue.ended) == (0, 1, False, True)
    assert not queue.put(9)
    queue.put(9, 1, wait=True)  # nobody waits for it
    gate.open.set()
    assert queue.close(PATIENCE_S)
    assert gate.done == [0]
    assert finished == [[]]


def test_what_there_is_no_time_for_is_left_to_finish(gate: Gate) -> None:
    finished: list[list[int]] = []
    queue: WorkerQueue[int] = WorkerQueue(gate, name="strep-test", finish=finished.append)
    for n in range(5):
        queue.put(n)
    wait_until(lambda: gate.begun)
    threading.Timer(0.1, gate.open.set).start()
    assert queue.close(PATIENCE_S, work_s=0.01)
    assert gate.done == [0]
    assert finished == [[1, 2, 3, 4]]


def test_work_may_end_its_thread() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        if item == 2:
            queue.abandon()

    begin = threading.Event()
    queue: WorkerQueue[int] = WorkerQueue(lambda item: (begin.wait(PATIENCE_S), work(item)), name="strep-test", limit=5)
    for n in range(5):
        queue.put(n, 1)
    waiting = threading.Thread(target=lambda: queue.put(5, 1, wait=True))
    waiting.start()
    begin.set()
    waiting.join(PATIENCE_S)
    wait_until(lambda: not queue.alive)
    assert done == [0, 1, 2]
    assert (queue.size, queue.put(9)) == (0, False)


def test_there_is_something_to_do_between_items() -> None:
    turns: list[bool] = []
    answers: list[float | None] = [0.0, 0.0, 0.01, None]

    def between(had_item: bool) -> float | None:
        turns.append(had_item)
        return answers.pop(0) if answers else None

    queue: WorkerQueue[int] = WorkerQueue(lambda item: None, name="strep-test", between=between)
    time.sleep(0.02)
    assert not turns  # nothing has come so far
    queue.put(1)
    wait_until(lambda: len(turns) == 4)
    time.sleep(0.05)
    assert turns == [True, False, False, False]  # at once, at once, after 10 ms, then no more
    queue.put(2)
    wait_until(lambda: len(turns) == 5)
    assert turns[-1]
    assert queue.close(PATIENCE_S)
    assert len(turns) == 5  # not at the end


def test_many_threads_may_put() -> None:
    done: list[tuple[int, int]] = []
    queue: WorkerQueue[tuple[int, int]] = WorkerQueue(done.append, name="strep-test", limit=7)
    threads = [
        threading.Thread(target=lambda who=who: [queue.put((who, n), 1, wait=True) for n in range(200)])
        for who in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert queue.close(PATIENCE_S)
    for who in range(4):
        assert [n for w, n in done if w == who] == list(range(200))
