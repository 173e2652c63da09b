"""A file of finished work: what was made before a kill is kept, nothing is made twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Journal:
    """A JSON Lines file to which *groups* of rows are appended, each group whole or not there.

    A process may be killed at any moment, in the middle of a line too. Opened again with the same
    `run`, the journal holds the groups that were written whole, in `done`; what a kill left after
    them is cut off. So the file ends up as if nothing had happened. A file with a damaged line is
    treated as one of another run.

    run: says what the work depends on (`fingerprint`). A file of another run is not mixed in: it
        is kept under another name.
    path: None keeps nothing; the work goes on all the same.
    """

    def __init__(self, path: str | Path | None, run: str) -> None:
        self.path = Path(path) if path else None
        self.run = run
        self.done: list[list[dict[str, Any]]] = []
        if self.path and self.path.is_file():
            self._read()

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add one group and see that it is on the disk before anything else happens."""
        rows = list(rows)
        if self.path:
            place = [len(self.done), len(rows)]
            lines = [json.dumps({**row, "journal": [self.run, *place]}) + "\n" for row in rows]
            # A group without rows is a line of its own: else it would be made again.
            lines = lines or [json.dumps({"journal": [self.run, *place]}) + "\n"]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write("".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())
        self.done.append(rows)

    def _read(self) -> None:
        size = 0
        group: list[dict[str, Any]] = []
        read = 0  # bytes
        for line in self.path.read_bytes().split(b"\n")[:-1]:  # the last piece is half a line
            try:
                row = json.loads(line)
                run, number, rows = row.pop("journal")
            except (ValueError, KeyError, TypeError, AttributeError):  # damaged, or no journal
                run = None
            if run != self.run:
                self._put_aside(run)
                return
            read += len(line) + 1
            if rows:
                group.append(row)
            if len(group) == rows and number == len(self.done):
                self.done.append(group)
                group, size = [], read
        if size < self.path.stat().st_size:
            os.truncate(self.path, size)

    def _put_aside(self, run: str | None) -> None:
        self.done.clear()
        aside = self.path.with_name(f"{self.path.stem}-{run or 'unknown'}{self.path.suffix}")
        self.path.replace(aside)
        print(f"{self.path.name} holds the work of another run: kept as {aside.name}")


def fingerprint(*parts: Any) -> str:
    """Sixteen hexadecimal digits that differ where `parts` (whatever JSON can hold) differ."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
