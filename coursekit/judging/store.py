"""Verdicts on the disk: what a judge has answered is never paid for twice."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Verdict:
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
    may use the same file.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else None
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            str(self.path or ":memory:"), check_same_thread=False, timeout=30, isolation_level=None
        )
        try:
            if self.path:
                self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, judge TEXT,"
                " asked REAL, value TEXT, reason TEXT, cause TEXT, input_tokens INTEGER,"
                " output_tokens INTEGER, dollars REAL)"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, judge TEXT, keys TEXT)"
            )
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path} is no store of verdicts ({error}): move it away, and verdicts are asked "
                "for anew"
            ) from error

    def get(self, key: str) -> Verdict | None:
        """The verdict on a question, if there is one."""
        with self._lock:
            row = self._connection.execute(
                "SELECT value, reason, cause, input_tokens, output_tokens, dollars FROM verdicts "
                "WHERE key = ?",
                (key,),
            ).fetchone()
        return Verdict(json.loads(row[0]), *row[1:]) if row else None

    def put(self, key: str, judge: str, verdict: Verdict) -> None:
        """Keep a verdict; it is on the disk when this returns."""
        values = (
            *(key, judge, time.time(), json.dumps(verdict.value), verdict.reason, verdict.cause),
            *(verdict.input_tokens, verdict.output_tokens, verdict.dollars),
        )
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values
            )

    def forget_invalid(self) -> int:
        """Drop the invalid ones, so that they are asked again; returns how many."""
        with self._lock:
            return self._connection.execute("DELETE FROM verdicts WHERE value = 'null'").rowcount

    def counts(self) -> dict[str, int]:
        """How many verdicts are `valid` and how many `invalid`."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT value = 'null', COUNT(*) FROM verdicts GROUP BY 1"
            )
            found = dict(rows.fetchall())
        return {"valid": found.get(0, 0), "invalid": found.get(1, 0)}

    def causes(self) -> dict[str, int]:
        """Why verdicts are invalid, and how often."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT cause, COUNT(*) FROM verdicts WHERE value = 'null' GROUP BY cause"
            )
            return dict(rows.fetchall())

    # Batches that are being worked on: a stopped run finds them again.

    def add_batch(self, name: str, judge: str, keys: list[str]) -> None:
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", (name, judge, json.dumps(keys))
            )

    def open_batches(self, judge: str) -> dict[str, list[str]]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT name, keys FROM batches WHERE judge = ?", (judge,)
            ).fetchall()
        return {name: json.loads(keys) for name, keys in rows}

    def close_batch(self, name: str) -> None:
        with self._lock:
            self._connection.execute("DELETE FROM batches WHERE name = ?", (name,))
