"""Grade what learners have handed in: `python -m coursekit grade FOLDER`.

Writes `grades.csv` and `grades.html` into the folder, a line for each learner and exercise. Answers
run one at a time, each in a process of its own behind a fence (`fence.py`), on the inputs of the
notebook's check and on those of seeds that learners have not seen.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from random import SystemRandom

_CLEAN = "COURSE_GRADES"  # set in the environment of a grader that has been started anew
_KEPT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m coursekit grade", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder for each learner, or notebooks")
    parser.add_argument("--out", type=Path, help="where the tables go (default: FOLDER)")
    parser.add_argument("--seeds", type=int, nargs="+", help="of hidden inputs (default: drawn)")
    parser.add_argument("--seconds", type=float, default=10, help="for an answer")
    parser.add_argument("--memory", type=int, default=1024, help="MB for an answer")
    options = parser.parse_args()
    if not hasattr(os, "fork"):
        sys.exit("Grading needs Linux or macOS (on Windows: WSL), to run answers behind a fence.")
    _start_without_keys()
    import torch

    torch.set_num_threads(1)  # processes are copies of this one: threads would be missing in them
    from .classroom import grade_all
    from .sandbox import Limits

    seeds = options.seeds or SystemRandom().sample(range(1, 10**6), 3)
    try:
        grade_all(
            options.folder,
            options.out or options.folder,
            seeds,
            Limits(options.seconds, options.memory),
        )
    except (ValueError, OSError) as error:
        sys.exit(f"Nothing was graded: {error}")


def _start_without_keys() -> None:
    """Begin anew without the environment's keys: a process can read what it was started with."""
    if os.environ.get(_CLEAN):
        return
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    arguments = [sys.executable, "-m", __package__, *sys.argv[1:]]
    os.execve(sys.executable, arguments, {**kept, _CLEAN: "clean"})


if __name__ == "__main__":
    main()
