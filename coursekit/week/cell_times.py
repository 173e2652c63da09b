"""How long each cell took: `notebooks/times.json`, which is written with the notebooks' outputs.

The file holds this version of the course and the release before, by session, cell by cell in their
order. A cell is named by its id and the first line that does something.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode

from .. import __version__
from .saved import cell_ids

FILE = "times.json"
VERSIONS = 2  # kept in the file: this one and the release before
SPEED_FROM = 0.5  # seconds: shorter cells say more of the clock than of the machine
SPEED_CELLS = 3  # as few cells do not tell how fast a machine is; it then counts as equally fast
MAD_TO_SD = 1.4826  # from a median absolute deviation to a standard deviation, if normal

Times = dict[str, float]  # seconds by cell, in the notebook's order


def measured(notebook: NotebookNode) -> Times:
    """Seconds of each executed code cell, from what nbclient records in the cells' metadata."""
    times = {}
    for cell, name in zip(notebook.cells, cell_ids(notebook.cells), strict=True):
        record = cell.metadata.get("execution", {})
        start, end = record.get("iopub.status.busy"), record.get("shell.execute_reply")
        if start and end:
            seconds = datetime.fromisoformat(end) - datetime.fromisoformat(start)
            times[f"{name} {_begins(cell.source)}"] = round(seconds.total_seconds(), 1)
    return times


def _begins(source: str) -> str:
    """The first line that is neither comment nor import, for people who read the file."""
    lines = [line for line in source.splitlines() if line.strip()]
    plain = [
        line for line in lines if not line.startswith(("#", "import ", "from ", "%", ")", " "))
    ]
    return (plain or lines or [""])[0][:60]


def read(folder: Path) -> dict[str, dict[str, Times]]:
    """Times by version, the newest last, and by session; empty without the file."""
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def latest(folder: Path) -> dict[str, Times]:
    """Times of the newest version in the folder's file, by session."""
    return next(reversed(read(folder).values()), {})


def write(folder: Path, sessions: Mapping[str, Times], version: str = __version__) -> None:
    """Put these sessions' times into the folder's file: others stay, and the release before."""
    versions = read(folder)
    versions[version] = dict(sorted({**versions.get(version, {}), **sessions}.items()))
    kept = dict(list(versions.items())[-VERSIONS:])
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    (folder / FILE).write_text(f"{text}\n", encoding="utf-8")


def speed(before: Times, after: Times) -> float:
    """How many times as long the machine of `after` takes: the median over cells that take a while.

    The median, because a cell that was made slower must not pass for a slower machine.
    """
    return statistics.median(_ratios(before, after))


def scatter(before: Times, after: Times) -> float:
    """By which factor cells typically differ from `speed`: nearly 1 on two quiet machines.

    Other work on a machine slows some cells and not others. It is exp of the logarithms' standard
    deviation, taken from their median absolute deviation, which one slow cell does not move.
    """
    logs = [math.log(max(ratio, 1e-3)) for ratio in _ratios(before, after)]
    middle = statistics.median(logs)
    return math.exp(MAD_TO_SD * statistics.median(abs(log - middle) for log in logs))


def _ratios(before: Times, after: Times) -> list[float]:
    """Times of `after` over those of `before`, of cells that take a while; 1 if they are few."""
    found = [
        after[cell] / before[cell]
        for cell in before.keys() & after.keys()
        if before[cell] >= SPEED_FROM
    ]
    return found if len(found) >= SPEED_CELLS else [1.0]
