"""Optional packages: what an extra of this one consists of, as its installed metadata tell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from typing import Final

__all__ = ["PACKAGE", "install"]

PACKAGE: Final = "strep-rtp"
_REQUIREMENT: Final = re.compile(r"""\s*([^;]+?)\s*;.*\bextra\s*==\s*["']([\w-]+)["']""")


def install(*extras: str) -> str:
    """The command that installs what these extras need, whoever has this package from wherever: from an index, a wheel
    or a clone."""
    wanted = list(dict.fromkeys(_packages(_requirements(), extras)))
    if not wanted:  # it runs from its source and is not installed
        return f"pip install '.[{','.join(extras)}]' in the folder of strep's pyproject.toml"
    return f"pip install {' '.join(map(_quoted, wanted))}"


@cache
def _requirements() -> tuple[str, ...]:
    try:
        return tuple(metadata.requires(PACKAGE) or ())
    except metadata.PackageNotFoundError:
        return ()


def _packages(requirements: Iterable[str], extras: Iterable[str]) -> list[str]:
    found = [match for each in requirements if (match := _REQUIREMENT.fullmatch(each))]
    return [match[1].replace(" ", "") for extra in extras for match in found if match[2] == extra]


def _quoted(requirement: str) -> str:
    """For shells: < and > are none of their signs."""
    return requirement if re.fullmatch(r"[\w.=-]+", requirement) else f"'{requirement}'"
