"""For the documentation site: docstrings, which are plain text, as Markdown.

Three things differ. A paragraph that ends with ``::`` is followed by code. Names in double backticks at the beginning
of a line, with their meaning beside them, are a list. And :meth:`x` is `x`.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Docstrings", "markdown"]

_ROLE = re.compile(r":(?:meth|class|func|mod|attr|data):`~?([^`]+)`")
_TERM = re.compile(r"^(``[^`]+``(?:, ``[^`]+``)*)\s{2,}(\S.*)$")
_CODE_FOLLOWS = re.compile(r"\s*::$")


def markdown(text: str) -> str:
    """A docstring as Markdown."""
    lines: list[str] = []
    in_list = False
    for line in _ROLE.sub(r"`\1`", text).splitlines():
        term = _TERM.match(line)
        if term:
            if not in_list:
                lines.append("")
            lines.append(f"- {term[1]}: {term[2].strip()}")
            in_list = True
        elif in_list and line.startswith(" ") and line.strip():
            lines.append("    " + line.strip())
        else:
            in_list = in_list and not line.strip()
            lines.append(_CODE_FOLLOWS.sub(lambda m: ":" if m.string.strip() != "::" else "", line))
    return "\n".join(lines)


class Docstrings(griffe.Extension):
    """Rewrites each docstring once it is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
