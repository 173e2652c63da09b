"""The rubric as a judge: a stand-in for a strong LLM, free and offline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..triage import Alert, score_report
from .judge import Winner


@dataclass(frozen=True)
class RubricJudge:
    """Prefers the report with the higher overall score on the row's alert; equal scores tie."""

    name: str = "rubric"

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        alert = Alert(**row["alert"])
        difference = score_report(alert, first).overall - score_report(alert, second).overall
        if abs(difference) < 1e-9:
            return "tie"
        return "first" if difference > 0 else "second"
