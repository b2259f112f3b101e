"""Answer what a caller says: python voice_agent.py CALL_CONTROL_ID IP[:PORT] [udp:ADDR:PORT] [SECONDS]

A fork hears, commands speak: what is said is recognized, `speak` answers, and stops when the caller begins (barge-in).
IP[:PORT] is where the platform reaches this machine. The key is taken from TELNYX_API_KEY; for `strep simulate --api`,
TELNYX_BASE_URL says where it is. The recognizer is `pip install pocketsphinx`: its model comes inside, and it knows the
questions below, nothing else. Any other is a function from 16-bit bytes at 16 kHz to text.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable

import strep
from strep.control import APIError, CallControl

ANSWERS = {
    "opening hours": "We are open from nine in the morning to five in the afternoon, from Monday to Friday.",
    "account balance": "Your balance is one hundred and twenty dollars, and the last payment came on Monday.",
    "operator": "One moment please, I will connect you with somebody who can help you with all your questions.",
    "goodbye": "Thank you for your call. Goodbye.",
}


def make_recognizer() -> Callable[[bytes], str]:
    try:
        from pocketsphinx import Decoder
    except ImportError:
        sys.exit("this example recognizes speech with pocketsphinx: pip install pocketsphinx")
    decoder = Decoder(samprate=16_000, lm=None, loglevel="FATAL")
    decoder.add_jsgf_string("questions", f"#JSGF V1.0; grammar g; public <q> = {' | '.join(ANSWERS)};")
    decoder.activate_search("questions")

    def recognize(pcm: bytes) -> str:
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        return decoder.hyp().hypstr if decoder.hyp() else ""

    return recognize


async def send(command: Awaitable[object]) -> None:
    try:
        await command
    except APIError as error:  # the call may be over
        print(error, flush=True)


async def answer(control: CallControl, call: str, recognize: Callable[[bytes], str], pcm: bytes) -> None:
    text = await asyncio.to_thread(recognize, pcm)
    print("heard:", text or "nothing known", flush=True)
    if text:
        await send(control.speak(call, ANSWERS[text], voice="female", language="en-US", stop="all"))


async def converse(control: CallControl, call: str, recognize: Callable[[bytes], str], caller: strep.Stream) -> None:
    answering: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as tasks:
        async for heard in caller.speech(rate=16_000):
            if isinstance(heard, strep.SpeechStarted) and answering:
                answering.cancel()
                answering = None
                await send(control.playback_stop(call))  # what has ended by itself is not stopped: that is fine
            elif isinstance(heard, strep.Utterance):
                answering = tasks.create_task(answer(control, call, recognize, heard.pcm))


async def main(call: str, advertise: str, listen: str = "udp:0.0.0.0:9000", seconds: str = "3600") -> None:
    recognize = make_recognizer()
    async with CallControl() as control, strep.Receiver(listen) as receiver, asyncio.TaskGroup() as tasks:
        fork = control.fork(call, receiver, advertise=advertise)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(seconds)), fork:
                async for stream in fork:  # until the call ends
                    if stream.direction is strep.Direction.INBOUND:
                        print("the call is here", flush=True)
                        tasks.create_task(converse(control, call, recognize, stream))


strep.run_until_stopped(main(*sys.argv[1:]))  # or Ctrl-C, or SIGTERM
