"""Programs that run until they are done or told to stop: as processes, with real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from places import ROOT

import strep
from strep import run_until_stopped

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals as of POSIX")

PROGRAM = """
import asyncio, contextlib, signal, sys
import strep

async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep({ending_s})
        print("closed", flush=True)

print("returned", strep.run_until_stopped(main()), flush=True)
"""


def start(code: str, **options: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process  # type: ignore[no-any-return]


@posix
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_ends_it_well(number: str) -> None:
    process = start(PROGRAM.format(ending_s=0.01))
    process.send_signal(signal.Signals[number])
    out, err = process.communicate(timeout=100)
    assert (out, err, process.returncode) == ("closed\nreturned None\n", "", 0)


@posix
def test_ctrl_c_is_taken_where_a_shell_began_it_with_an_ampersand() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    process = start(PROGRAM.format(ending_s=0.01), preexec_fn=ignore)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=100)[0] == "closed\nreturned None\n"


@posix
def test_nohup_stays_what_it_is() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start(PROGRAM.format(ending_s=0.01), preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=100)[0] == "closed\nreturned None\n"


@posix
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", -signal.SIGTERM), ("SIGINT", -signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(number: str, code: int) -> None:
    process = start(PROGRAM.format(ending_s=60).replace("finally:", 'finally:\n        print("ending", flush=True)'))
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.Signals[number])
    out, err = process.communicate(timeout=100)
    assert "returned" not in out
    assert process.returncode == code
    assert err == "" or err.endswith("KeyboardInterrupt\n")


@posix
def test_what_it_returns_or_raises_while_it_ends_is_passed_on() -> None:
    code = textwrap.dedent("""
        import asyncio, contextlib
        import strep
        async def main():
            with contextlib.suppress(asyncio.CancelledError):
                print("ready", flush=True)
                await asyncio.sleep(60)
            {last}
        print("returned", strep.run_until_stopped(main()), flush=True)
    """)
    for last, out, code_of_exit in (("return 7", "returned 7\n", 0), ("raise OSError('disk')", "", 1)):
        process = start(code.format(last=last))
        process.send_signal(signal.SIGTERM)
        told, err = process.communicate(timeout=100)
        assert (told, process.returncode) == (out, code_of_exit)
        assert ("OSError: disk" in err) == (code_of_exit == 1)


def test_what_is_done_by_itself() -> None:
    async def value() -> int:
        return 7

    async def fail() -> None:
        raise strep.ConfigurationError("no")

    async def cancel() -> None:
        raise asyncio.CancelledError

    before = [signal.default_int_handler, signal.SIG_DFL]
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)  # whatever a loop of another test has left
    assert run_until_stopped(value()) == 7
    with pytest.raises(strep.ConfigurationError):
        run_until_stopped(fail())
    with pytest.raises(asyncio.CancelledError):  # nobody told it to stop
        run_until_stopped(cancel())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    made: list[asyncio.AbstractEventLoop] = []
    run_until_stopped(value(), loop_factory=lambda: made.append(asyncio.new_event_loop()) or made[0])
    assert made[0].is_closed()


def test_in_another_thread_and_within_a_loop() -> None:
    async def value() -> int:
        return 7

    got: list[int | None] = []
    thread = threading.Thread(target=lambda: got.append(run_until_stopped(value())))
    thread.start()
    thread.join()
    assert got == [7]

    async def within() -> None:
        with pytest.raises(strep.ConfigurationError, match="await the coroutine"):
            run_until_stopped(value())

    asyncio.run(within())  # and no coroutine is left over, which would be a warning, which is an error


@posix
def test_signals_are_free_again_afterwards() -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: taken.append(number))
    try:

        async def main() -> None:
            await asyncio.sleep(0)

        run_until_stopped(main())
        signal.signal(signal.SIGTERM, lambda number, _: taken.append(number))
        os.kill(os.getpid(), signal.SIGTERM)
        assert taken == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
