"""Verdicts on the disk: what a judge has answered is never paid for twice, nor above the cap."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FOREIGN_CLAIM = 3600.0  # seconds after which a claim of another machine is taken for dead
_TABLES = {
    "verdicts": "key TEXT PRIMARY KEY, judge TEXT, asked REAL, value TEXT, reason TEXT, "
    "cause TEXT, input_tokens INTEGER, output_tokens INTEGER, dollars REAL",
    # What is being asked: by whom (machine/process/thread, or a batch), and for how much at most.
    "claims": "key TEXT PRIMARY KEY, owner TEXT, since REAL, dollars REAL",
    # What was paid, or may have been.
    "payments": "at REAL, judge TEXT, dollars REAL",
    "batches": "name TEXT PRIMARY KEY, judge TEXT, keys TEXT",
}


@dataclass(frozen=True)
class KeptAnswer:
    """One answer as it is kept. value: None where it is invalid, and then `cause` says why."""

    value: Any
    reason: str = ""
    cause: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0

    @property
    def valid(self) -> bool:
        return self.value is not None


class VerdictStore:
    """A SQLite file (or memory, without a path) of verdicts by the question's fingerprint.

    Each is on the disk before the next question is asked; several threads, and several processes,
    may use the same file, which its owner alone can read. Whoever asks a question claims it first,
    with the most that it can cost: so each is asked once, and what was spent and what is under way
    stay below the cap together, whoever spends. Payments are never forgotten, verdicts may be.

    Raises ValueError for a file that is no such store, and OSError, here and in every method, where
    the disk is full or cannot be written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else None
        self._lock = threading.Lock()
        self._unwritten: dict[str, tuple[str, KeptAnswer]] = {}  # bought; the disk was full
        self._unreleased: dict[str, tuple[str, float]] = {}  # given up, likewise
        try:
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
                with suppress(PermissionError):  # somebody else's, who let us write
                    self.path.chmod(0o600)
            self._connection = sqlite3.connect(
                str(self.path or ":memory:"),
                check_same_thread=False,
                timeout=30,
                isolation_level=None,
            )
            if self.path:
                self._connection.execute("PRAGMA journal_mode=WAL")
            for name, columns in _TABLES.items():
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        except (sqlite3.Error, OSError) as error:
            raise self._trouble(error) from error
        self._check_columns()

    def _check_columns(self) -> None:
        for name, columns in _TABLES.items():
            wanted = [column.split()[0] for column in columns.split(", ")]
            found = [row[1] for row in self._connection.execute(f"PRAGMA table_info({name})")]
            if found != wanted:
                raise ValueError(
                    f"{self.path} is no store of verdicts of this version of the course (its table "
                    f"{name} has the columns {', '.join(found)}): keep it under another name, and "
                    "a new one is begun"
                )

    def get(self, key: str) -> KeptAnswer | None:
        """The verdict on a question, if there is one."""
        if key in self._unwritten:
            return self._unwritten[key][1]
        row = self._read(
            "SELECT value, reason, cause, input_tokens, output_tokens, dollars FROM verdicts "
            "WHERE key = ?",
            key,
        )
        if not row:
            return None
        try:
            return KeptAnswer(json.loads(row[0][0]), *row[0][1:])
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path}: the verdict {key} is damaged (its value is {row[0][0]!r:.40}): "
                "restore the file from a copy, or delete that row of its table verdicts"
            ) from error

    def claim(
        self, key: str, dollars: float, cap: float | None = None
    ) -> Literal["claimed", "taken", "spent"]:
        """Claim a question, to ask it; `dollars`: what that costs at most.

        `taken`: there is a verdict by now, or somebody asks at this moment, or what others have
        under way leaves no room below `cap` until it is answered: look again in a moment. `spent`:
        with what was paid already, this one could go above `cap`.
        """
        self._write_the_unwritten()
        with self._writing() as database:
            self._bury_the_dead(database, key)
            for table in ("verdicts", "claims"):
                if database.execute(f"SELECT 1 FROM {table} WHERE key = ?", (key,)).fetchone():
                    return "taken"
            if cap is not None and dollars > 0:
                fixed, for_now = self._committed(database)
                if fixed + dollars > cap + 1e-9:
                    return "spent"
                if fixed + for_now + dollars > cap + 1e-9:
                    return "taken"
            database.execute(
                "INSERT INTO claims VALUES (?, ?, ?, ?)", (key, _me(), time.time(), dollars)
            )
        return "claimed"

    def put(self, key: str, judge: str, verdict: KeptAnswer) -> None:
        """Keep a verdict and what it cost; it is on the disk when this returns.

        Where it cannot be written it is kept in memory, and written when that is possible again.
        """
        try:
            with self._writing() as database:
                _put(database, key, judge, verdict)
        except OSError:
            self._unwritten[key] = judge, verdict
            raise

    def release(self, key: str, judge: str, dollars: float) -> None:
        """Give a question up without a verdict; `dollars`: what asking may have cost even so."""
        try:
            with self._writing() as database:
                _release(database, key, judge, dollars)
        except OSError:
            self._unreleased[key] = judge, dollars
            raise

    def spent(self) -> float:
        """Dollars paid through this store by whatever judge, ever, or in batches under way."""
        with self._lock:
            return self._committed(self._connection)[0]

    def forget_invalid(self) -> int:
        """Drop the invalid ones, so that they are asked again; returns how many."""
        with self._writing() as database:
            return database.execute("DELETE FROM verdicts WHERE value = 'null'").rowcount

    def counts(self) -> dict[str, int]:
        """How many verdicts are `valid` and how many `invalid`."""
        found = dict(self._read("SELECT value = 'null', COUNT(*) FROM verdicts GROUP BY 1"))
        return {"valid": found.get(0, 0), "invalid": found.get(1, 0)}

    def causes(self) -> dict[str, int]:
        """Why verdicts are invalid, and how often."""
        return dict(
            self._read("SELECT cause, COUNT(*) FROM verdicts WHERE value = 'null' GROUP BY cause")
        )

    # Batches that are being worked on: a stopped run finds them again.

    def add_batch(self, name: str, judge: str, forms: Mapping[str, Any]) -> None:
        """Hand the claims on questions to a batch. forms: by key, what reading an answer needs."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO batches VALUES (?, ?, ?)", (name, judge, json.dumps(dict(forms)))
            )
            database.executemany(
                "UPDATE claims SET owner = ? WHERE key = ?",
                [(f"batch {name}", key) for key in forms],
            )

    def open_batches(self, judge: str) -> dict[str, dict[str, Any]]:
        """The forms of all batches of a judge's that are not finished, by name."""
        rows = self._read("SELECT name, keys FROM batches WHERE judge = ?", judge)
        return {name: json.loads(forms) for name, forms in rows}

    def batch_of(self, key: str) -> str | None:
        """The batch that a question is under way in, if it is."""
        row = self._read("SELECT owner FROM claims WHERE key = ? AND owner LIKE 'batch %'", key)
        return row[0][0].removeprefix("batch ") if row else None

    def finish_batch(self, name: str, judge: str, verdicts: Mapping[str, KeptAnswer]) -> bool:
        """Keep what a batch brought, and drop its claims. False if another process was first."""
        with self._writing() as database:
            if not database.execute("DELETE FROM batches WHERE name = ?", (name,)).rowcount:
                return False
            for key, verdict in verdicts.items():
                _put(database, key, judge, verdict)
            database.execute("DELETE FROM claims WHERE owner = ?", (f"batch {name}",))
        return True

    # Inside.

    def _committed(self, database: sqlite3.Connection) -> tuple[float, float]:
        """Dollars that were paid or wait in batches; and dollars of what is asked right now."""
        (paid,) = database.execute("SELECT TOTAL(dollars) FROM payments").fetchone()
        of_batches, for_now = database.execute(
            "SELECT TOTAL(dollars * (owner LIKE 'batch %')),"
            " TOTAL(dollars * (owner NOT LIKE 'batch %')) FROM claims"
        ).fetchone()
        return paid + of_batches, for_now

    def _bury_the_dead(self, database: sqlite3.Connection, wanted: str) -> None:
        """Claims that nobody will answer: paid for as if answered, free to be asked again.

        Those of processes that were killed; and one of this thread's on the key that it wants: it
        was interrupted (Ctrl-C) before it could give it up.
        """
        rows = database.execute(
            "SELECT key, owner, since, dollars FROM claims WHERE owner NOT LIKE 'batch %'"
        ).fetchall()
        for key, owner, since, dollars in rows:
            if not _alive(owner, since) or (key, owner) == (wanted, _me()):
                _release(database, key, f"unanswered, {owner}", dollars)

    def _write_the_unwritten(self) -> None:
        for key, (judge, verdict) in list(self._unwritten.items()):
            self.put(key, judge, verdict)
            self._unwritten.pop(key, None)
        for key, (judge, dollars) in list(self._unreleased.items()):
            self.release(key, judge, dollars)
            self._unreleased.pop(key, None)

    def _read(self, query: str, *values: Any) -> list[tuple]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._trouble(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: nobody else writes meanwhile, and all of it is on the disk or nothing."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._trouble(error) from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _trouble(self, error: Exception) -> Exception:
        """What is wrong with the file, and what to do about it without losing what was paid for."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return ValueError(
                f"{self.path} is no store of verdicts, or a damaged one ({error}): restore it from "
                "a copy, or keep it under another name, and verdicts are asked for anew"
            )
        return OSError(
            f"{self.path} cannot be written ({error}), so no verdict could be kept and none is "
            "asked for. Make room on the disk or allow writing, or copy the folder to where you "
            "may write and name that in COURSE_ARTIFACTS. Leave the file: what is in it is paid"
        )


def _put(database: sqlite3.Connection, key: str, judge: str, verdict: KeptAnswer) -> None:
    database.execute(
        "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(key, judge, time.time(), json.dumps(verdict.value), verdict.reason, verdict.cause),
            *(verdict.input_tokens, verdict.output_tokens, verdict.dollars),
        ),
    )
    _release(database, key, judge, verdict.dollars)


def _release(database: sqlite3.Connection, key: str, judge: str, dollars: float) -> None:
    database.execute("DELETE FROM claims WHERE key = ?", (key,))
    _pay(database, judge, dollars)


def _pay(database: sqlite3.Connection, judge: str, dollars: float) -> None:
    if dollars > 0:
        database.execute("INSERT INTO payments VALUES (?, ?, ?)", (time.time(), judge, dollars))


def _me() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{threading.get_ident()}"


def _alive(owner: str, since: float) -> bool:
    """Whether the process that made a claim may still get an answer: it runs, as far as we see."""
    import psutil

    host, process, _ = owner.rsplit("/", 2)
    if host != socket.gethostname():
        return time.time() - since < FOREIGN_CLAIM
    try:
        # A process that began after the claim has the number of one that is gone.
        return psutil.Process(int(process)).create_time() < since + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # not ours to look at, but there
        return True
