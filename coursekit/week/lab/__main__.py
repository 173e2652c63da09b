"""Run a study and record it: `python -m coursekit study frontier`.

What is finished is kept, a stopped study goes on. The record is one small JSON file without texts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...workspace import Workspace
from .studies import (
    EVALUATION,
    QUICK_PROMPTS,
    STUDIES,
    Cell,
    Study,
    at_best_rates,
    cells_of,
    shortened,
)

if TYPE_CHECKING:
    from .start import Start


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m coursekit study",
        description=__doc__.split("\n")[0],
        epilog="\n".join(f"{name:10} {study.question}" for name, study in STUDIES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--workers", type=int, help="cells side by side (default: the profile's)")
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument(
        "--check", action="store_true", help="run one cell of the record again, and compare"
    )
    parser.add_argument("--out", type=Path, help="the record (default: beside the runs)")
    options = parser.parse_args()
    try:
        workspace = Workspace()
        if options.check:
            agrees, said = check(workspace, options.study)
            print(said)
            sys.exit(0 if agrees else f"That is not what {options.study} recorded.")
        workers = options.workers or workspace.profile.threads or 1
        seeds = range(1 if options.quick else options.seeds)
        path = run_study(workspace, options.study, seeds, workers, options.quick, options.out)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    print(path)


def run_study(
    workspace: Workspace,
    name: str,
    seeds: range,
    workers: int,
    quick: bool = False,
    out: Path | None = None,
) -> Path:
    """Run what is missing of a study, and write its record: where it lies.

    Raises ValueError for a task whose truth no program knows.
    """
    if not workspace.task.knows_truth:
        raise ValueError(f"no program knows the truth of {workspace.task.name}: nothing to measure")
    from .record import save_record
    from .sweep import run_cells

    study, folder = STUDIES[name], workspace.folder / "lab"
    curves = [shortened(curve) for curve in study.curves()] if quick else study.curves()
    kind = f"{name}-quick" if quick else name
    if study.search:
        starts = _starts(workspace, study, range(1), quick, split="validation")
        cells = cells_of(curves, range(1), study.times)
        path = folder / f"{kind}-search.jsonl"
        curves = at_best_rates(run_cells(cells, starts, path, workers=workers, tell=_tell))
    starts = _starts(workspace, study, seeds, quick)
    cells = cells_of(curves, seeds, study.times)
    path = folder / f"{kind}.jsonl"
    results = run_cells(cells, starts, path, workers=workers, tell=_tell)
    return save_record(results, starts, out or folder / f"{kind}.json")


def check(workspace: Workspace, name: str) -> tuple[bool, str]:
    """Run the first trained cell of a study's record again; see `record.compare_runs`."""
    from .record import compare_runs, load_record
    from .sweep import run_cells

    then = next(cell for cell in load_record(name)["cells"] if cell["answered"])
    cell = Cell(*(then[field] for field in ("curve", "method", "settings", "seed", "times")))
    starts = _starts(workspace, STUDIES[name], range(cell.seed, cell.seed + 1), quick=False)
    (now,) = run_cells([cell], starts, path=None)
    return compare_runs(now, then)


def _starts(
    workspace: Workspace, study: Study, seeds: range, quick: bool, split: str = "evaluation"
) -> dict[int, Start]:
    from .start import prepare

    sizes = (QUICK_PROMPTS, QUICK_PROMPTS) if quick else (study.prompts, EVALUATION)
    return {
        seed: prepare(workspace, seed, prompts=sizes[0], evaluation=sizes[1], split=split)
        for seed in seeds
    }


def _tell(result: dict[str, Any], left: int, seconds: float) -> None:
    """A line a finished cell, in a log as on a terminal."""
    last = result["points"][-1]
    print(
        f"{result['curve']}, seed {result['seed']}: reward {last['reward']:.3f} at a KL of "
        f"{last['kl']:.2f} nats, {result['seconds'] + result['measuring']:.0f} s of computing; "
        f"{left} left, about {seconds / 60:.0f} min",
        flush=True,
    )


if __name__ == "__main__":
    main()
