"""Where things are: the repository, the tests, their data, real captures."""

import os
from pathlib import Path

__all__ = ["CAPTURES", "CONTRACT", "ROOT", "TESTS"]

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
CONTRACT = TESTS / "data" / "call-control-openapi.json"
CAPTURES = Path(os.environ.get("STREP_CAPTURES", ROOT.parent / "shared" / "captures"))
