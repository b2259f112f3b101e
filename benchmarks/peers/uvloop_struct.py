"""The plain datagram protocol of asyncio_struct, on uvloop."""

from __future__ import annotations

import uvloop

from ._datagrams import serve
from .asyncio_struct import Receiver

if __name__ == "__main__":
    serve(Receiver(), uvloop.new_event_loop)
