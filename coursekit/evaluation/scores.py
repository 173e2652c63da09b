"""What every model scores on every prompt: one plain data frame, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..tasks import Task
from .judges import Judge
from .win_rates import win_rate


def score_responses(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    responses: Mapping[str, Sequence[str]],
    *,
    judge: Judge | None = None,
    against: str | None = None,
) -> pd.DataFrame:
    """The scores of every model on every row, one line each.

    Args:
        rows: N rows of the task.
        responses: for each model's name, its N responses.
        judge, against: with both, a column `preferred` as well: 1 where the judge prefers the
            model's response to that of the model `against`, 0.5 for a tie, else 0.

    Returns:
        Columns `model`, `row`, the task's metrics, with `overall` where a program knows the truth;
        `preferred`.
    """
    preferred = {
        name: win_rate(rows, texts, responses[against], judge).points if judge and against else ()
        for name, texts in responses.items()
    }
    records = []
    for model, texts in responses.items():
        for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
            judged = {"preferred": preferred[model][index]} if preferred[model] else {}
            records.append({"model": model, "row": index, **task.score(row, text), **judged})
    return pd.DataFrame(records)


def copy_accuracy(task: Task, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> pd.Series:
    """For each fact that a response has to repeat, the share of responses that give it right."""
    right = [task.copied(row, text) for row, text in zip(rows, texts, strict=True)]
    return pd.DataFrame(right).mean()


def with_faults(task: Task, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[int]:
    """The numbers of the rows whose response is not faultless; of all where nobody knows."""
    return [
        number
        for number, (row, text) in enumerate(zip(rows, texts, strict=True))
        if not task.knows_truth or task.truth(row, text) < 1
    ]
