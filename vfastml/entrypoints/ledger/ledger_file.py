"""The ledger as a file: made, recognised, opened."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from vfastml.entrypoints.ledger.errors import LedgerError
from vfastml.entrypoints.ledger.schema import APPLICATION_ID, VERSION, metadata

_BUSY_S = 2.0
"""How long one waits while another process writes; its transactions take milliseconds."""
_OPEN_S = 10.0
"""How long one begins anew while others make or open the file: for some of that SQLite itself does not wait."""
_LOOK_AGAIN_S = 0.05


def opened(path: str) -> Engine:
    """For one thread that writes; the file is made, readable by its owner alone, if it is not there. Raises
    LedgerError."""
    _make_file(path)
    engine = _engine(path, "rw")
    event.listen(engine, "begin", _begin_immediate)
    give_up_s = time.monotonic() + _OPEN_S
    while True:
        try:
            _settle(engine, path)
            with closing(connected(path)) as connection:
                # From now on, whoever opens the file, readers and a writer do not wait for each other.
                connection.execute("PRAGMA journal_mode = WAL")
        except (SQLAlchemyError, sqlite3.Error) as error:
            if not _is_busy(error) or time.monotonic() > give_up_s:
                raise LedgerError(f"the ledger {path} cannot be opened: {reason(error)}") from error
            time.sleep(_LOOK_AGAIN_S)
        else:
            return engine


def opened_to_read(path: str) -> Engine:
    """For those that only look, in any thread, while others write. Raises LedgerError."""
    engine = _engine(path, "ro")
    event.listen(engine, "begin", _begin)
    try:
        with engine.connect() as connection:
            found = _marks(connection)
    except SQLAlchemyError as error:
        raise LedgerError(f"the ledger {path} cannot be read: {reason(error)}") from error
    _check_marks(found, path)
    return engine


def connected(path: str) -> sqlite3.Connection:
    """The driver's own, without transactions of its own accord. Raises sqlite3.Error."""
    return _connect(_address(path, "rw"))


def reason(error: Exception) -> str:
    """What SQLite said, in its words."""
    return str(getattr(error, "orig", error))


def _is_busy(error: Exception) -> bool:
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _make_file(path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be opened: {error.strerror}") from error


def _engine(path: str, mode: Literal["ro", "rw"]) -> Engine:
    creator = partial(_connect, _address(path, mode))
    return create_engine("sqlite://", creator=creator, poolclass=QueuePool, pool_size=1, max_overflow=4)


def _address(path: str, mode: Literal["ro", "rw"]) -> str:
    return f"{Path(path).absolute().as_uri()}?mode={mode}"


def _connect(address: str) -> sqlite3.Connection:
    # Transactions begin as the listeners below say, not where the driver thinks that one is needed.
    connection = sqlite3.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    # What is committed survives the death of the process. Only the machine's own can take the last moments away, and
    # never breaks the file; to rule that out too, each commit would wait for the disk.
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _begin_immediate(connection: Connection) -> None:
    # A transaction that read first could not wait for another writer: its view would be out of date.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _settle(engine: Engine, path: str) -> None:
    with engine.begin() as connection:
        found = _marks(connection)
        if found == (0, 0, 0):
            metadata.create_all(connection, checkfirst=False)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
        else:
            _check_marks(found, path)


def _marks(connection: Connection) -> tuple[int, int, int]:
    """What the file says it is, its version, and how many tables and the like it has."""
    texts = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema")
    kind, version, size = (int(connection.exec_driver_sql(text).scalar_one()) for text in texts)
    return kind, version, size


def _check_marks(found: tuple[int, int, int], path: str) -> None:
    kind, version, _ = found
    if kind != APPLICATION_ID:
        raise LedgerError(f"{path} is not a usage ledger")
    if version != VERSION:
        raise LedgerError(f"the ledger {path} is of version {version}, and this program knows {VERSION}")
