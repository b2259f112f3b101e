"""Work that is put off is done in order, once, by whoever asks first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from strep._delivery.ordered_work import OrderedWork, WorkOmitted


def test_who_asks_later_does_what_came_before_first() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number * number

    order = OrderedWork()
    jobs = [order.add(lambda n=n: work(n)) for n in range(5)]
    assert done == []
    assert jobs[2]() == 4
    assert done == [0, 1, 2]
    assert [job() for job in jobs] == [0, 1, 4, 9, 16]
    assert done == [0, 1, 2, 3, 4]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_nobody_asks_for_is_done_in_the_end_by_another_thread() -> None:
    done: list[int] = []
    threads: set[int] = set()
    order = OrderedWork()

    def work(number: int) -> None:
        done.append(number)
        threads.add(threading.get_ident())

    for number in range(1000):
        order.add(lambda n=number: work(n))
    wait_until(lambda: len(done) == 1000 - 256 and not order._helped)
    assert done == list(range(1000 - 256))
    assert threading.get_ident() not in threads
    for number in range(1000, 1010):  # it comes again when it is needed again
        order.add(lambda n=number: work(n))
    wait_until(lambda: len(done) == 1010 - 256)
    assert done == list(range(1010 - 256))


def test_who_adds_never_waits_for_who_works() -> None:
    order = OrderedWork()
    begun, go_on = threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        go_on.wait(10)

    first = order.add(long)
    asking = threading.Thread(target=first)
    asking.start()
    begun.wait(10)
    jobs = [order.add(lambda n=n: n) for n in range(600)]  # while the first is at it, and more than may wait
    go_on.set()
    asking.join()
    assert [job() for job in jobs] == list(range(600))


class Heavy:
    """Work that holds memory."""

    def __init__(self, number: int, nbytes: int, done: list[int]) -> None:
        self.number, self.nbytes, self.done = number, nbytes, done

    def __call__(self) -> int:
        self.done.append(self.number)
        return self.number


def test_the_oldest_heavy_work_is_left_undone_when_too_much_waits_and_all_other_is_done() -> None:
    done: list[int] = []
    order = OrderedWork(most_bytes=1000)
    heavy = []
    for number in range(30):
        heavy.append(order.add(Heavy(number, 100, done)))
        order.add(lambda n=number: done.append(100 + n))  # as a decoder that is forgotten
    assert order.omitted == 20
    assert heavy[29]() == 29
    assert done == [*range(100, 120), *(n for k in range(20, 29) for n in (k, 100 + k)), 29]
    for job in heavy[:20]:
        with pytest.raises(WorkOmitted):
            job()
    assert [job() for job in heavy[20:]] == list(range(20, 30))
    more = [order.add(Heavy(n, 100, done)) for n in range(30, 40)]  # what was done takes no room any more
    assert [job() for job in more] == list(range(30, 40))
    assert order.omitted == 20
    huge = order.add(Heavy(40, 5000, done))
    assert huge() == 40


def test_many_threads_get_each_result_once_made() -> None:
    made: list[int] = []
    order = OrderedWork()
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
    order = OrderedWork()
    first = order.add(lambda: 1)
    broken = order.add(lambda: 1 // 0)
    last = order.add(lambda: 3)
    assert last() == 3
    assert first() == 1
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            broken()
