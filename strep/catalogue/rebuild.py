"""The catalogue made anew of the files that tell of legs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .rows import LegRows, leg_rows
from .store import Catalogue

__all__ = ["Rebuilt", "rebuild"]

log = logging.getLogger("strep.catalogue")

_AT_ONCE: Final = 200  # legs in a transaction
_LARGEST: Final = 64 << 20  # bytes of a file


@dataclass(slots=True)
class Rebuilt:
    """How many legs were taken, and how many files were none."""

    legs: int = 0
    failed: int = 0


def rebuild(catalogue: Catalogue, directory: Path, told: Callable[[Rebuilt], object] = lambda so_far: None) -> Rebuilt:
    """Take every ``leg.json`` below ``directory``; ``told`` hears of progress. Tags stay, and where files are now.
    Raises CatalogueError."""
    done = Rebuilt()
    waiting: list[LegRows] = []
    for path in _files(directory):
        try:
            if path.stat().st_size > _LARGEST:
                raise ValueError("it is too large")
            document = json.loads(path.read_bytes())
            if not isinstance(document, dict):
                raise TypeError("it is no object")
            waiting.append(leg_rows(document, path.relative_to(directory).as_posix(), catalogue.machine))
        except (OSError, ValueError, TypeError) as error:
            done.failed += 1
            log.warning("%s is left out: %s", path, error)
            continue
        done.legs += 1
        if len(waiting) == _AT_ONCE:
            catalogue.put_all(waiting)
            waiting.clear()
            told(done)
    catalogue.put_all(waiting)
    told(done)
    return done


def _files(directory: Path) -> Iterator[Path]:
    """In the order of their legs, and of a leg's files as they were written."""
    for folder, folders, names in os.walk(directory):
        folders.sort()
        ours = [name for name in names if name == "leg.json" or (name.startswith("leg-") and name.endswith(".json"))]
        yield from (Path(folder) / name for name in sorted(ours, key=lambda name: (len(name), name)))
