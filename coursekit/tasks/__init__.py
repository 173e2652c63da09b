"""Tasks: what only a task can know."""

from __future__ import annotations

import os

from .rubric import WrittenRubric, load_rubric
from .task import SPLITS, Metric, Probe, Row, Task, with_references

__all__ = [
    "SPLITS",
    "Metric",
    "Probe",
    "Row",
    "Task",
    "WrittenRubric",
    "load_rubric",
    "load_task",
    "with_references",
]


def load_task(name: str | None = None) -> Task:
    name = name or os.environ.get("COURSE_TASK") or "triage"
    from .triage import TRIAGE

    return TRIAGE
