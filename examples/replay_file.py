"""A capture file through the same sinks, as fast as it goes: python replay_file.py FILE [DIR]"""

import sys

import strep
from strep.sinks import LevelMeter, WavSink


def main(path: str, folder: str = "calls") -> None:
    meter = LevelMeter()
    result = strep.replay(path, sinks=[WavSink(folder, encoding="native"), meter])
    for report in result.reports():
        level = meter.snapshot(report.stream)
        print(f"{report.stream.name} {report.stream.direction.label} {report.stream.codec}: {report.duration_s:.2f} s,"
              f" {report.packets_lost} lost, peak {level.peak_dbfs if level else -120:.1f} dBFS")  # fmt: skip
    print(result.totals().delivered, "of", result.totals().datagrams, "datagrams delivered")


main(*sys.argv[1:])
