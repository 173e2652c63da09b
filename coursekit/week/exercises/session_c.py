"""The exercises of session C, in the order in which the notebook asks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .diagnosis import Mistake
from .draw import Draw, numbers
from .exercise import Exercise, exercise

# 1. The bootstrap.

_ENDS = numbers(0.025, 0.975)


@exercise(
    title="the bootstrap",
    task=(
        "values, (N,), are the differences between two models, one a prompt. picks, (D, N), holds "
        "for each of D resamples the N places that were drawn, with replacement. Return the two "
        "ends of the 95 % interval of the mean: the 2.5 % and 97.5 % quantiles of the resamples' "
        "means, a tensor of two."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint=(
        "`values[picks]` has shape (D, N). What is one number for each resample? `torch.quantile` "
        "wants its second argument in the dtype of the first: `values.new_tensor([0.025, 0.975])`."
    ),
    cases=lambda draw: [
        (numbers(0, 0, 0.25, -0.25, 1, 0, 0.5, 0.25), draw.integers(200, 8, below=8)),
        (numbers(*[0.0] * 20, *[1.0] * 10), draw.integers(100, 30, below=30)),
        (numbers(0.5, 0.5, 0.5), draw.integers(100, 3, below=3)),
        *[(draw.normals(6), draw.integers(150, 6, below=6)) for _ in range(2)],
        (draw.normals(6).float(), draw.integers(150, 6, below=6)),
    ],
    mistakes=[
        Mistake(
            lambda values, picks: torch.quantile(values, _ENDS.to(values)),
            "these are the quantiles of the *values*: how much prompts differ. Wanted is how much "
            "the *mean* would differ had other prompts been drawn, which shrinks with N.",
        ),
        Mistake(
            lambda values, picks: torch.quantile(
                values[picks].mean(-1), torch.tensor([0.025, 0.975])
            ),
            "torch.quantile wants the quantiles in the dtype of the values, here float64: "
            "torch.tensor([0.025, 0.975], dtype=values.dtype).",
        ),
        Mistake(
            lambda values, picks: torch.quantile(
                values[picks].mean(-1), numbers(0.05, 0.95).to(values)
            ),
            "5 % at either end leave 90 % between them: 2.5 % each for 95 %.",
        ),
        Mistake(
            lambda values, picks: torch.quantile(values[picks].mean(-1), _ENDS.to(values) / 100),
            "these are the quantiles of 0.025 and 0.975 per cent: percentile wants 2.5 and 97.5, "
            "quantile 0.025 and 0.975.",
        ),
        Mistake(
            lambda values, picks: torch.quantile(values[picks].mean(0), _ENDS.to(values)),
            "the mean is taken over the resamples (first axis): one number a *place*. Take it over "
            "the N values of each resample (last axis).",
        ),
        Mistake(
            lambda values, picks: torch.quantile(values[picks].flatten(), _ENDS.to(values)),
            "the quantiles of all values that were drawn: take each resample's *mean* first.",
        ),
        Mistake(
            lambda values, picks: torch.quantile(values[picks].median(-1).values, _ENDS.to(values)),
            "this is the interval of the median; the table shows means.",
        ),
        Mistake(
            lambda values, picks: torch.quantile(values[picks].sum(-1), _ENDS.to(values)),
            "this is the interval of the sum; the table shows means.",
        ),
        Mistake(
            lambda values, picks: torch.stack(
                [values[picks].mean(-1).min(), values[picks].mean(-1).max()]
            ),
            "the smallest and the largest resample: they move apart the more you draw. Take the "
            "2.5 % and 97.5 % quantiles.",
        ),
        Mistake(
            lambda values, picks: (
                values[picks].mean(-1).mean() + _around(1.96) * values[picks].mean(-1).std()
            ),
            "this is the normal formula with the bootstrap's standard error; asked for are the "
            "quantiles themselves, which need not lie evenly about the mean.",
        ),
        Mistake(
            lambda values, picks: (
                values[picks].mean(-1).mean()
                + _around(1.96) * values[picks].mean(-1).std() / len(picks) ** 0.5
            ),
            "the spread of the resamples' means *is* the standard error: divided by the square "
            "root of D it would shrink with more resampling, and more resampling is no evidence.",
        ),
        Mistake(
            lambda values, picks: _paired(values, 1.96),
            "this is the normal formula on the values: the resamples, picks, are not used.",
        ),
    ],
)
def bootstrap_interval(values: torch.Tensor, picks: torch.Tensor) -> torch.Tensor:
    means = values[picks].mean(-1)  # (D,)
    return torch.quantile(means, values.new_tensor([0.025, 0.975]))


# 2. A win rate with ties.


def _rate(preferences: Sequence[float | None], points: Callable[[float], float]) -> float:
    """The mean of the points given to those that are there."""
    there = [points(p) for p in preferences if p is not None]
    return sum(there) / len(there)


def _or_tie(preference: float) -> float:
    return 0.5 if preference == 0 else preference - 1


@exercise(
    title="a win rate with ties",
    task=(
        "preferences come from a file: 1 where the first output is better, 2 where the second is, "
        "0 or 1.5 for a tie, a number between 1 and 2 for a less sure second, None where the judge "
        "gave no answer. Return the win rate of the *second* output: a tie counts half, a less "
        "sure win its share, a missing answer nothing at all."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint=(
        "Turn each preference into points from 0 to 1. Which are left out of the mean? "
        "`[p for p in preferences if p is not None]` are those that are there, ties as 0 included."
    ),
    cases=lambda draw: [
        ([1, 2, 2, 1.5, 0, None, 1.8],),
        ([2, 2, 2, None, None],),
        ([0, 0, 0, 1],),
        ([1.2, 1.2, 1.9, 2],),
        *[([0, None, 1.5, *draw.choices([1, 2, 0, 1.5, None, 1.1, 1.7], k=9)],) for _ in range(3)],
    ],
    mistakes=[
        Mistake(
            lambda preferences: win_rate_of.solution(
                [p for p in preferences if p not in (None, 0, 1.5)]
            ),
            "ties are left out. Then 10 wins, 5 losses and 285 ties are 67 %, as if the models "
            "differed on most prompts: a tie counts half.",
        ),
        Mistake(
            lambda preferences: win_rate_of.solution([p for p in preferences if p]),
            "`if p` also drops the ties that are written as 0: write `if p is not None`.",
        ),
        Mistake(
            lambda preferences: (
                sum(_or_tie(p) for p in preferences if p) / sum(p is not None for p in preferences)
            ),
            "ties that are written as 0 count as losses: they earn half a point, like 1.5. (`if p` "
            "passes over them: write `if p is not None`.)",
        ),
        Mistake(
            lambda preferences: sum(_or_tie(p or 0) for p in preferences) / len(preferences),
            "a missing answer is counted as a tie: a judge that crashes often would pull every "
            "comparison towards 50 %. Leave it out, and say how many there were.",
        ),
        Mistake(
            lambda preferences: (
                sum(_or_tie(p) for p in preferences if p is not None) / len(preferences)
            ),
            "missing answers are still counted below the line, as losses: divide by the number of "
            "those that are there.",
        ),
        Mistake(
            lambda preferences: sum(p == 2 for p in preferences) / len(preferences),
            "only full wins count here, and missing answers and ties count as losses.",
        ),
        Mistake(
            lambda preferences: _rate(preferences, lambda p: p == 2),
            "ties count as losses, and less sure wins too.",
        ),
        Mistake(
            lambda preferences: _rate(preferences, lambda p: p - 1),
            "a 0 becomes -1 point: it is a tie as well (older files write it so), worth half.",
        ),
        Mistake(
            lambda preferences: _rate(
                preferences, lambda p: 0.5 if p in (0, 1.5) else float(p > 1.5)
            ),
            "a less sure win counts in full: 1.8 is worth 0.8 of one.",
        ),
        Mistake(
            lambda preferences: _rate(preferences, lambda p: p / 2 if p else 0.5),
            "points are p - 1, not p / 2: 1 is a loss, worth nothing.",
        ),
        Mistake(
            lambda preferences: _rate(preferences, lambda p: 1 - _or_tie(p)),
            "this is the win rate of the first output.",
        ),
        Mistake(
            lambda preferences: sum(_or_tie(p) for p in preferences) / len(preferences),
            "None - 1 is no number: leave missing answers out before you reckon.",
        ),
    ],
)
def win_rate_of(preferences: list) -> float:
    points = [0.5 if p == 0 else p - 1 for p in preferences if p is not None]
    return sum(points) / len(points)


# 3. Is this difference real?


def _around(standard_errors: float) -> Tensor:
    return numbers(-standard_errors, standard_errors)


def _paired(differences: Tensor, standard_errors: float, correction: int = 1) -> Tensor:
    error = differences.std(correction=correction) / len(differences) ** 0.5
    return differences.mean() + _around(standard_errors) * error


def _unpaired(ours: Tensor, theirs: Tensor) -> Tensor:
    error = (ours.var() / len(ours) + theirs.var() / len(theirs)) ** 0.5
    return ours.mean() - theirs.mean() + _around(1.96) * error


_HARD = torch.linspace(0, 1, 20, dtype=torch.float64)  # how well anyone does on each prompt
_GAIN = torch.tensor([0.05, 0.1, 0.0, 0.05, 0.1] * 4, dtype=torch.float64)


@exercise(
    title="is this difference real?",
    task=(
        "ours and theirs, (N,), are two models' scores on the same N prompts. Return the 95 % "
        "interval of the mean difference, ours minus theirs, by the normal formula (mean plus and "
        "minus 1.96 standard errors), as a tensor of two. The prompts differ in difficulty, which "
        "must not widen it. The standard deviation is that of a sample (N - 1 below the line)."
    ),
    difficulty=3,
    importance=5,
    minutes=10,
    hint=(
        "One difference a prompt first, `ours - theirs`; then the mean and standard error of those "
        "N numbers, `(ours - theirs).std() / len(ours) ** 0.5`."
    ),
    cases=lambda draw: [
        (numbers(1, 1, 0, 1, 1, 0), numbers(1, 0, 0, 1, 0, 1)),
        (_HARD + _GAIN, _HARD),
        (_HARD.flip(0), _HARD * 0.9),
        *[
            (hard + draw.normals(8, mean=0.2, sd=0.1), hard)
            for hard in (draw.uniforms(8), draw.uniforms(8))
        ],
    ],
    mistakes=[
        Mistake(
            _unpaired,
            "this is the formula for two *separate* samples. Both models answered the same "
            "prompts: that some prompts are hard for both drops out of the differences.",
        ),
        Mistake(
            lambda ours, theirs: _paired(ours - theirs, 1.96, correction=0),
            "the standard deviation is divided by N (numpy's default, ddof=0): of a sample it is "
            "N - 1 (ddof=1, and torch's default).",
        ),
        Mistake(
            lambda ours, theirs: (ours - theirs).mean() + _around(1.96) * (ours - theirs).std(),
            "the standard deviation tells how single prompts spread; the *mean's* standard error "
            "is that divided by the square root of N.",
        ),
        Mistake(
            lambda ours, theirs: (
                (ours - theirs).mean() + _around(1.96) * (ours - theirs).std() / len(ours)
            ),
            "divide by the square root of N, not by N.",
        ),
        Mistake(
            lambda ours, theirs: (
                (ours - theirs).mean() + _around(1.96) * (ours - theirs).var() / len(ours) ** 0.5
            ),
            "this is the variance: the standard deviation is its square root.",
        ),
        Mistake(
            lambda ours, theirs: _paired(ours - theirs, 1.0),
            "without 1.96 it is an interval of one standard error: it covers 68 %, not 95 %.",
        ),
        Mistake(
            lambda ours, theirs: _paired(ours - theirs, 1.645),
            "1.645 standard errors cover 90 %: 1.96 for 95 %.",
        ),
        Mistake(
            lambda ours, theirs: _paired(ours - theirs, 2.0),
            "2 standard errors are a rule of thumb: 1.96 for 95 %.",
        ),
        Mistake(
            lambda ours, theirs: _paired(theirs - ours, 1.96),
            "the sign: ours minus theirs.",
        ),
        Mistake(
            lambda ours, theirs: _paired((ours - theirs).abs(), 1.96),
            "the sizes of the differences: a prompt on which theirs is better counts against ours.",
        ),
        Mistake(
            lambda ours, theirs: _around(1.96) * (ours - theirs).std() / len(ours) ** 0.5,
            "the interval lies about 0 here: add the mean difference.",
        ),
        Mistake(
            lambda ours, theirs: torch.quantile(ours - theirs, _ENDS),
            "these are quantiles of the *differences*: how much prompts differ, not how well their "
            "mean is known.",
        ),
    ],
)
def paired_interval(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    differences = ours - theirs
    error = differences.std() / len(differences) ** 0.5
    return torch.stack([differences.mean() - 1.96 * error, differences.mean() + 1.96 * error])


# 4. The judge's taste for length.


def _taste(points: list, longer: list, truth: list, without: str = "") -> float:
    """The solution without some of its conditions: on the truth, the judge's ties, the length."""
    chosen = [
        (p > 0.5) == (d > 0)
        for p, d, t in zip(points, longer, truth, strict=True)
        if (t == 0.5 or "truth" in without)
        and (p != 0.5 or "ties" in without)
        and (d != 0 or "length" in without)
    ]
    return sum(chosen) / len(chosen)


def _comparisons(draw: Draw) -> tuple[list, list, list]:
    """Of each kind at least one, and twelve more."""
    points = [1, 0, 0.5, 1, 1, 0, *draw.choices([1, 1, 0, 0.5], k=12)]
    longer = [9, 7, 5, 0, -8, -3, *draw.choices([40, 25, 8, 0, -10, -20], k=12)]
    truth = [0.5, 0.5, 0.5, 0.5, 1, 0.5, *draw.choices([0.5, 0.5, 1, 0], k=12)]
    return points, longer, truth


@exercise(
    title="the judge's taste for length",
    task=(
        "Of N comparisons you know the points that a judge gave the second response (1 for a win, "
        "0 for a loss, 0.5 for a tie), by how many characters it was longer (negative: shorter), "
        "and the points that it deserved. Return how often the longer response won, where the "
        "judge chose one, the lengths differ, and *in truth they tie*: there nothing but taste can "
        "decide."
    ),
    difficulty=3,
    importance=4,
    minutes=15,
    hint=(
        "Three conditions choose the comparisons. Then: the second won and is longer, or neither. "
        "`list(zip(points, longer, truth))` are the comparisons, "
        "`(points[0] > 0.5) == (longer[0] > 0)` is whether in the first the longer one won."
    ),
    cases=lambda draw: [
        ([1, 0, 0, 1, 1, 0], [5, 5, -3, -7, 9, 4], [0.5, 0.5, 0.5, 0.5, 1, 0.5]),
        (
            [1, 1, 1, 0, 0, 1, 0, 0.5, 1, 0.5, 1, 0],
            [40, 25, -10, 30, -20, 12, -5, 30, 0, 0, 8, 9],
            [1, 0.5, 1, 0, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0.5, 0.5],
        ),
        ([1, 0, 1, 0], [5, -5, 7, -9], [0.5] * 4),
        *[_comparisons(draw) for _ in range(4)],
    ],
    mistakes=[
        Mistake(
            lambda points, longer, truth: _taste(points, longer, truth, "truth"),
            "all pairs are counted, also those in which one response *is* better. If better "
            "responses are longer, a perfect judge looks biased: compare where the truth ties.",
        ),
        Mistake(
            lambda points, longer, truth: (
                sum(
                    p > 0.5
                    for p, d, t in zip(points, longer, truth, strict=True)
                    if t == 0.5 and p != 0.5 and d > 0
                )
                / sum(
                    t == 0.5 and p != 0.5 and d != 0
                    for p, d, t in zip(points, longer, truth, strict=True)
                )
            ),
            "the longer response may also be the *first*: a loss of the second while it is shorter "
            "counts too.",
        ),
        Mistake(
            lambda points, longer, truth: (
                sum(
                    p > 0.5
                    for p, d, t in zip(points, longer, truth, strict=True)
                    if t == 0.5 and p != 0.5 and d > 0
                )
                / sum(
                    t == 0.5 and p != 0.5 and d > 0
                    for p, d, t in zip(points, longer, truth, strict=True)
                )
            ),
            "only comparisons are looked at in which the *second* is longer: where it is shorter "
            "and loses, the longer one has won too.",
        ),
        Mistake(
            lambda points, longer, truth: _taste(points, longer, truth, "ties length"),
            "ties of the judge, or pairs of equal length, are counted: they say nothing about a "
            "taste for length.",
        ),
        Mistake(
            lambda points, longer, truth: _taste(points, longer, truth, "ties"),
            "the judge's ties are counted, as if the second had lost: leave them out.",
        ),
        Mistake(
            lambda points, longer, truth: _taste(points, longer, truth, "length"),
            "pairs of equal length are counted, as if the first were longer: leave them out.",
        ),
        Mistake(
            lambda points, longer, truth: _taste(
                points, longer, [0.5 if t != 0.5 else 1 for t in truth]
            ),
            "the truth's condition is the wrong way round: keep the comparisons whose truth *is* "
            "0.5.",
        ),
        Mistake(
            lambda points, longer, truth: 1 - _taste(points, longer, truth),
            "this is how often the *shorter* response won.",
        ),
        Mistake(
            lambda points, longer, truth: (
                sum(p > 0.5 for p, d, t in _deciding(points, longer, truth))
                / len(_deciding(points, longer, truth))
            ),
            "this is how often the *second* response won, whether it was longer or not.",
        ),
        Mistake(
            lambda points, longer, truth: (
                _taste(points, longer, truth) * len(_deciding(points, longer, truth))
            ),
            "this is the number; asked for is how often, a share.",
        ),
        Mistake(
            lambda points, longer, truth: (
                _taste(points, longer, truth) * len(_deciding(points, longer, truth)) / len(points)
            ),
            "divided by the number of all comparisons: below the line stand those that the three "
            "conditions leave.",
        ),
    ],
)
def length_bias(points: list, longer: list, truth: list) -> float:
    decided = [
        (p > 0.5) == (d > 0)
        for p, d, t in zip(points, longer, truth, strict=True)
        if t == 0.5 and p != 0.5 and d != 0
    ]
    return sum(decided) / len(decided)


def _deciding(points: list, longer: list, truth: list) -> list[tuple[float, float, float]]:
    every = zip(points, longer, truth, strict=True)
    return [(p, d, t) for p, d, t in every if t == 0.5 and p != 0.5 and d != 0]


# 5. Where the gap lied.


def _some_runs(draw: Draw, healthy: int) -> tuple[list[float], list[float], int]:
    """Eight runs: at the limits in gap and win rate, on both sides of them; `healthy` wins."""
    gap = draw.uniform(3, 6)
    runs = [
        *((gap, 0.3), (gap + 0.1, 0.5), (gap - 0.1, 0.2), (gap + 5, 0.1), (gap + 9, 0.56)),
        (gap + 0.2, 0.4),
        (gap / 2, draw.uniform(0.5, 0.6)),
    ]
    runs = draw.sample(runs, len(runs))
    runs.insert(healthy, (gap, 0.7))
    gaps, rates = (list(column) for column in zip(*runs, strict=True))
    return gaps, rates, healthy


def _each(condition: Callable[[float, float, float], bool]) -> Callable[..., list[bool]]:
    """A wrong answer: for each run a condition on its gap, the healthy gap and its win rate."""
    return lambda gaps, win_rates, healthy: [
        condition(gap, gaps[healthy], rate) for gap, rate in zip(gaps, win_rates, strict=True)
    ]


@exercise(
    title="diagnose: where did the gap lie?",
    task=(
        "For some runs you know the final reward gap (held out, in nats, without beta) and the win "
        "rate over SFT; healthy is the index of a run known to be healthy. Return a list: True "
        "for each run whose gap is at least the healthy one's although it *loses* to SFT (win rate "
        "below one half)."
    ),
    difficulty=1,
    importance=5,
    minutes=5,
    hint=(
        "Two conditions, and both must hold. `gaps[healthy]` is the healthy run's gap, "
        "`list(zip(gaps, win_rates))` are the runs."
    ),
    cases=lambda draw: [
        ([5.0, 2.0, 4.0], [0.2, 0.7, 0.5], 1),
        ([2.0, 9.0, 0.1, 30.0, 2.0], [0.7, 0.35, 0.5, 0.02, 0.49], 0),
        ([2.0, 1.0, 3.0], [0.7, 0.3, 0.66], 0),
        *[_some_runs(draw, healthy) for healthy in (0, 2, 4, 6)],
    ],
    mistakes=[
        Mistake(
            _each(lambda gap, healthy, rate: rate < 0.5),
            "a run that loses with a *small* gap was told truly by its gap: it did not lie.",
        ),
        Mistake(
            _each(lambda gap, healthy, rate: gap > healthy),
            "a wide gap alone is no lie: look at the win rate.",
        ),
        Mistake(
            _each(lambda gap, healthy, rate: gap >= healthy),
            "a wide gap alone is no lie: look at the win rate.",
        ),
        Mistake(
            _each(lambda gap, healthy, rate: gap >= healthy or rate < 0.5),
            "`or` where both conditions must hold: `and`.",
        ),
        Mistake(
            _each(lambda gap, healthy, rate: gap > healthy and rate < 0.5),
            "`>` where `>=` is asked for: a gap as wide as the healthy one's is *at least* that.",
        ),
        Mistake(
            _each(lambda gap, healthy, rate: gap < healthy and rate < 0.5),
            "these are the losers whose gap was *small*: it lied where it was wide.",
        ),
        Mistake(
            _each(lambda gap, healthy, rate: gap >= healthy and rate > 0.5),
            "these runs win with a wide gap: it told the truth.",
        ),
        Mistake(
            _each(lambda gap, healthy, rate: gap >= healthy and rate <= 0.5),
            "a win rate of exactly one half is no loss.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: [
                gap >= gaps[healthy] and rate < win_rates[healthy]
                for gap, rate in zip(gaps, win_rates, strict=True)
            ],
            "to win less than the healthy run is not yet to lose: the line is one half.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: gap_lied.solution(gaps, win_rates, 0),
            "the gaps are compared with the first run's: the healthy one is at index `healthy`.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: [
                gap >= healthy and rate < 0.5 for gap, rate in zip(gaps, win_rates, strict=True)
            ],
            "healthy is an index, not a gap: compare with gaps[healthy].",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: [
                gap >= sum(gaps) / len(gaps) and rate < 0.5
                for gap, rate in zip(gaps, win_rates, strict=True)
            ],
            "the gaps are compared with their mean: compare with the healthy run's.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: [
                i for i, lied in enumerate(gap_lied.solution(gaps, win_rates, healthy)) if lied
            ],
            "these are the indices of the runs: return True or False for *each* run.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: sum(gap_lied.solution(gaps, win_rates, healthy)),
            "this is how many: return True or False for *each* run.",
        ),
    ],
)
def gap_lied(gaps: list, win_rates: list, healthy: int) -> list:
    return [gap >= gaps[healthy] and rate < 0.5 for gap, rate in zip(gaps, win_rates, strict=True)]


# 6. How many prompts?


@exercise(
    title="how many prompts?",
    task=(
        "sd is the standard deviation of the points of a win rate on a pilot. Return how many "
        "prompts, a whole number, an interval of plus and minus half_width needs at least."
    ),
    difficulty=2,
    importance=4,
    minutes=5,
    hint=(
        "half_width = 1.96 sd / sqrt(n), so sqrt(n) = `1.96 * sd / half_width`. Solve for n; part "
        "of a prompt cannot be asked: `import math` has ceil, `math.ceil(sd)`."
    ),
    cases=lambda draw: [
        *((0.35, 0.05), (0.35, 0.025), (0.5, 0.1), (0.41, 0.03), (0.5, 0.98)),
        *[(draw.uniform(0.2, 0.5), draw.uniform(0.01, 0.1)) for _ in range(5)],
    ],
    mistakes=[
        Mistake(
            lambda sd, half_width: round((1.96 * sd / half_width) ** 2),
            "rounded down the interval is a little too wide: round up.",
        ),
        Mistake(
            lambda sd, half_width: int((1.96 * sd / half_width) ** 2),
            "int cuts off, so the interval is a little too wide: round up.",
        ),
        Mistake(
            lambda sd, half_width: int((1.96 * sd / half_width) ** 2) + 1,
            "one too many where the number is whole already: math.ceil rounds up only if needed.",
        ),
        Mistake(
            lambda sd, half_width: (1.96 * sd / half_width) ** 2,
            "part of a prompt cannot be asked: round up to a whole number.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil(1.96 * sd / half_width),
            "the half-width shrinks with the square *root* of n: half the width needs four times "
            "the prompts.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil((2 * 1.96 * sd / half_width) ** 2),
            "this takes half_width for the whole width.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil((1.96 * sd / (2 * half_width)) ** 2),
            "half_width is half of the width already: it is not doubled.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil((sd / half_width) ** 2),
            "without 1.96 it is an interval of one standard error: it covers 68 %, not 95 %.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil((1.645 * sd / half_width) ** 2),
            "1.645 standard errors cover 90 %: 1.96 for 95 %.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil(1.96 * (sd / half_width) ** 2),
            "1.96 is squared as well: it stands inside the bracket.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil(1.96**2 * sd / half_width**2),
            "sd is squared as well: n grows with the variance.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil((half_width / (1.96 * sd)) ** 2),
            "the fraction is upside down: the narrower the interval, the more prompts.",
        ),
        Mistake(
            lambda sd, half_width: math.ceil((1.96 * 0.5 / half_width) ** 2),
            "sd is taken as 0.5, which is the most that it can be; with many ties it is less. Use "
            "the pilot's.",
        ),
    ],
)
def prompts_for(sd: float, half_width: float) -> int:
    return math.ceil((1.96 * sd / half_width) ** 2)


EXERCISES = {name: value for name, value in list(globals().items()) if isinstance(value, Exercise)}

QUIZ = [
    (
        "Why does DPO need no reward model?",
        "Under the KL-constrained objective every reward has one optimal policy and, up to a "
        "function of the prompt, every policy is optimal for one reward: beta log(pi / pi_ref). "
        "Bradley-Terry looks at differences within a prompt, so that function cancels, and the "
        "policy's own log-ratios can be fitted to the preferences.",
    ),
    (
        "What does beta do?",
        "It is the price of KL: the optimum lies further from the reference the lower it is. "
        "It also scales the first gradient, which Adam divides out; in short runs the learning "
        "rate decides more.",
    ),
    (
        "What is reward hacking, and what guards against it?",
        "The policy raises the proxy (reward model, implicit reward, a judge's taste) without "
        "what it stands for. KL and early stopping limit how far; only evaluation with another "
        "judge, at equal length, and answers read by people show it.",
    ),
    (
        "KTO against DPO: when?",
        "KTO learns from single responses marked good or bad, which is what products collect; "
        "DPO needs two responses to the same prompt. Given pairs, neither is better in "
        "general: KTO's authors (arXiv:2402.01306) find that it matches or exceeds DPO, and "
        "expect DPO to be ahead only where preferences hold little noise and few "
        "contradictions (section 4.4).",
    ),
    (
        "What does a failing run look like?",
        "Mostly it does not show a small gap. The gap grows, and KL, entropy, length or the "
        "answers show that something is wrong. The gallery above has an example of each.",
    ),
    (
        "What does ORPO change?",
        "It needs no reference and no separate SFT stage. Its loss is the SFT loss on the chosen "
        "response plus a term for the odds ratio, on length-normalised likelihoods.",
    ),
    (
        "How would you build preference data for a regulated domain?",
        "First a written rubric, by those who answer for it. Then prompts from real use that "
        "are cleared for it; two annotators and their kappa; both orders; ties kept; an audit "
        "for length and position; the provenance of every pair; a held-out set that nobody "
        "trains on; a data card.",
    ),
    (
        "Your win rate is 58 % on 50 prompts. What do you say?",
        "That the interval reaches from about 44 to 72 %, so nothing is shown yet. Ask as many "
        "prompts as a power calculation says, or look for a larger effect.",
    ),
]
