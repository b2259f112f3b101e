"""Work that is put off is done in order, once, by whoever asks first."""

from __future__ import annotations

import threading

import pytest

from strep._inorder import InOrder


def test_who_asks_later_does_what_came_before_first() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number * number

    order = InOrder()
    jobs = [order.add(lambda n=n: work(n)) for n in range(5)]
    assert done == []
    assert jobs[2]() == 4
    assert done == [0, 1, 2]
    assert [job() for job in jobs] == [0, 1, 4, 9, 16]
    assert done == [0, 1, 2, 3, 4]


def test_what_nobody_asks_for_is_done_in_the_end() -> None:
    done: list[int] = []
    order = InOrder()
    for number in range(1000):
        order.add(lambda n=number: done.append(n))
    assert done == list(range(1000 - 256))


def test_many_threads_get_each_result_once_made() -> None:
    made: list[int] = []
    order = InOrder()
    jobs = [order.add(lambda n=n: made.append(n) or n) for n in range(200)]
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda step=step: found.append([job() for job in jobs[::step]])) for step in (1, -1, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == list(range(200))
    assert sorted(map(len, found)) == [67, 200, 200]


def test_an_error_is_told_to_who_wants_that_result_and_to_nobody_else() -> None:
    order = InOrder()
    first = order.add(lambda: 1)
    broken = order.add(lambda: 1 // 0)
    last = order.add(lambda: 3)
    assert last() == 3
    assert first() == 1
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            broken()
