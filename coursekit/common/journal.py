"""A file of finished work: what was made before a kill is kept, nothing is made twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .made_from import (
    NOTES,
    MadeFrom,
    differences,
    fingerprint,
    only_here,
    plain,
    read_record,
    record_path,
    set_aside,
    write_record,
)

SYNC_EVERY = 1.0  # seconds


class Journal:
    """A JSON Lines file to which *groups* of rows are appended, each group whole or not there.

    A process may be killed at any moment, in the middle of a line too. Opened again with the same
    `made_from`, the journal holds the groups that were written whole, in `done`; what a kill left
    after them is cut off. So the file ends up as if nothing had happened. Open it with `with`: one
    process at a time has it, others wait.

    made_from: what the work depends on, written beside the file (`made_from.record_path`). A file
        that was made from something else, or that has a line which is damaged or was edited, is
        not mixed in: it is kept under another name.
    path: None keeps nothing; the work goes on all the same.
    """

    def __init__(self, path: str | Path | None, made_from: Mapping[str, Any]) -> None:
        self.path = Path(path) if path else None
        self.made_from = plain(made_from)
        self.run = fingerprint(self.made_from)
        self.done: list[list[dict[str, Any]]] = []
        self._synced = 0.0  # when last; 0 for not yet

    def __enter__(self) -> Journal:
        self._held = ExitStack()
        self._held.enter_context(only_here(self.path))
        if self.path:
            try:
                self._open(self.path)
            except BaseException:
                self._held.close()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._synced:
            self._sync()
        self._held.close()

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add one group: it outlives this process at once, and a power cut a second later.

        To wait for the disk after each would take longer than what many judges and servers do.
        """
        rows = list(rows)
        if self.path:
            place = [self.run, len(self.done), len(rows)]
            # A group without rows is a line of its own: else it would be made again.
            lines = [
                json.dumps({**row, "journal": [*place, fingerprint(place, index, row)]}) + "\n"
                for index, row in enumerate(rows or [{}])
            ]
            with self.path.open("ab") as file:
                file.write("".join(lines).encode())
            if time.monotonic() - self._synced >= SYNC_EVERY:
                self._sync()
        self.done.append(rows)

    def _sync(self) -> None:
        """See that all that was appended is on the disk."""
        with self.path.open("ab") as file:
            os.fsync(file.fileno())
        self._synced = time.monotonic()

    def _open(self, path: Path) -> None:
        if path.is_file():
            try:
                run, groups, whole = _read(path)
                why = ""
                if run and run != self.run:
                    differ = "; ".join(differences(read_record(path), self.made_from))
                    why = f"it holds the work of another run ({differ or run})"
            except ValueError as error:
                why = str(error)
            if why:
                set_aside(path, why, also=(record_path(path),))
            else:
                self.done = groups
                if whole < path.stat().st_size:
                    os.truncate(path, whole)
        if not (path.is_file() and self._is_recorded(path)):
            write_record(path, self.made_from)

    def _is_recorded(self, path: Path) -> bool:
        try:
            return _record(path) == self.made_from
        except ValueError:  # a damaged record: the file's lines say themselves whose they are
            return False


def _record(path: Path) -> MadeFrom | None:
    """What the file was made from, notes apart."""
    record = read_record(path)
    return record and {name: value for name, value in record.items() if name != NOTES}


def read_journal(path: str | Path) -> list[dict[str, Any]]:
    """The rows of all groups that were written whole; none if there is no file.

    Raises ValueError for a line that is damaged or was edited, and for a file that the record
    beside it is not about.
    """
    path = Path(path)
    if not path.is_file():
        return []
    run, groups, _ = _read(path)
    if run and run != fingerprint(_record(path)):
        raise ValueError(f"{path.name} is not of the run that {record_path(path).name} tells of")
    return [row for group in groups for row in group]


def _read(path: Path) -> tuple[str, list[list[dict[str, Any]]], int]:
    """The run whose work it is, its whole groups, and how many bytes these take."""
    of = ""
    groups: list[list[dict[str, Any]]] = []
    group: list[dict[str, Any]] = []
    read = whole = 0
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            row = json.loads(line)
            *place, seal = row.pop("journal")
            of, rows = of or place[0], place[2]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise ValueError(f"line {number} is damaged, or of another kind of file") from None
        if place != [of, len(groups), rows] or seal != fingerprint(place, len(group), row):
            raise ValueError(f"line {number} was edited or moved, or one before it is missing")
        read += len(line)
        if rows:
            group.append(row)
        if len(group) == rows:
            groups.append(group)
            group, whole = [], read
    return of, groups, whole


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The lines with their ends; half a line at the end of the file is none."""
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))
