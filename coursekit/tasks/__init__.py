"""Tasks: what only a task can know."""

from .task import SPLITS, Metric, Probe, Row, Task

__all__ = ["SPLITS", "Metric", "Probe", "Row", "Task"]
