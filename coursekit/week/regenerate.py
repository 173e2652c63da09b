"""Execute the notebooks and save their outputs: `python -m coursekit notebooks` (for instructors).

They run as the course's own: in artifacts of their own, whatever lies in `artifacts`, and without
this shell's settings of the course. What is saved is the same on every run (`saved`); how long each
cell took goes into `notebooks/times.json`. Nothing is saved unless every cell ran through.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat

from ..common.profile import artifacts_folder
from . import cell_times
from .run_course import execute, or_stopped
from .saved import settle
from .sources import NOTEBOOKS, named, notebook_in, sources


def main(notebooks: Path = NOTEBOOKS) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", default="", help="save the notebooks whose names begin so; those before run too"
    )
    options = parser.parse_args()
    wanted = chosen(options.only, notebooks)
    folder = artifacts_folder() / "regenerated"
    if not rerun(folder, options.only, notebooks=notebooks):
        print(f"Nothing is saved. The notebooks as far as they ran: {folder}", file=sys.stderr)
        return 1
    for source in wanted:
        shutil.copy(notebook_in(folder, source, notebooks), source.parent)
    cell_times.write(notebooks, cell_times.latest(folder))
    print(f"Saved: {', '.join(source.stem for source in wanted)}, {cell_times.FILE}")
    return 0


def chosen(only: str, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """The sources whose names begin with `only`, in their order; ends the command if none does."""
    found = named(only, notebooks)
    if not found:
        names = ", ".join(source.stem for source in sources(notebooks))
        print(f"No notebook's name begins with {only!r}: there are {names}.", file=sys.stderr)
        sys.exit(2)  # as for any argument that cannot be meant
    return found


def rerun(
    folder: Path, only: str = "", keep_going: bool = False, notebooks: Path = NOTEBOOKS
) -> bool:
    """Execute `notebooks` in scratch artifacts; write those chosen, and their times, to `folder`.

    A notebook shows what those before it have left, so they run first; what lies after is left out.

    keep_going: whether what comes after a cell that fails is executed as well.

    Returns whether everything ran through.
    """
    wanted = chosen(only, notebooks)
    every = sources(notebooks)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    whole = True
    with tempfile.TemporaryDirectory() as scratch:
        for source in every[: every.index(wanted[-1]) + 1]:
            target = notebook_in(folder, source, notebooks)
            failed = _run(source, target, folder, Path(scratch), keep_going, source in wanted)
            if failed:
                print(f"\n{failed}", file=sys.stderr)
                whole = False
                if not keep_going:
                    break
    return whole


def _run(
    source: Path, target: Path, folder: Path, artifacts: Path, keep_going: bool, keep: bool
) -> object:
    """Execute one notebook; its times go into `folder`. Returns what failed."""
    notebook = jupytext.read(source)
    failed: object = None
    try:
        failed = execute(notebook, source.stem, source.parent, _own(artifacts), keep_going)
    finally:
        times = cell_times.measured(notebook)
        settle(notebook, artifacts)
        if keep or failed:
            target.parent.mkdir(exist_ok=True)
            nbformat.write(notebook, target)
            cell_times.write(folder, {source.stem: times})
    return failed


def _own(artifacts: Path) -> dict[str, str]:
    """The environment in which a run is the course's own, with its artifacts in that folder."""
    others = {name: text for name, text in os.environ.items() if not name.startswith("COURSE_")}
    return {**others, "COURSE_ARTIFACTS": str(artifacts), "COURSE_DIARY": "off"}


if __name__ == "__main__":
    sys.exit(or_stopped(main))
