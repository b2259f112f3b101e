"""Commands are imported when they are asked for; the group knows their names and what they are for."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from strep.cli import cli

CONTEXT = click.Context(cli, info_name="strep")
COMMANDS = cli.list_commands(CONTEXT)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_group_says_of_a_command_what_its_help_says_first(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    assert command.name == name
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=500, max_content_width=500).output
    (line,) = re.findall(rf"^  {name} +(.*)$", shown, re.MULTILINE)
    assert line == command.get_short_help_str(500)


def test_help_and_version_import_no_command() -> None:
    code = (
        "import sys, strep.cli; sys.argv = ['strep', {!r}]\n"
        "try: strep.cli.main()\n"
        "except SystemExit: print([n for n in sys.modules if n.startswith(('strep.cli.', 'rich'))])"
    )
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code.format(option)], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "['strep.cli.exit_codes']"


def test_what_is_no_command_is_told() -> None:
    result = CliRunner().invoke(cli, ["record"])
    assert (result.exit_code, "No such command 'record'" in result.output) == (2, True)
