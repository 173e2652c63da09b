"""Tasks: what only a task can know. `COURSE_TASK` chooses one."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from .contents import FILES
from .folder import FolderTask, read_task, task_folder
from .problems import Problem
from .rubric import Rubric, load_rubric
from .settings import FILE
from .task import SPLITS, Metric, Probe, Row, Task, with_references

__all__ = [
    "DEFAULT",
    "SPLITS",
    "FolderTask",
    "Metric",
    "Probe",
    "Problem",
    "Row",
    "Rubric",
    "Task",
    "find_folder",
    "load_rubric",
    "load_task",
    "read_task",
    "shipped_tasks",
    "with_references",
]

_HERE = Path(__file__).parent
DEFAULT, SKELETON = "triage", _HERE / "skeleton"


def load_task(name: str | Path | None = None) -> Task:
    """The task called `name`, or in the folder `name`; without, what `COURSE_TASK` says; without
    that, triage.

    A relative path counts from where `profile.folder_of` says. A folder is read again only when one
    of its files has changed.

    Raises ValueError for what is neither, and for a folder that is no task: file, line and remedy.
    """
    wanted = str(name or os.environ.get("COURSE_TASK") or DEFAULT)
    if wanted == DEFAULT:
        from .triage import TRIAGE

        return TRIAGE
    folder = find_folder(wanted)
    if not folder.is_dir():
        said = f"COURSE_TASK is {wanted!r}" if name is None else f"the task {wanted!r}"
        raise ValueError(
            f"{said}{',' if name is None else ' is'} neither a shipped task "
            f"({', '.join(shipped_tasks())}) nor a folder ({folder} is not there): correct it, or "
            f"write a task there: python -m coursekit new {wanted}"
        )
    return _read(folder, _state(folder))


def find_folder(name: str | Path) -> Path:
    """Of a shipped task, or the folder `name`; it may not be there."""
    return _HERE / name if str(name) in shipped_tasks() else task_folder(name)


def shipped_tasks() -> list[str]:
    """The names of the tasks that come with the course."""
    folders = (path.parent for path in _HERE.glob(f"*/{FILE}"))
    return [DEFAULT, *sorted(folder.name for folder in folders if folder != SKELETON)]


@lru_cache(maxsize=8)
def _read(folder: Path, state: tuple[tuple[str, int, int], ...]) -> Task:
    return read_task(folder)


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of each file of the task."""
    stats = [(name, (folder / name).stat()) for name in FILES if (folder / name).is_file()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
