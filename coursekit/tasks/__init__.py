"""Tasks: what only a task can know."""

from .rubric import WrittenRubric, load_rubric
from .task import SPLITS, Metric, Probe, Row, Task

__all__ = [
    "SPLITS",
    "Metric",
    "Probe",
    "Row",
    "Task",
    "WrittenRubric",
    "load_rubric",
]
