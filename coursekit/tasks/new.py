"""A folder to begin a task of your own with: `python -m coursekit new my_task`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import SKELETON, shipped_tasks
from .folder import task_folder


def make_task(folder: str | Path) -> Path:
    """Write the commented files of a small task into `folder`, made if need be; returns it.

    Raises ValueError for a folder that is not empty, and for the name of a shipped task.
    """
    path = task_folder(folder)
    if str(folder) in shipped_tasks():
        raise ValueError(
            f"{folder!r} is a shipped task, which COURSE_TASK={folder} would mean: take another "
            "name for yours"
        )
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        what = "is not empty" if path.is_dir() else "is a file"
        raise ValueError(f"{path} {what}, and nothing is overwritten: name a new folder")
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(
        SKELETON, path, ignore=ignored, copy_function=shutil.copyfile, dirs_exist_ok=True
    )
    return path


def main_new(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m coursekit new", description=__doc__)
    parser.add_argument("folder", help="to make; a relative path counts from the course's folder")
    options = parser.parse_args(argv)
    try:
        path = make_task(options.folder)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{path} holds an example, with comments: put your own prompts and rubric in its place.\n"
        f"What is missing:  python -m coursekit check {options.folder}\n"
        f"To work on it:    set COURSE_TASK={options.folder}, then open the notebooks"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main_new())
