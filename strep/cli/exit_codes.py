"""How commands end: the exit codes, which scripts rely on."""

from __future__ import annotations

from typing import Final

__all__ = ["EXIT_API", "EXIT_BIND", "EXIT_DOCTOR", "EXIT_FILE", "EXIT_SINK", "EXIT_USAGE", "EXIT_WRONG"]

EXIT_USAGE: Final = 2  # wrong usage
EXIT_FILE: Final = 3  # an input file cannot be used
EXIT_BIND: Final = 4  # a port cannot be bound
EXIT_API: Final = 5  # the API refused or could not be reached
EXIT_SINK: Final = 6  # a sink failed: audio is missing from the files
EXIT_DOCTOR: Final = 7  # doctor found something that fails
EXIT_WRONG: Final = 8  # bench found an answer that is wrong
