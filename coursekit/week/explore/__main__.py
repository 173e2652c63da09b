"""A run at a glance, as one HTML file: `python -m coursekit explore [--out FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...workspace import Workspace
from . import facts, write_page


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m coursekit explore",
        description="Write what is there of the run of COURSE_TASK and COURSE_PROFILE, as one "
        "HTML file that needs no network. Nothing is made or trained.",
    )
    parser.add_argument("--out", type=Path, help="the file (default: explore.html beside the run)")
    options = parser.parse_args()
    try:
        path, glance = write_page(Workspace(), options.out)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    for fact in facts(glance):
        print("⚑" if fact.is_alarming else "·", fact.sentence)
    for sentence in glance.missing:
        print("not shown:", sentence)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
