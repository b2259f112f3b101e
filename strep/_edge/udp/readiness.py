"""Which of many sockets have something: one question to the kernel."""

from __future__ import annotations

import select
import selectors

__all__ = ["Readiness", "readiness"]


class Readiness:
    """By file descriptor; kqueue, or what else Python's selectors have with a file descriptor of its own."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """A file descriptor that is readable when any of them is."""
        return int(self._selector.fileno())

    def add(self, number: int) -> None:
        """Ask for this one too."""
        self._selector.register(number, selectors.EVENT_READ)

    def remove(self, number: int) -> None:
        """Ask for this one no more. Raises OSError, KeyError, if it is closed or unknown."""
        self._selector.unregister(number)

    def ready(self, most: int) -> list[int]:
        """Those that have something."""
        return [key.fd for key, _ in self._selector.select(0)]

    def close(self) -> None:
        self._selector.close()


class Epoll(Readiness):
    """epoll itself: no objects for each descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, number: int) -> None:
        try:
            self._epoll.register(number, select.EPOLLIN)
        except FileExistsError:  # it was closed under our feet, and opened again: the kernel may know it still
            self._epoll.modify(number, select.EPOLLIN)

    def remove(self, number: int) -> None:
        self._epoll.unregister(number)

    def ready(self, most: int) -> list[int]:
        return [number for number, _ in self._epoll.poll(0, most)]

    def close(self) -> None:
        self._epoll.close()


def readiness() -> Readiness | None:
    """The best there is; None where nothing has a file descriptor that a loop can watch: Windows."""
    if hasattr(select, "epoll"):
        return Epoll()
    return Readiness() if hasattr(selectors.DefaultSelector, "fileno") else None
