"""In which order tests run with ``-n``, which of them one worker runs together, and which run on both transports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol, TypeVar


class Named(Protocol):
    @property
    def nodeid(self) -> str: ...


N = TypeVar("N", bound=Named)

# Modules whose tests one worker runs one after the other: they load the machine, or share what takes long to make or
# to import. They begin first, in this order: the longest ones at the top.
TOGETHER = {
    "bench/test_bench.py": "load",
    "bench/test_peers.py": "load",
    "sinks/wav/test_wav_faults.py": "load",
    "test_attacks.py": "load",
    "receiver/test_steps_live.py": "load",
    "edge/ring/test_cable.py": "cable",
    "test_examples.py": "examples",
    "test_answering.py": "telnyx",
    "remote/test_takeover.py": "nats",
    "nats/test_nats_sink.py": "nats",
    "sinks/wav/test_drift.py": "an hour",
    "delivery/test_set_aside.py": "eight streams",
    "sinks/analysis/test_tones.py": "voices",
    "cli/test_plot.py": "matplotlib",
    "control/test_audio_commands.py": "telnyx",
    "control/test_control_client.py": "telnyx",
    "control/test_control_webhooks.py": "telnyx",
    "standin/test_standin.py": "telnyx",
    "codecs/test_codec_changes.py": "changes",
    "delivery/test_plc.py": "losses",
    "engine/test_fuzz_keys.py": "keys",
    "receiver/test_settings.py": "settings",
}
# Modules of which a change repeats only these tests on the portable transport: how the others receive makes no
# difference to what they show. .ci/nightly repeats all.
REPEATED = {
    "service/test_serve.py": ("test_fifty_calls_of_which_thirty_at_once", "test_a_hold_is_told_of_in_the_legs_file"),
    "service/test_service_book.py": ("test_health",),
    "service/test_owner.py": (),
    "cli/test_cli.py": (
        "test_a_signal_finishes_files_and_loses_nothing",
        "test_duration_ends_a_capture_and_a_monitor_writes_nothing",
        "test_rx_and_tx_of_a_named_leg_as_stereo",
        "test_simulate_into_capture",
        "test_a_taken_port_is_exit_code_4",
        "test_a_sink_that_failed_is_exit_code_6",
    ),
    "codecs/test_codec_calls.py": (),
    "sinks/wav/test_wav_faults.py": (),
    "workers/test_worker_figures.py": (),
    "workers/test_workers.py": (
        "test_two_workers_record_forty_calls_exactly",
        "test_plain_rtp_and_a_pair_of_ports",
        "test_what_the_kernel_drops_is_counted_over_restarts",
        "test_a_signal_finishes_everything",
    ),
    "test_answering.py": (),
    "test_examples.py": ("test_the_example_that_forks_a_call", "test_the_code_in_the_readme"),
}


def repeated(nodeid: str) -> bool:
    """Whether a test runs on the portable transport too, each time."""
    module, _, name = nodeid.partition("::")
    module = module.removeprefix("tests/")
    return module not in REPEATED or name.partition("[")[0] in REPEATED[module]


def unit(nodeid: str) -> str:
    """What one worker runs in one go: modules that belong together, or a test with all its parameters."""
    return TOGETHER.get(nodeid.partition("::")[0].removeprefix("tests/"), nodeid.partition("[")[0])


def spread(items: Sequence[N], waits: Callable[[N], bool]) -> list[N]:
    """Tests in the order in which workers take them: first what belongs together, then those that wait (on real time,
    or on processes) evenly among those that compute, so that both kinds run at any time."""
    first = {name: place for place, name in enumerate(dict.fromkeys(TOGETHER.values()))}
    units: dict[str, list[N]] = {}
    for item in items:
        units.setdefault(unit(item.nodeid), []).append(item)
    kinds: tuple[list[str], list[str]] = ([], [])
    for name, tests in units.items():
        if name not in first:
            kinds[waits(tests[0])].append(name)
    place = {name: Fraction(2 * n + 1, 2 * len(kind)) for kind in kinds for n, name in enumerate(kind)}
    names = sorted(units, key=lambda name: (name not in first, first.get(name, 0), place.get(name, 0)))
    return [item for name in names for item in units[name]]
