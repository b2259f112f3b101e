"""The catalogue: opened, written to and searched. Blocks: not for the event loop's thread."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, insert, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.sql import ColumnElement

from .._model.exceptions import ConfigurationError, MissingExtraError, StrepError
from .._model.extras import install
from . import tables
from .query import CallQuery
from .rows import LegRows, leg_rows

__all__ = ["Catalogue", "CatalogueError"]

_BUSY_MS: Final = 10_000  # how long SQLite waits for another writer
_CONNECT_S: Final = 5  # for a server to answer
_ESCAPE: Final = "\\"
_TRIES: Final = 3  # of a transaction that another one is in the way of


class CatalogueError(StrepError):
    """The database cannot be reached, does not take what is written, or is of a newer version. ``passing``: it may take
    the same later."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Catalogue:
    """``url``: a path (SQLite), or "postgresql://USER:PASSWORD@HOST/DATABASE". ``machine``: who records here.

    It is made where there is none, and brought to the present version where it is older. Threads may share it. Raises
    ConfigurationError for an url that says nothing, CatalogueError if the database cannot be used.
    """

    def __init__(self, url: str | Path, *, machine: str | None = None) -> None:
        self.machine = machine or socket.gethostname()
        self._engine = _engine(url)
        self.url = self._engine.url.render_as_string(hide_password=True)
        try:
            with self._engine.begin() as connection:
                _bring_up_to_date(connection)
        except CatalogueError:
            self._engine.dispose()
            raise
        except SQLAlchemyError as error:
            self._engine.dispose()
            text = f"the catalogue {self.url} cannot be opened: {_said(error)}"
            raise CatalogueError(text, passing=_passes(error)) from error

    def __enter__(self) -> Self:
        """For ``with``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """:meth:`close` it."""
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # --- writing ------------------------------------------------------------------------------------------------------

    def put(self, document: Mapping[str, Any], file: str | None) -> None:
        """Keep what stands in a ``leg.json``; ``file``: its path below the recordings, None: the call is live, and
        there is none yet. Again with the same path: it takes the place of what was there; tags stay. Raises
        CatalogueError, ValueError if it is no ``leg.json``."""
        self.put_all([leg_rows(document, file, self.machine)])

    def put_all(self, many: Iterable[LegRows]) -> None:
        """Several at once, all or none."""
        many = list(many)
        for left in reversed(range(_TRIES)):
            try:
                with self._engine.begin() as connection:
                    for rows in many:
                        _put(connection, rows)
                return
            except (IntegrityError, OperationalError) as error:  # somebody else wrote the same row, or writes now
                if not left:
                    raise CatalogueError(_said(error), passing=True) from error
            except SQLAlchemyError as error:
                raise CatalogueError(_said(error), passing=_passes(error)) from error

    def tag(self, call: str, values: Mapping[str, str | None]) -> bool:
        """Set tags of a call (None: take one away); whether there is such a call."""
        with self._engine.begin() as connection:
            found = self._call_of(connection, call)
            if found is None:
                return False
            for key, value in values.items():
                here = (tables.tags.c.call == found) & (tables.tags.c.key == key)
                connection.execute(delete(tables.tags).where(here))
                if value is not None:
                    connection.execute(insert(tables.tags).values(call=found, key=key, value=value))
        return True

    # --- searching ----------------------------------------------------------------------------------------------------

    def find(self, query: CallQuery) -> list[dict[str, Any]]:
        """Calls, the latest first: their rows as dicts, ``legs`` and ``tags`` in each. Raises CatalogueError."""
        try:
            with self._engine.connect() as connection:
                wanted = select(tables.legs.c.call).where(*_conditions(query))
                statement = (
                    select(tables.calls)
                    .where(tables.calls.c.call.in_(wanted))
                    .order_by(func.coalesce(tables.calls.c.began_ns, 0).desc(), tables.calls.c.call)
                    .limit(query.limit)
                )
                return self._with_legs(connection, [dict(row._mapping) for row in connection.execute(statement)])
        except SQLAlchemyError as error:
            raise CatalogueError(_said(error)) from error

    def show(self, call: str) -> dict[str, Any] | None:
        """A call by its id, or that of one of its legs (call_leg_id or call_control_id): with its legs, what was
        recorded of each, streams, files and events. None: there is none. Raises CatalogueError."""
        try:
            with self._engine.connect() as connection:
                key = self._call_of(connection, call)
                if key is None:
                    return None
                rows = connection.execute(select(tables.calls).where(tables.calls.c.call == key))
                (found,) = self._with_legs(connection, [dict(row._mapping) for row in rows])
                for leg in found["legs"]:
                    leg["recordings"] = self._recordings(connection, leg["call_leg_id"])
                return found
        except SQLAlchemyError as error:
            raise CatalogueError(_said(error)) from error

    def count(self) -> dict[str, int]:
        """Rows of each table, by its name."""
        with self._engine.connect() as connection:
            every = (tables.calls, tables.legs, tables.recordings, tables.streams, tables.files, tables.events)
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in every
            }

    def _call_of(self, connection: Connection, text: str) -> str | None:
        """The key of the call that is meant."""
        legs, calls = tables.legs.c, tables.calls.c
        found = connection.execute(select(calls.call).where(calls.call == text)).scalar()
        if found is None:
            mine = (legs.call_leg_id == text) | (legs.call_control_id == text)
            found = connection.execute(select(legs.call).where(mine).limit(1)).scalar()
        return None if found is None else str(found)

    def _with_legs(self, connection: Connection, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        keys = [call["call"] for call in found]
        legs = connection.execute(
            select(tables.legs)
            .where(tables.legs.c.call.in_(keys))
            .order_by(tables.legs.c.leg, tables.legs.c.call_leg_id)
        )
        tags = connection.execute(select(tables.tags).where(tables.tags.c.call.in_(keys)).order_by(tables.tags.c.key))
        by_call: dict[str, dict[str, Any]] = {call["call"]: {**call, "legs": [], "tags": {}} for call in found}
        for leg in legs:
            by_call[leg.call]["legs"].append(dict(leg._mapping))
        for tag in tags:
            by_call[tag.call]["tags"][tag.key] = tag.value
        return list(by_call.values())

    def _recordings(self, connection: Connection, leg: str) -> list[dict[str, Any]]:
        out = []
        rows = tables.recordings
        for row in connection.execute(select(rows).where(rows.c.call_leg_id == leg).order_by(rows.c.recording)):
            found: dict[str, Any] = {"file": row.file, "machine": row.machine}
            for table in (tables.streams, tables.files, tables.events):
                of_it = connection.execute(select(table).where(table.c.recording == row.recording))
                found[table.name] = [_shown(each._mapping) for each in of_it]
            out.append(found)
        return out


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    found = {name: value for name, value in row.items() if name not in ("recording", "number")}
    for name in ("data", "streams"):
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    return found


def _conditions(query: CallQuery) -> list[ColumnElement[bool]]:
    legs = tables.legs.c
    began = func.coalesce(legs.initiated_ns, legs.answered_ns, legs.began_ns)
    out: list[ColumnElement[bool]] = []
    for column, text in ((legs.from_number, query.from_number), (legs.to_number, query.to_number)):
        if text is not None:
            out.append(column.like(_pattern(text), escape=_ESCAPE) if "*" in text else column == text)
    if query.since_ns is not None:
        out.append(began >= query.since_ns)
    if query.until_ns is not None:
        out.append(began < query.until_ns)
    if query.outcome is not None:
        out.append(legs.outcome == query.outcome)
    if query.mos_below is not None:
        out.append(legs.mos_min < query.mos_below)
    for key, value in query.tags.items():
        tagged = select(tables.tags.c.call).where(tables.tags.c.key == key, tables.tags.c.value == value)
        out.append(legs.call.in_(tagged))
    return out


def _pattern(text: str) -> str:
    for sign in (_ESCAPE, "%", "_"):
        text = text.replace(sign, _ESCAPE + sign)
    return text.replace("*", "%")


def _put(connection: Connection, rows: LegRows) -> None:
    # numbers are those of leg A: it is the one that came in, or was dialled first
    first = () if rows.leg["leg"] == "a" else ("from_number", "to_number")
    _merge(connection, tables.calls, "call", rows.call, earliest=("began_ns",), missing=first)
    if rows.recording is None and _has(connection, tables.recordings, "call_leg_id", rows.leg["call_leg_id"]):
        return  # what is known of a live call is less than what its file said
    _merge(connection, tables.legs, "call_leg_id", rows.leg)
    if rows.recording is None:
        return
    key = rows.recording["recording"]
    places = {
        row.path: row.place
        for row in connection.execute(select(tables.files).where(tables.files.c.recording == key))
        if row.place is not None
    }
    for table in (tables.streams, tables.files, tables.events, tables.recordings):
        connection.execute(delete(table).where(table.c.recording == key))
    connection.execute(insert(tables.recordings).values(rows.recording))
    files = [{"place": places.get(row["path"]), **row} for row in rows.files]
    for table, many in ((tables.streams, rows.streams), (tables.files, files), (tables.events, rows.events)):
        if many:
            connection.execute(insert(table), many)


def _has(connection: Connection, table: Table, key: str, value: str) -> bool:
    return connection.execute(select(table.c[key]).where(table.c[key] == value).limit(1)).scalar() is not None


def _merge(
    connection: Connection,
    table: Table,
    key: str,
    row: Mapping[str, Any],
    earliest: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
) -> None:
    """Insert a row, or write what it knows into one that is there: ``earliest``, the least of both; ``missing``, only
    where nothing stands."""
    mine = table.c[key] == row[key]
    there = connection.execute(select(table).where(mine)).first()
    if there is None:
        connection.execute(insert(table).values(dict(row)))
        return
    known = {name: value for name, value in row.items() if value is not None and name != key}
    for name in earliest:
        before = there._mapping[name]
        if before is not None and name in known:
            known[name] = min(before, known[name])
    for name in missing:
        if there._mapping[name] is not None:
            known.pop(name, None)
    if known:
        connection.execute(update(table).where(mine).values(known))


def _engine(url: str | Path) -> Engine:
    text = str(url)
    if "://" not in text:
        text = f"sqlite:///{text}"
    text = text.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
    try:
        parsed = make_url(text)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ConfigurationError(f"catalogue {parsed.drivername}: give a path, or postgresql://USER@HOST/DATABASE")
        # a server that does not answer is tried again; nobody waits for it
        patience = {} if parsed.get_backend_name() == "sqlite" else {"connect_timeout": _CONNECT_S}
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=patience)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError(f"catalogue {text!r}: give a path, or postgresql://USER@HOST/DATABASE") from error
    except ImportError as error:
        raise MissingExtraError(f"a catalogue in PostgreSQL needs psycopg: {install('postgresql')}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _bring_up_to_date(connection: Connection) -> None:
    """Make the tables, or migrate them, in one transaction. Raises CatalogueError if they are of a newer version."""
    if not inspect(connection).has_table(tables.version.name):
        tables.metadata.create_all(connection)
        connection.execute(insert(tables.version).values(version=tables.VERSION))
        return
    there = int(connection.execute(select(tables.version.c.version)).scalar_one())
    if there > tables.VERSION:
        raise CatalogueError(
            f"the catalogue is of version {there}, and this strep knows {tables.VERSION}: update strep, or name another"
        )
    for number in range(there + 1, tables.VERSION + 1):
        tables.MIGRATIONS[number](connection)
    if there < tables.VERSION:
        connection.execute(update(tables.version).values(version=tables.VERSION))


def _passes(error: SQLAlchemyError) -> bool:
    """Whether it is the database, and not what was written."""
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or isinstance(error, OperationalError | InterfaceError) or not isinstance(error, DBAPIError)


def _said(error: SQLAlchemyError) -> str:
    """What the database says, in a line."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())
