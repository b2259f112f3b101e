"""A bad network in user space, where the kernel has no netem: ``relay.py FROM_IP:PORT TO_IP:PORT SEED``.

Loses 5 % of what it passes on, doubles 2 %, and delays each by 5 to 35 ms, so that some overtake each other. Ends with
its input. Prints a line when it listens."""

from __future__ import annotations

import heapq
import random
import select
import socket
import sys
import time


def main() -> None:
    here, there = ((host, int(port)) for host, port in (text.split(":") for text in sys.argv[1:3]))
    rng = random.Random(int(sys.argv[3]))
    inward = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outward = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inward.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    inward.bind(here)
    outward.connect(there)
    print("relaying", flush=True)
    waiting: list[tuple[float, int, bytes]] = []
    number, reading = 0, True
    while reading or waiting:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            outward.send(heapq.heappop(waiting)[2])
        pause = min(0.05, waiting[0][0] - now if waiting else 0.05)
        ready, _, _ = select.select([inward, sys.stdin] if reading else [], [], [], pause)
        if sys.stdin in ready:
            reading = False
        if inward in ready:
            data = inward.recv(2048)
            copies = 0 if rng.random() < 0.05 else 2 if rng.random() < 0.02 else 1
            for _ in range(copies):
                number += 1
                heapq.heappush(waiting, (time.monotonic() + rng.uniform(0.005, 0.035), number, data))


if __name__ == "__main__":
    main()
