"""What every model scores on every prompt: one plain data frame, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..tasks.triage import Alert, fact_accuracy, parse_report, score_report
from ..tasks.triage.reports import UNKNOWN
from .judges import Judge
from .win_rates import win_rate

# Need no truth, only the text: any project has such. All others need to know what is right: here
# the rubric does, elsewhere a person or a strong LLM.
HEURISTICS = ("format", "names a cause", "length")


def score_responses(
    rows: Sequence[Mapping[str, Any]],
    responses: Mapping[str, Sequence[str]],
    *,
    judge: Judge | None = None,
    against: str | None = None,
) -> pd.DataFrame:
    """The scores of every model on every row, one line each.

    Args:
        rows: N rows with `prompt` and `alert`.
        responses: for each model's name, its N responses.
        judge, against: with both, a column `preferred` as well: 1 where the judge prefers the
            model's response to that of the model `against`, 0.5 for a tie, else 0.

    Returns:
        Columns `model`, `row`; `format`, `names a cause` (1 if the report gives one, right or
        wrong), `length` (characters); the rubric's `severity`, `faithfulness`, `usefulness` and
        `overall`; `preferred`.
    """
    preferred = {
        name: win_rate(rows, texts, responses[against], judge).points if judge and against else ()
        for name, texts in responses.items()
    }
    records = []
    for model, texts in responses.items():
        for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
            scores = score_report(Alert(**row["alert"]), text).to_dict()
            cause = parse_report(text).values.get("cause", UNKNOWN)
            records.append(
                {
                    "model": model,
                    "row": index,
                    "format": scores.pop("format"),
                    "names a cause": float(cause != UNKNOWN),
                    "length": len(text),
                    **scores,
                    **({"preferred": preferred[model][index]} if preferred[model] else {}),
                }
            )
    return pd.DataFrame(records)


def copy_accuracy(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> pd.Series:
    """For each fact of the alert, the share of reports that give it right."""
    right = [
        fact_accuracy(Alert(**row["alert"]), text) for row, text in zip(rows, texts, strict=True)
    ]
    return pd.DataFrame(right).mean()
