"""The exercises of session C, in the order in which the notebook asks them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .exercise import Exercise, Mistake


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# 1. The bootstrap.


def _bootstrap_interval(values: Tensor, picks: Tensor) -> Tensor:
    means = values[picks].mean(-1)  # (D,)
    return torch.quantile(means, _numbers(0.025, 0.975))


def _picked(n: int, draws: int = 400, seed: int = 0) -> Tensor:
    return torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))


bootstrap_interval = Exercise(
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
    hint="values[picks] has shape (D, N). What is one number for each resample?",
    solution=_bootstrap_interval,
    cases=[
        (_numbers(0, 0, 0.25, -0.25, 1, 0, 0.5, 0.25), _picked(8)),
        (_numbers(*[0.0] * 20, *[1.0] * 10), _picked(30, seed=1)),
        (_numbers(0.5, 0.5, 0.5), _picked(3)),
    ],
    mistakes=[
        Mistake(
            lambda values, picks: torch.quantile(values, _numbers(0.025, 0.975)),
            "these are the quantiles of the *values*: how much prompts differ. Wanted is how much "
            "the *mean* would differ had other prompts been drawn, which shrinks with N.",
        ),
        Mistake(
            lambda values, picks: torch.quantile(values[picks].mean(-1), _numbers(0.05, 0.95)),
            "5 % at either end leave 90 % between them: 2.5 % each for 95 %.",
        ),
        Mistake(
            lambda values, picks: torch.quantile(values[picks].mean(0), _numbers(0.025, 0.975)),
            "the mean is taken over the resamples (first axis): one number a *place*. Take it over "
            "the N values of each resample (last axis).",
        ),
        Mistake(
            lambda values, picks: torch.quantile(
                values[picks].median(-1).values, _numbers(0.025, 0.975)
            ),
            "this is the interval of the median; the table shows means.",
        ),
        Mistake(
            lambda values, picks: (
                values[picks].mean(-1).mean()
                + _numbers(-1.96, 1.96) * values[picks].mean(-1).std() / len(picks) ** 0.5
            ),
            "the spread of the resamples' means *is* the standard error: divided by the square "
            "root of D it would shrink with more resampling, and more resampling is no evidence.",
        ),
    ],
)


# 2. A win rate with ties.


def _win_rate(preferences: Sequence[float | None]) -> float:
    points = [0.5 if p == 0 else p - 1 for p in preferences if p is not None]
    return sum(points) / len(points)


def _without_ties(preferences: Sequence[float | None]) -> float:
    decided = [p for p in preferences if p not in (None, 0, 1.5)]
    return _win_rate(decided)


win_rate = Exercise(
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
    hint="Turn each preference into points from 0 to 1. Which are left out of the mean?",
    solution=_win_rate,
    cases=[
        ([1, 2, 2, 1.5, 0, None, 1.8],),
        ([2, 2, 2, None, None],),
        ([0, 0, 0, 1],),
        ([1.2, 1.2, 1.9, 2],),
    ],
    mistakes=[
        Mistake(
            _without_ties,
            "ties are left out. Then 10 wins, 5 losses and 285 ties are 67 %, as if the models "
            "differed on most prompts: a tie counts half.",
        ),
        Mistake(
            lambda preferences: (
                sum(0.5 if p in (None, 0) else p - 1 for p in preferences) / len(preferences)
            ),
            "a missing answer is counted as a tie: a judge that crashes often would pull every "
            "comparison towards 50 %. Leave it out, and say how many there were.",
        ),
        Mistake(
            lambda preferences: sum(p == 2 for p in preferences) / len(preferences),
            "only full wins count here, and missing answers and ties count as losses.",
        ),
        Mistake(
            lambda preferences: (
                sum(p == 2 for p in preferences if p is not None)
                / sum(p is not None for p in preferences)
            ),
            "ties count as losses, and less sure wins too.",
        ),
        Mistake(
            lambda preferences: (
                sum(max(0.0, p - 1) for p in preferences if p is not None)
                / sum(p is not None for p in preferences)
            ),
            "a 0 is a tie as well (older files write it so), not a loss.",
        ),
        Mistake(
            lambda preferences: 1 - _win_rate(preferences),
            "this is the win rate of the first output.",
        ),
    ],
)


# 3. Is this difference real?


def _paired_interval(ours: Tensor, theirs: Tensor) -> Tensor:
    differences = ours - theirs
    error = differences.std() / len(differences) ** 0.5
    return differences.mean() + _numbers(-1.96, 1.96) * error


def _unpaired_interval(ours: Tensor, theirs: Tensor) -> Tensor:
    error = (ours.var() / len(ours) + theirs.var() / len(theirs)) ** 0.5
    return ours.mean() - theirs.mean() + _numbers(-1.96, 1.96) * error


_HARD = torch.linspace(0, 1, 20, dtype=torch.float64)  # how well anyone does on each prompt
_GAIN = torch.tensor([0.05, 0.1, 0.0, 0.05, 0.1] * 4, dtype=torch.float64)

paired_interval = Exercise(
    title="is this difference real?",
    task=(
        "ours and theirs, (N,), are two models' scores on the same N prompts. Return the 95 % "
        "interval of the mean difference, ours less theirs, by the normal formula (mean plus and "
        "minus 1.96 standard errors), as a tensor of two. The prompts differ in difficulty, which "
        "must not widen it."
    ),
    difficulty=3,
    importance=5,
    minutes=10,
    hint="One difference a prompt first; then the mean and standard error of those N numbers.",
    solution=_paired_interval,
    cases=[
        (_HARD + _GAIN, _HARD),
        (_HARD.flip(0), _HARD * 0.9),
        (_numbers(1, 1, 0, 1, 1, 0), _numbers(1, 0, 0, 1, 0, 1)),
    ],
    mistakes=[
        Mistake(
            _unpaired_interval,
            "this is the formula for two *separate* samples. Both models answered the same "
            "prompts: that some prompts are hard for both drops out of the differences.",
        ),
        Mistake(
            lambda ours, theirs: (
                (ours - theirs).mean() + _numbers(-1.96, 1.96) * (ours - theirs).std()
            ),
            "the standard deviation tells how single prompts spread; the *mean's* standard error "
            "is that divided by the square root of N.",
        ),
        Mistake(
            lambda ours, theirs: (
                (ours - theirs).mean() + _numbers(-1.96, 1.96) * (ours - theirs).std() / len(ours)
            ),
            "divide by the square root of N, not by N.",
        ),
        Mistake(
            lambda ours, theirs: -_paired_interval(ours, theirs).flip(0),
            "the sign: ours less theirs.",
        ),
    ],
)


# 4. The judge's taste for length.


def _length_bias(points: Sequence[float], longer: Sequence[int], truth: Sequence[float]) -> float:
    decided = [
        (p > 0.5) == (d > 0)
        for p, d, t in zip(points, longer, truth, strict=True)
        if t == 0.5 and p != 0.5 and d != 0
    ]
    return sum(decided) / len(decided)


def _longer_wins_anywhere(points, longer, truth) -> float:
    return _length_bias(points, longer, [0.5] * len(points))


_POINTS = [1, 1, 1, 0, 0, 1, 0, 0.5, 1, 0.5, 1, 0]
_LONGER = [40, 25, -10, 30, -20, 12, -5, 30, 0, 0, 8, 9]
_TRUTH = [1, 0.5, 1, 0, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0.5, 0.5]

length_bias = Exercise(
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
    hint="Three conditions choose the comparisons. Then: the second won and is longer, or neither.",
    solution=_length_bias,
    cases=[
        (_POINTS, _LONGER, _TRUTH),
        ([1, 0, 1, 0], [5, -5, 7, -9], [0.5] * 4),
        ([1, 0, 0, 1, 1], [5, 5, -3, -7, 9], [0.5, 0.5, 0.5, 0.5, 1]),
    ],
    mistakes=[
        Mistake(
            _longer_wins_anywhere,
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
                    (p > 0.5) == (d > 0)
                    for p, d, t in zip(points, longer, truth, strict=True)
                    if t == 0.5
                )
                / sum(t == 0.5 for t in truth)
            ),
            "ties of the judge, or pairs of equal length, are counted: they say nothing about a "
            "taste for length.",
        ),
    ],
)


# 5. Where the gap lied.


def _gap_lied(gaps: Sequence[float], win_rates: Sequence[float], healthy: int) -> Tensor:
    lied = [gap >= gaps[healthy] and rate < 0.5 for gap, rate in zip(gaps, win_rates, strict=True)]
    return torch.tensor(lied)


gap_lied = Exercise(
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
    hint="Two conditions, and both must hold.",
    solution=_gap_lied,
    cases=[
        ([2.0, 9.0, 0.1, 30.0, 2.0], [0.7, 0.35, 0.5, 0.02, 0.49], 0),
        ([2.0, 1.0, 3.0], [0.7, 0.3, 0.66], 0),
        ([5.0, 2.0, 4.0], [0.2, 0.7, 0.5], 1),
    ],
    mistakes=[
        Mistake(
            lambda gaps, win_rates, healthy: [rate < 0.5 for rate in win_rates],
            "a run that loses with a *small* gap was told truly by its gap: it did not lie.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: [gap > gaps[healthy] for gap in gaps],
            "a wide gap alone is no lie: look at the win rate.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: [
                gap >= gaps[healthy] and rate < win_rates[healthy]
                for gap, rate in zip(gaps, win_rates, strict=True)
            ],
            "to win less than the healthy run is not yet to lose: the line is one half.",
        ),
        Mistake(
            lambda gaps, win_rates, healthy: [
                gap >= gaps[healthy] and rate <= 0.5
                for gap, rate in zip(gaps, win_rates, strict=True)
            ],
            "a win rate of exactly one half is no loss.",
        ),
    ],
)


# 6. How many prompts?


def _prompts_for(sd: float, half_width: float) -> int:
    return math.ceil((1.96 * sd / half_width) ** 2)


prompts_for = Exercise(
    title="how many prompts?",
    task=(
        "sd is the standard deviation of the points of a win rate on a pilot. Return how many "
        "prompts, a whole number, an interval of plus and minus half_width needs at least."
    ),
    difficulty=2,
    importance=4,
    minutes=5,
    hint="half_width = 1.96 sd / sqrt(n). Solve for n; part of a prompt cannot be asked.",
    solution=_prompts_for,
    cases=[(0.35, 0.05), (0.35, 0.025), (0.5, 0.1), (0.41, 0.03)],
    mistakes=[
        Mistake(
            lambda sd, half_width: round((1.96 * sd / half_width) ** 2),
            "rounded down the interval is a little too wide: round up.",
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
            lambda sd, half_width: math.ceil((sd / half_width) ** 2),
            "without 1.96 it is an interval of one standard error: it covers 68 %, not 95 %.",
        ),
    ],
)

EXERCISES = {name: value for name, value in list(globals().items()) if isinstance(value, Exercise)}
