"""strep wireshark: the dissector that Wireshark and tshark can be given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from .exit_codes import EXIT_SINK
from .running import console

__all__ = ["wireshark"]

_NAME: Final = "strep.lua"
_SCRIPT: Final = Path(__file__).parent.parent / "data" / _NAME


@click.command()
@click.option("--install", is_flag=True, help="Put the dissector into the personal plugin folder.")
def wireshark(install: bool) -> None:
    """Wireshark's and tshark's dissector for STREP: where it is, and where it goes.

    It finds STREP on any port by its content, shows leg, direction and call_leg_id (strep.leg, strep.direction,
    strep.call_leg_id), and hands on to RTP and RTCP. Once: tshark -X lua_script:FILE; always: --install.
    """
    folder = _plugin_folder()
    target = folder / _NAME
    if not install:
        click.echo(f"{_SCRIPT}\ngoes to {target}: strep wireshark --install")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_SCRIPT, target)
    except OSError as error:
        console().print(f"{target} cannot be written: {error.strerror}", soft_wrap=True, style="red")
        sys.exit(EXIT_SINK)
    click.echo(f"wrote {target}: Wireshark and tshark know STREP from their next start on")


def _plugin_folder() -> Path:
    """Where Wireshark looks for personal Lua plugins: it says itself; otherwise by its documentation."""
    for program in ("tshark", "wireshark"):
        path = shutil.which(program)
        if path is None:
            continue
        try:
            told = subprocess.run([path, "-G", "folders"], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        match = re.search(r"^Personal Lua Plugins:\s*(\S.*?)\s*$", told.stdout, re.M)
        if match:
            return Path(match[1])
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home())) / "Wireshark" / "plugins"
    return Path.home() / ".local" / "lib" / "wireshark" / "plugins"
