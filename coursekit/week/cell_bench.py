"""Where the sessions' time goes, cell by cell: the first part of `python -m coursekit bench`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from .. import __version__
from .cell_times import FILE, Times, latest, read
from .regenerate import rerun
from .sources import NOTEBOOKS


def print_cells(fresh: bool = False) -> None:
    """Print the slowest cells of each session and what they took in the release before.

    fresh: measured now, by executing the notebooks; else as they were when they were saved.
    """
    now = None
    if fresh:
        with tempfile.TemporaryDirectory() as folder:
            rerun(Path(folder) / "notebooks")
            now = latest(Path(folder) / "notebooks")
    print(f"{table(NOTEBOOKS, now)}\n", flush=True)


def table(folder: Path, fresh: Mapping[str, Times] | None = None) -> str:
    """The slowest cells of each session, beside those of the release before, in Markdown.

    fresh: times that were measured just now; without, those of the newest version in the file.
    """
    versions = read(folder)
    newest = next(reversed(versions), "")
    before = [version for version in versions if version != __version__]
    now = latest(folder) if fresh is None else fresh
    if not now:
        return f"No times of cells in {folder / FILE}: `python -m coursekit notebooks` writes them."
    last = before[-1] if before else newest if fresh is not None else ""
    lines = [f"| session, its slowest cells | time | share | {last or 'no release before'} |"]
    lines += ["|---|---|---|---|"]
    for session, times in now.items():
        lines += slowest(session, times, versions.get(last, {}).get(session, {}))
    return "\n".join(lines)


def slowest(session: str, times: Times, last: Times, cells: int = 5) -> list[str]:
    """Lines of a table: the cells that take longest, their share, and what they took last time.

    A cell that was edited since is found by the line it begins with, if only one begins so.
    """
    total = sum(times.values())
    numbers = {cell: number for number, cell in enumerate(times, 1)}
    against = _against(total, sum(last.values()) if last else None)
    lines = [f"| **{session}** | {total:.0f} s | | {against} |"]
    for cell in sorted(times, key=times.__getitem__, reverse=True)[:cells]:
        begins = cell.partition(" ")[2].replace("|", "\\|")
        lines.append(
            f"| [{numbers[cell]}] `{begins}` | {times[cell]:.1f} s | {times[cell] / total:.0%} "
            f"| {_against(times[cell], _same(cell, last))} |"
        )
    return lines


def _same(cell: str, last: Times) -> float | None:
    """What the cell took last time; None if it was not there."""
    if cell in last:
        return last[cell]
    alike = [other for other in last if other.partition(" ")[2] == cell.partition(" ")[2]]
    return last[alike[0]] if len(alike) == 1 else None


def _against(seconds: float, before: float | None) -> str:
    if before is None:
        return "not there"
    return f"{before:.1f} s, {seconds / before:.2f} times" if before else f"{before:.1f} s"
