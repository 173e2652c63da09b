"""Preferences that someone else has annotated, and the win rate with length held equal.

Rows as AlpacaEval writes them: an `instruction`, `output_1`, `output_2` and a `preference`: 1 where
the first output is better, 2 where the second is, 0 or 1.5 for a tie, a number between 1 and 2 for
a less sure second, null where the judge gave no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import json_rows, read_text, shorten
from ..common.statistics import Estimate, bootstrap
from .win_rates import WinRate, rate_of

NEEDED = ("output_1", "output_2", "preference")


@dataclass(frozen=True)
class Annotation:
    """One comparison. points: of the second output, 0 to 1; None where the verdict is missing."""

    instruction: str
    output_1: str
    output_2: str
    points: float | None


def read_annotations(path: str | Path) -> list[Annotation]:
    """Annotations from a JSON list, or JSON Lines.

    Raises ValueError, with the number of the line or row, for what is no annotation.
    """
    rows = json_rows(read_text(path), path)
    if not rows:
        raise ValueError(f"{path} holds no annotation: write one object a line, or a list of them")
    for row in rows:
        if isinstance(row, ValueError):
            raise row
    return [parse_annotation(row, f"{path}, row {number}") for number, row in enumerate(rows, 1)]


def parse_annotation(row: Mapping[str, Any], where: str = "the row") -> Annotation:
    """One annotation, checked. Raises ValueError that names `where`, the column and the fix."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where} is {type(row).__name__}: wanted an object with {NEEDED}")
    if lacking := [name for name in NEEDED if name not in row]:
        raise ValueError(f"{where} has no {' and no '.join(lacking)}: add it (null if missing)")
    for name in ("output_1", "output_2"):
        if not isinstance(row[name], str):
            raise ValueError(f"{where}: {name} is {shorten(repr(row[name]), 60)}, wanted a text")
    points = _points(row["preference"], where)
    return Annotation(str(row.get("instruction", "")), row["output_1"], row["output_2"], points)


def _points(given: Any, where: str) -> float | None:
    """What a preference gives the second output; NaN, as pandas writes null, gives nothing."""
    if given is None or given != given:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError(
            f"{where}: preference is {shorten(repr(given), 60)}, wanted a number from 1 to 2"
        )
    if given != 0 and not 1 <= given <= 2:
        raise ValueError(
            f"{where}: preference is {shorten(str(given), 20)}: wanted 1 (first), 2 (second), 0 or "
            "1.5 (tie), between 1 and 2 where it is less sure, or null"
        )
    return 0.5 if given == 0 else float(given - 1)


def from_win_rate(
    rows: Sequence[Mapping[str, Any]],
    candidate: Sequence[str],
    baseline: Sequence[str],
    result: WinRate,
) -> list[Annotation]:
    """The comparison that `win_rate` made, as annotations with the candidate second."""
    return [
        Annotation(row["prompt"], theirs, ours, points)
        for row, ours, theirs, points in zip(rows, candidate, baseline, result.points, strict=True)
    ]


def annotated_win_rate(annotations: Sequence[Annotation]) -> WinRate:
    """The win rate of the second outputs. Raises ValueError if every verdict is missing."""
    return rate_of([item.points for item in annotations])


def length_controlled(
    annotations: Sequence[Annotation], draws: int = 1000, seed: int = 0
) -> Estimate:
    """The win rate that the second outputs would have were both equally long.

    A logistic regression of the points on the difference in length,
        P(second preferred) = sigmoid(a + b tanh(d / s)),
    with d = characters of output_2 less those of output_1 and s its standard deviation, read at
    d = 0: sigmoid(a). Dubois et al. 2024, "Length-Controlled AlpacaEval", arXiv:2404.04475,
    equation 2, without its term for how hard an instruction is, which one comparison of two models
    cannot tell. Where no length differs it is the plain win rate.

    The interval is a percentile bootstrap over the annotations. What length *causes* it cannot
    know: if longer answers are also better ones, part of that counts as length.

    Raises ValueError if fewer than two verdicts are there.
    """
    rated = [item for item in annotations if item.points is not None]
    if len(rated) < 2:
        raise ValueError(f"{len(rated)} verdicts: a regression on length needs at least two")
    points = np.array([item.points for item in rated])  # (N,)
    longer = np.array([len(item.output_2) - len(item.output_1) for item in rated], dtype=float)
    scale = longer.std()
    inputs = np.stack([np.ones_like(longer), np.tanh(longer / scale) if scale else longer], -1)
    value = _at_equal_length(inputs, points, np.ones_like(points))
    ends = bootstrap(
        lambda taken: [_at_equal_length(inputs, points, weights) for weights in taken],
        len(points),
        draws=draws,
        seed=seed,
    )
    return Estimate(value, *ends)


def _at_equal_length(inputs: np.ndarray, points: np.ndarray, weights: np.ndarray) -> float:
    """sigmoid(a) of the weighted logistic regression, by Newton's method.

    inputs: (N, 2), ones and lengths; points, weights: (N,). A weak prior (one thousandth of an
    observation) keeps a and b finite where length tells everything.
    """
    ridge = 1e-3 * np.eye(2)
    weight = np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ weight, -30, 30)))  # (N,)
        gradient = inputs.T @ (weights * (points - chance)) - ridge @ weight
        hessian = (inputs * (weights * chance * (1 - chance))[:, None]).T @ inputs + ridge
        step = np.linalg.solve(hessian, gradient)
        weight = weight + np.clip(step, -2, 2)  # far from the optimum a whole step overshoots
        if np.abs(step).max() < 1e-9:
            break
    return float(1 / (1 + np.exp(-weight[0])))
