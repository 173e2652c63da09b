"""Intervals, tests and sample sizes: what a difference on so many prompts can show.

Everything is for 95 %, and paired wherever two models answered the same prompts: how hard a prompt
is then drops out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    statistic: Callable[[np.ndarray], Sequence[float] | np.ndarray],
    n: int | np.ndarray,
    *,
    draws: int,
    seed: int,
    tail: float = 0.025,
) -> tuple[float, float]:
    """The ends of a statistic's percentile bootstrap interval (Efron 1979).

    Resampling is drawing how often each item is taken: cheaper than an index for each draw. An item
    is whatever stands for itself: a prompt, or a whole run, whose points are no independent ones.

    Args:
        statistic: its values (draws,) from how often each of K items was taken (draws, K). NaN
            where a resample has none; such are left out, and if all are, so are both ends.
        n: K items, each seen once; or how often each of K kinds of item was seen.
        tail: the share to leave out at either end.
    """
    seen = np.ones(n) if isinstance(n, int) else np.asarray(n, dtype=float)  # (K,)
    total = seen.sum()
    taken = np.random.default_rng(seed).multinomial(int(total), seen / total, size=draws)
    values = np.asarray(statistic(taken), dtype=float)
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [tail, 1 - tail]) if values.size else (np.nan, np.nan)
    return float(low), float(high)


def bootstrap_mean(
    values: Sequence[float],
    seed: int = 0,
    draws: int = 10_000,
    within: tuple[float, float] | None = None,
) -> Estimate:
    """The mean and its `bootstrap` interval. For paired data: of the differences.

    The plain percentiles are too narrow for small N, by sqrt((N - 1) / N) and by taking the normal
    distribution for Student's; they are moved outwards by as much (Hesterberg 2015,
    arXiv:1411.5279, "expanded percentile").

    Args:
        values: N numbers.
        within: the least and the greatest that a value could be. Where all N are equal, resampling
            shows no spread at all; the interval then says how common another value may still be
            (Clopper and Pearson 1934: a share of 1 - 0.025^(1/N)). Without, it has no width.

    Raises ValueError if there are no values.
    """
    values = np.asarray(values, dtype=float)  # (N,)
    n = values.size
    if n == 0:
        raise ValueError("no values: an interval needs at least one")
    if within and (values == values[0]).all():
        unseen, value = 1 - 0.025 ** (1 / n), float(values[0])
        least, greatest = within
        return Estimate(
            value, value - unseen * (value - least), value + unseen * (greatest - value)
        )
    counted = Counter(values.tolist())  # points of a win rate are of three kinds, however many
    kinds, seen = np.array(list(counted)), np.array(list(counted.values()))
    ends = bootstrap(
        lambda taken: taken @ kinds / n, seen, draws=draws, seed=seed, tail=_expanded_tail(n)
    )
    return Estimate(float(values.mean()), *ends)


def _expanded_tail(n: int) -> float:
    """The share to cut off at either end: 0.025 for many values, less for few."""
    from scipy.stats import norm, t

    return float(norm.cdf(math.sqrt(n / (n - 1)) * t.ppf(0.025, n - 1))) if n > 1 else 0.025


def mcnemar(candidate: Sequence[float], baseline: Sequence[float]) -> float:
    """The p-value of McNemar's exact test (McNemar 1947): do two models differ on a yes/no metric?

    Only prompts on which one is right and the other wrong tell anything; if neither model were
    better, each of those would be a coin flip.

    Args:
        candidate, baseline: N zeros and ones, for the same prompts.

    Raises ValueError for other values or lengths.
    """
    from scipy.stats import binomtest

    ours, theirs = np.asarray(candidate, dtype=float), np.asarray(baseline, dtype=float)
    if ours.shape != theirs.shape or not np.isin([*ours, *theirs], [0, 1]).all():
        raise ValueError("McNemar's test wants a 0 or 1 of each model for each prompt")
    gained, lost = int((ours > theirs).sum()), int((ours < theirs).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained != lost else 1.0


def prompts_needed(values: Sequence[float], difference: float, power: float = 0.8) -> int:
    """How many prompts show a mean difference of that size in a share `power` of all evaluations.

    "Show" means that the 95 % interval leaves out zero. Normal approximation:
    N = (1.96 + z_power)^2 s^2 / difference^2, with s the standard deviation of `values`, which are
    paired differences (or points of a win rate) of a pilot.

    Raises ValueError for fewer than two values, or a difference or power that makes no sense.
    """
    from statistics import NormalDist

    values = np.asarray(values, dtype=float)
    if values.size < 2:
        raise ValueError(f"{values.size} values: their spread needs at least two")
    if not difference > 0 or not 0.5 <= power < 1:
        raise ValueError(
            f"difference {difference}, power {power}: wanted above 0, and at least 0.5 below 1"
        )
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(power)
    return max(2, math.ceil((z * values.std(ddof=1) / difference) ** 2))
