"""The rubric as a judge: a stand-in for a strong LLM, free and offline, as careless as one asks."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...tasks.triage import Alert, alerts, policy, reports, score_report
from ...tasks.triage import scoring as rubric
from .judge import Winner, identity_of, source_of


@dataclass(frozen=True)
class RubricJudge:
    """Prefers the report with the higher overall score on the row's alert; equal scores tie.

    Faults can be turned up, to see what a careless judge does to the data:

    error_rate: share of pairs on which it holds the wrong opinion, 0 to 0.5. An opinion is about
        the pair: asked in the other order, the judge errs the same way. Which pairs, `seed` says.
    length_bias: points of the overall score that 100 characters more are worth to it.
    position_bias: points that being shown first is worth to it.

    Raises ValueError for an error rate outside 0 to 0.5.
    """

    name: str = "rubric"
    error_rate: float = 0.0
    length_bias: float = 0.0
    position_bias: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.error_rate <= 0.5:
            raise ValueError(
                f"error_rate is {self.error_rate}: give a share from 0 to 0.5, where verdicts say "
                "nothing; a judge that is worse than that is a good one with its labels swapped"
            )

    @property
    def identity(self) -> str:
        """Name, faults, and the programs that score and compare."""
        here = sys.modules[__name__]
        programs = source_of(alerts, policy, reports, rubric, here, type(self).compare)
        kind = type(self).__qualname__
        return identity_of(self.name, kind, asdict(self), programs)

    def score(self, row: Mapping[str, Any], response: str) -> float:
        """The rubric's overall score of `response`, 0 to 1, without the judge's faults."""
        return score_report(Alert(**row["alert"]), response).overall

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        difference = self.score(row, first) - self.score(row, second)
        difference += self.length_bias * (len(first) - len(second)) / 100 + self.position_bias
        if abs(difference) < 1e-9:
            return "tie"
        if self._errs(row, first, second):
            difference = -difference
        return "first" if difference > 0 else "second"

    def _errs(self, row: Mapping[str, Any], first: str, second: str) -> bool:
        """Whether this pair is one on which the judge is wrong: the same in both orders."""
        if self.error_rate == 0:
            return False
        text = "\0".join([str(self.seed), row["prompt"], *sorted((first, second))])
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        return draw < self.error_rate
