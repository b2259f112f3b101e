"""Several options as one decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["decorated"]

_F = TypeVar("_F", bound=Callable[..., Any])


def decorated(options: Callable[[], list[Any]]) -> Callable[[_F], _F]:
    """``@decorated`` over a function that lists options: a decorator that adds them in that order."""

    def decorate(function: _F) -> _F:
        for option in reversed(options()):
            function = option(function)
        return function

    decorate.__doc__ = options.__doc__
    return decorate
