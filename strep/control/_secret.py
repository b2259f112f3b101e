"""The API key, out of sight. Pure."""

from __future__ import annotations

from typing import Final, NoReturn

from .._model.exceptions import ConfigurationError

__all__ = ["Secret"]

_SHORTEST_REDACTED: Final = 8  # a shorter "key" would blot out innocent text


class Secret:
    """A string that no repr, log line, traceback with locals, pickle or copy shows. ``reveal()`` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string. Use it in an expression; never give it a name."""
        return self._value

    def redact(self, text: str) -> str:
        """``text`` without the secret: an answer may echo what it was sent."""
        return text.replace(self._value, "[redacted]") if len(self._value) >= _SHORTEST_REDACTED else text

    def check(self) -> None:
        """Raises ConfigurationError, without the string, for what cannot be a key."""
        if not isinstance(self._value, str) or not self._value:
            raise ConfigurationError("the API key is no text, or empty: give api_key= or set TELNYX_API_KEY")
        if not all("!" <= letter <= "~" for letter in self._value):
            raise ConfigurationError(
                "the API key has a space, a line break or a letter beyond ASCII in it: was it copied whole?"
            )

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied: give it again where it is needed")
