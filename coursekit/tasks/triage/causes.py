"""Does an alert name a cause, and does a report say one, or that it is unknown?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .task import alert_of

Rows = Sequence[Mapping[str, Any]]


def kind_of(row: Mapping[str, Any]) -> str:
    """What a row's alert says of a cause: `names a change` or `names none`."""
    return "names a change" if alert_of(row).change else "names none"


def says_unknown(report: str) -> bool:
    return "cause: unknown" in report


def unknown_by_alert(rows: Rows, answers: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """How often each model says that the cause is unknown: by kind of alert, a column a model.

    answers: for each model's name, an answer to each row.
    """
    kinds = [kind_of(row) for row in rows]
    said = {name: [says_unknown(text) for text in texts] for name, texts in answers.items()}
    return pd.DataFrame(said).groupby(kinds).mean().rename_axis("alert")


def lessons_on_unknown(triples: Rows) -> pd.DataFrame:
    """How many pairs teach that "unknown" is right, or that it is wrong: a line a kind of alert.

    Columns `pairs`, `only the chosen says unknown`, `only the rejected does`.
    """
    kinds = [kind_of(row) for row in triples]
    sides = [(says_unknown(row["chosen"]), says_unknown(row["rejected"])) for row in triples]
    lessons = {
        "pairs": [1 for _ in sides],
        "only the chosen says unknown": [int(chosen > rejected) for chosen, rejected in sides],
        "only the rejected does": [int(rejected > chosen) for chosen, rejected in sides],
    }
    return pd.DataFrame(lessons).groupby(kinds).sum().rename_axis("alert")
