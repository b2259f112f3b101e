"""An engine that nobody holds is freed at once, with its arrays."""

from __future__ import annotations

import gc
import weakref

from strep._engine.engine import Engine


def test_an_engine_is_in_no_cycle() -> None:
    gc.disable()
    try:
        engine = Engine()
        gone = weakref.ref(engine)
        del engine
        assert gone() is None
    finally:
        gc.enable()
