"""Raise an alarm on calls by what is said in them: python fraud_alarm.py [udp:ADDR:PORT] [SECONDS]

Over many calls at once: utterances of all streams go to a few processes that recognize them; a slow recognizer makes
alarms late, and costs no packet. The recognizer is `pip install pocketsphinx`: its model comes inside, and it knows the
sentences below, nothing else. Any other is a function from 16-bit bytes at 16 kHz to text.
"""

import asyncio
import os
import signal
import sys
import uuid
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import strep

SUSPICIOUS = {
    "read me the gift card numbers": 3,
    "tell me your password": 3,
    "what is your account number": 2,
    "do not tell anyone about this call": 2,
}
HARMLESS = ["good morning", "thank you very much", "i would like to book a table", "see you on monday"]
ALARM = 4  # points of a call, whoever said it

POINTS: Counter[uuid.UUID | None] = Counter()


@cache
def decoder() -> Any:
    from pocketsphinx import Decoder

    made = Decoder(samprate=16_000, lm=None, loglevel="FATAL")
    sentences = " | ".join([*SUSPICIOUS, *HARMLESS])
    made.add_jsgf_string("sentences", f"#JSGF V1.0; grammar g; public <s> = {sentences};")
    made.activate_search("sentences")
    return made


def recognize(pcm: bytes) -> str:
    decoder().start_utt()
    decoder().process_raw(pcm, full_utt=True)
    decoder().end_utt()
    return decoder().hyp().hypstr if decoder().hyp() else ""


def judge(stream: strep.Stream, text: str) -> None:
    call, before = stream.info.call_leg_id, POINTS[stream.info.call_leg_id]
    POINTS[call] += SUSPICIOUS.get(text, 0)
    print(f"{stream.name} {stream.direction.label}: {text or 'nothing known'}", flush=True)
    if before < ALARM <= POINTS[call]:
        print(f"ALARM {stream.name}: {POINTS[call]} points", flush=True)


async def listen_to(stream: strep.Stream, pool: ProcessPoolExecutor) -> None:
    async for utterance in stream.utterances(rate=16_000, max_s=10):
        judge(stream, await asyncio.get_running_loop().run_in_executor(pool, recognize, utterance.pcm))


async def main(listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    quietly = signal.SIGINT, signal.SIG_IGN  # a Ctrl-C is for this process: it ends them
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=signal.signal, initargs=quietly) as pool:
        async with asyncio.TaskGroup() as tasks, strep.Receiver(listen) as receiver:
            print("listening on", receiver.sockets[0].address, flush=True)
            asyncio.get_running_loop().call_later(float(seconds), lambda: tasks.create_task(receiver.stop()))
            async for stream in receiver:
                tasks.create_task(listen_to(stream, pool))


if __name__ == "__main__":  # processes of the pool import this file
    try:
        import pocketsphinx  # noqa: F401
    except ImportError:
        sys.exit("this example recognizes speech with pocketsphinx: pip install pocketsphinx")
    strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
