"""Fork sessions: a call's fork and the streams that come of it, from fork_start to fork_stop.

::

    async with CallControl() as control, strep.Receiver("udp:0.0.0.0:9000") as receiver:
        async with control.fork(call_control_id, receiver, advertise="203.0.113.7") as fork:
            async for stream in fork:  # inbound and outbound
                asyncio.create_task(consume(stream))
"""

from ._fork import Fork
from ._fork_event import ForkEvent
from ._fork_state import ForkLimits, ForkPhase
from ._forks import ForkRegistry

__all__ = ["Fork", "ForkEvent", "ForkLimits", "ForkPhase", "ForkRegistry"]
