"""Execute the notebooks and say what changed since they were shipped: `python -m coursekit drift`.

Exit status: 0 if nothing did but noise, 1 for drift, 2 if it could not be found out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import nbformat

from ...common.profile import artifacts_folder
from .. import cell_times
from ..regenerate import chosen, rerun
from ..run_course import or_stopped
from ..saved import settle
from ..sources import NOTEBOOKS, notebook_in
from .compare import Comparison, compare, slower
from .page import in_short, page


def main(notebooks: Path = NOTEBOOKS) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only",
        default="",
        help="compare the notebooks whose names begin so; those before run too",
    )
    parser.add_argument("--out", type=Path, help="the HTML page (default: artifacts/drift.html)")
    parser.add_argument(
        "--executed", type=Path, help="a folder of executed notebooks to compare; runs nothing"
    )
    parser.add_argument(
        "--exact", action="store_true", help="any difference is drift: on the machine that shipped"
    )
    options = parser.parse_args()
    executed = options.executed or artifacts_folder() / "drift"
    if not options.executed and not rerun(executed, options.only, True, notebooks):
        return 2
    comparisons = compare_folders(notebooks, executed, options.only, options.exact)
    out = options.out or artifacts_folder() / "drift.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(comparisons), encoding="utf-8")
    print("\n".join(map(in_short, comparisons)))
    print(f"The whole report, with both figures where they differ: {out}")
    return int(any(comparison.drift for comparison in comparisons))


def compare_folders(
    shipped: Path, executed: Path, only: str = "", exact: bool = False
) -> list[Comparison]:
    """Compare the notebooks of two folders, and the times of their cells where both have them.

    exact: whether whatever differs is drift.
    """
    times = cell_times.latest(shipped), cell_times.latest(executed)
    comparisons = []
    for source in chosen(only, shipped):
        pair = [_read(notebook_in(folder, source, shipped)) for folder in (shipped, executed)]
        comparison = compare(source.stem, *pair)
        findings = comparison.findings + slower(*(each.get(source.stem, {}) for each in times))
        if exact:
            findings = [replace(finding, noise=False) for finding in findings]
        comparisons.append(replace(comparison, findings=findings))
    return comparisons


def _read(path: Path) -> nbformat.NotebookNode:
    if not path.is_file():
        print(f"There is no executed notebook {path}.", file=sys.stderr)
        sys.exit(2)
    notebook = nbformat.read(path, as_version=4)
    settle(notebook)
    return notebook


if __name__ == "__main__":
    sys.exit(or_stopped(main))
