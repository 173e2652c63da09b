"""Response against response: how often one model's answer is preferred to another's.

Conventions: a tie counts half; a judge that contradicts itself when the order changes has tied, and
is counted; a missing verdict is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..common.statistics import Estimate, bootstrap_mean
from .judges import Judge
from .judges.judge import POINTS, ask_all


@dataclass(frozen=True)
class WinRate:
    """How often one model's response beat another's: a tie counts half.

    estimate: the win rate with its interval; se: its standard error; wins, ties, losses: counts,
    ties with contradictions between the two orders among them; inconsistent: how many
    contradictions there were; missing: rows without a verdict, not counted in anything else;
    points: for each row 1 for a win, 0.5 for a tie, 0 for a loss, None where there is no verdict.
    """

    estimate: Estimate
    se: float
    wins: int
    ties: int
    losses: int
    inconsistent: int = 0
    missing: int = 0
    points: tuple[float | None, ...] = ()

    @property
    def rated(self) -> tuple[float, ...]:
        """The points of the rows that have a verdict."""
        return tuple(value for value in self.points if value is not None)

    def __str__(self) -> str:
        n = len(self.rated)
        more = [
            f"{count} {name}"
            for count, name in ((self.inconsistent, "contradictory"), (self.missing, "missing"))
            if count
        ]
        return (
            f"win rate {self.estimate.value:.1%} "
            f"[{self.estimate.low:.1%}, {self.estimate.high:.1%}] on {n} prompts "
            f"({', '.join([f'{self.wins} won, {self.ties} tied, {self.losses} lost', *more])})"
        )


def rate_of(points: Sequence[float | None], inconsistent: int = 0) -> WinRate:
    """The win rate from points: 1 for a win, 0 for a loss, between for less sure ones.

    Above one half counts as a win, below as a loss; None is a missing verdict. Raises ValueError
    without any.
    """
    values = np.asarray([value for value in points if value is not None], dtype=float)
    if values.size == 0:
        raise ValueError("no verdict at all: a win rate needs at least one")
    return WinRate(
        estimate=bootstrap_mean(values, within=(0, 1)),
        se=float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan"),
        wins=int((values > 0.5).sum()),
        ties=int((values == 0.5).sum()),
        losses=int((values < 0.5).sum()),
        inconsistent=inconsistent,
        missing=len(points) - len(values),
        points=tuple(None if value is None else float(value) for value in points),
    )


def win_rate(
    rows: Sequence[Mapping[str, Any]],
    candidate: Sequence[str],
    baseline: Sequence[str],
    judge: Judge,
) -> WinRate:
    """Compare two models' responses to the same rows, prompt by prompt, in both orders."""
    verdicts = ask_all(judge, list(zip(rows, candidate, baseline, strict=True)))
    points = [POINTS[verdict.winner] for verdict in verdicts]
    return rate_of(points, inconsistent=sum(not verdict.consistent for verdict in verdicts))


def moved_by(found: WinRate, truth: WinRate) -> Estimate:
    """How far a judge moves a win rate: `found` minus `truth`, on the prompts that both rated.

    Raises ValueError if there is no such prompt.
    """
    pairs = zip(found.points, truth.points, strict=True)
    moves = [given - right for given, right in pairs if given is not None and right is not None]
    return bootstrap_mean(moves, within=(-1, 1))


def all_pairs(
    rows: Sequence[Mapping[str, Any]], responses: Mapping[str, Sequence[str]], judge: Judge
) -> pd.DataFrame:
    """Every model against every other: a line each, with the win rate of the later one.

    Columns `model`, `against`, `win_rate`, `low`, `high`, `se`, `won`, `tied`, `lost`,
    `contradictory`, `missing`.
    """
    names = list(responses)
    lines = []
    for place, against in enumerate(names):
        for model in names[place + 1 :]:
            result = win_rate(rows, responses[model], responses[against], judge)
            lines.append(
                {
                    "model": model,
                    "against": against,
                    "win_rate": result.estimate.value,
                    "low": result.estimate.low,
                    "high": result.estimate.high,
                    "se": result.se,
                    "won": result.wins,
                    "tied": result.ties,
                    "lost": result.losses,
                    "contradictory": result.inconsistent,
                    "missing": result.missing,
                }
            )
    return pd.DataFrame(lines)
