"""Whether the API takes the key: asked once at the start, not found out by the first call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..control import CallControl

__all__ = ["check_key"]

log = logging.getLogger("strep.service")


async def check_key(control: CallControl, on_refused: Callable[[str], object]) -> None:
    """Ask the API for one event. ``on_refused`` hears, in words, that the key is wrong. An API that does not answer, or
    has trouble, is warned of only: calls are tried all the same."""
    from ..control import APIError, AuthenticationError

    try:
        await control.call_events(page_size=1)
    except asyncio.CancelledError:
        raise
    except AuthenticationError as error:
        on_refused(
            f"{control.base_url} refuses the API key ({error.message}): no call can be forked with it; "
            "set TELNYX_API_KEY to a key of the account"
        )
    except APIError as error:
        log.warning("%s could not be asked whether it takes the API key: %s", control.base_url, error.message)
