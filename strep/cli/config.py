"""A command's options in a file (TOML), and what is in force and where from.

An option is taken from the command line, else from the environment (``STREP_SERVE_OUT`` for ``--out`` of serve), else
from the file, else it has its default.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from .._model.exceptions import ConfigurationError

__all__ = ["config_options", "read_config", "reloader", "shown_config"]

_F = TypeVar("_F", bound=Callable[..., Any])

_PATH: Final = "strep.config"  # in the context's meta
_OWN: Final = frozenset(("config", "show_config", "help"))
_SECRETS: Final = {"api_key": "TELNYX_API_KEY", "public_key": "TELNYX_PUBLIC_KEY"}


def config_options(function: _F) -> _F:
    """``--config`` and ``--show-config`` for a command, whose function gets ``show_config``."""
    shown = click.option(
        "--show-config", is_flag=True, help="Print what is in force, and where from, as such a file; then end."
    )
    given = click.option(
        "--config", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path), is_eager=True,
        expose_value=False, callback=_take,
        help="Options as TOML: a table of this command's name, `out = \"calls\"` for --out. The command line and the "
        "environment go first.",
    )  # fmt: skip
    return given(shown(function))


def _take(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        context.default_map = read_config(path, context.command)
        context.meta[_PATH] = path
    return path


def reloader(context: click.Context) -> Callable[[], dict[str, Any]] | None:
    """Reads the file again: what is in force then, by the names of parameters, with what the command line and the
    environment say. It raises ConfigurationError. None: there is no file."""
    path: Path | None = context.meta.get(_PATH)
    if path is None:
        return None

    def read() -> dict[str, Any]:
        found = read_config(path, context.command)
        values = dict(context.params)
        for option in _options(context.command).values():
            name = str(option.name)
            if context.get_parameter_source(name) in (ParameterSource.DEFAULT_MAP, ParameterSource.DEFAULT):
                given = found.get(name, option.default)  # what the old file said is no default
                if given is None or isinstance(given, Enum):  # click's sign for what has no default
                    values[name] = () if option.multiple else None
                    continue
                try:
                    values[name] = option.type_cast_value(context, given)
                except click.BadParameter as error:
                    raise ConfigurationError(f"--config {path}: {name}: {error.message}") from error
        return values

    return read


def read_config(path: Path, command: click.Command) -> dict[str, Any]:
    """A command's options in a file, by the names of its parameters. Raises ConfigurationError for what cannot be read,
    and for keys that are no options, with the nearest that is one."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path}: {error}") from error
    name = str(command.name)
    table = found.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"--config {path}: {name} is to be a table, [{name}]")
    strange = sorted(set(found) - {name})
    if strange and not table:
        raise ConfigurationError(f"--config {path}: there is no table [{name}], but {', '.join(strange)}")
    options = _options(command)
    values: dict[str, Any] = {}
    for key, value in table.items():
        parameter = options.get(key.replace("_", "-"))
        if parameter is None:
            raise ConfigurationError(f"--config {path}: [{name}] has {key!r}, {_nearest(key, options)}")
        values[str(parameter.name)] = _checked(path, name, key, value, parameter)
    return values


def _nearest(key: str, options: Mapping[str, click.Option]) -> str:
    plain = key.replace("_", "-")
    if key in _SECRETS:
        return f"which is a secret: it comes from the environment, as {_SECRETS[key]}"
    near = difflib.get_close_matches(plain, options, 1, 0.5)
    return f"which is no option; the nearest one is {near[0]!r}" if near else "which is no option"


def _checked(path: Path, table: str, key: str, value: Any, option: click.Option) -> Any:
    """A value as click takes it."""
    where = f"--config {path}: {key} in [{table}]"
    if option.multiple:
        if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
            raise ConfigurationError(f'{where} is to be a list, like ["…", "…"]')
        return [str(one) for one in value]
    if option.is_flag:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{where} is to be true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigurationError(f"{where} is to be a text or a number")
    return value if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType) else str(value)


def _options(command: click.Command) -> dict[str, click.Option]:
    """By the long name, without its dashes."""
    found: dict[str, click.Option] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in _OWN:
            for flag in parameter.opts:
                if flag.startswith("--"):
                    found[flag.removeprefix("--")] = parameter
    return found


_SOURCES: Final = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.DEFAULT_MAP: "file",
    ParameterSource.DEFAULT: "default",
}


def shown_config(context: click.Context) -> str:
    """What is in force, as a file for ``--config``; where each value is from stands behind it."""
    lines = [f"[{context.command.name}]"]
    for flag, option in sorted(_options(context.command).items()):
        name = str(option.name)
        value = context.params.get(name)
        source = context.get_parameter_source(name)
        told = _SOURCES.get(source) if source is not None else None
        if source is ParameterSource.ENVIRONMENT:
            told = f"environment, {_variable(context, option)}"
        if value is None or value == ():
            lines.append(f"# {flag} is not set")
        else:
            lines.append(f"{flag} = {_toml(value)}  # {told or 'default'}")
    return "\n".join(lines) + "\n"


def _variable(context: click.Context, option: click.Option) -> str:
    if option.envvar is not None:
        return option.envvar if isinstance(option.envvar, str) else option.envvar[0]
    return f"{context.auto_envvar_prefix}_{str(option.name).upper()}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False)  # a basic string of TOML has JSON's escapes
