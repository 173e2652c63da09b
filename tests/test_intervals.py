"""Intervals cover what they should, tests reject as often as they say, pilots tell the right n."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, norm

from coursekit.common.statistics import (
    _expanded_tail,
    bootstrap,
    bootstrap_mean,
    mcnemar,
    prompts_needed,
)
from coursekit.evaluation import comparison_table, interval_by_prompts, to_markdown
from coursekit.evaluation.win_rates import rate_of

REPLICATIONS = 2000  # the standard error of a coverage of 95 % is then 0.5 %


def paired_differences(rng, n):
    """As scores differ between two models: mostly not at all, sometimes much, rather upwards."""
    values, chances = [-1.0, -0.25, 0.0, 0.25, 0.5, 1.0], [0.03, 0.07, 0.6, 0.15, 0.1, 0.05]
    return rng.choice(values, p=chances, size=n)


def points_with_ties(rng, n):
    return rng.choice([0.0, 0.5, 1.0], p=[0.15, 0.4, 0.45], size=n)


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize(
    "draw, truth, within",
    [(paired_differences, 0.09, (-1, 1)), (points_with_ties, 0.65, (0, 1))],
    ids=["paired difference", "win rate with ties"],
)
def test_coverage_is_between_93_and_97_per_cent(draw, truth, within, n):
    rng = np.random.default_rng(n)
    assert np.mean(draw(rng, 200_000)) == pytest.approx(truth, abs=0.005)
    hits = 0
    for _ in range(REPLICATIONS):
        found = bootstrap_mean(draw(rng, n), draws=1000, within=within)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / REPLICATIONS <= 0.97


def test_the_plain_percentiles_would_cover_too_little(monkeypatch):
    """The correction for few values is needed: without it ten values fall short of 93 %."""
    from coursekit.common import statistics as intervals

    monkeypatch.setattr(intervals, "_expanded_tail", lambda n: 0.025)
    rng, hits = np.random.default_rng(0), 0
    for _ in range(REPLICATIONS):
        found = bootstrap_mean(rng.normal(size=10), draws=500)
        hits += found.low <= 0 <= found.high
    assert hits / REPLICATIONS < 0.93


def test_thirty_wins_of_thirty_are_no_proof_of_a_hundred_per_cent():
    all_won = rate_of([1.0] * 30).estimate
    exact = binomtest(30, 30).proportion_ci(0.95)
    assert all_won.high == 1 and all_won.low == pytest.approx(exact.low)
    never = bootstrap_mean([0.0] * 30, within=(-1, 1))
    assert (never.low, never.high) == pytest.approx((exact.low - 1, 1 - exact.low))
    assert bootstrap_mean([3.0] * 30).low == 3  # nothing is known of what else there could be


def test_mcnemar():
    ours, theirs = [1] * 9 + [0] * 1 + [1] * 40, [0] * 9 + [1] * 1 + [1] * 40
    assert mcnemar(ours, theirs) == pytest.approx(22 / 1024)  # P(at most 1 or at least 9 of 10)
    assert mcnemar(theirs, ours) == mcnemar(ours, theirs)
    assert mcnemar([1, 0], [1, 0]) == 1
    for bad in ([0.5, 1], [1, 0, 1]):
        with pytest.raises(ValueError, match="a 0 or 1"):
            mcnemar(bad, [1, 0])


def test_mcnemar_rejects_equal_models_at_most_as_often_as_it_says():
    rng = np.random.default_rng(0)
    rejected = np.mean(
        [mcnemar(*rng.binomial(1, 0.7, size=(2, 60))) < 0.05 for _ in range(REPLICATIONS)]
    )
    assert rejected <= 0.05


def test_prompts_needed_gives_the_power_it_promises():
    rng = np.random.default_rng(3)
    pilot = points_with_ties(rng, 5000) - 0.65
    n = prompts_needed(pilot, 0.05)
    assert 300 < n < 600
    shown = np.mean(
        [bootstrap_mean(points_with_ties(rng, n) - 0.6, draws=500).low > 0 for _ in range(1000)]
    )
    assert shown == pytest.approx(0.8, abs=0.05)
    assert prompts_needed(pilot, 0.025) == pytest.approx(4 * n, rel=0.01)
    for bad in ({"difference": 0}, {"difference": 0.05, "power": 1}):
        with pytest.raises(ValueError, match="wanted above 0"):
            prompts_needed(pilot, **bad)
    with pytest.raises(ValueError, match="at least two"):
        prompts_needed([0.5], 0.05)


def test_the_interval_is_that_of_all_resamples():
    """Six of twelve: a resample's mean is Binomial(12, 1/2) / 12, of which both ends are known."""
    found = bootstrap_mean([0.0, 1.0] * 6)
    tail = norm.cdf(-2.200985 * (12 / 11) ** 0.5)  # Student's t of 11 degrees: 2.200985
    low, high = binom.ppf([tail, 1 - tail], 12, 0.5) / 12
    assert (found.value, found.low, found.high) == pytest.approx((0.5, low, high))
    assert (low, high) == pytest.approx((2 / 12, 10 / 12))  # the plain percentiles: 3 and 9
    shifted = bootstrap_mean([2.0, 5.0] * 6)  # 2 + 3 x
    assert (shifted.low, shifted.high) == pytest.approx((2 + 3 * low, 2 + 3 * high))


def test_kinds_of_item_are_resampled_as_the_items_themselves():
    """Of 30 and 90 seen, the count of the first is binomial: B(120, 1/4)."""

    def of_the_first(taken):
        assert taken.shape == (4000, 2) and (taken.sum(-1) == 120).all()
        return taken[:, 0]

    found = bootstrap(of_the_first, np.array([30, 90]), draws=4000, seed=0)
    assert found == pytest.approx(tuple(binom.ppf([0.025, 0.975], 120, 0.25)), abs=1)
    wide = bootstrap(of_the_first, np.array([30, 90]), draws=4000, seed=0, tail=0.001)
    assert wide[0] < found[0] - 3 and wide[1] > found[1] + 3


def test_each_of_n_items_was_seen_once():
    once = bootstrap(lambda taken: taken @ np.arange(7), np.ones(7), draws=50, seed=3)
    assert bootstrap(lambda taken: taken @ np.arange(7), 7, draws=50, seed=3) == once


def test_equal_values_are_drawn_as_one_kind(monkeypatch):
    """A win rate of ten thousand prompts has three kinds of points, and costs no more than they."""
    from coursekit.common import statistics as intervals

    seen = []

    def counting(statistic, n, **options):
        seen.append(np.asarray(n).tolist())
        return bootstrap(statistic, n, **options)

    monkeypatch.setattr(intervals, "bootstrap", counting)
    found = bootstrap_mean([1.0, 0.5, 1.0, 0.0, 1.0] * 2000)
    assert seen == [[6000, 2000, 2000]]
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.4 / 100, rel=0.05)  # SD: 0.4
    bootstrap_mean([0.3, -1.0, 2.5, 0.0])
    assert seen[1] == [1, 1, 1, 1]


def test_resamples_without_a_value_are_left_out():
    values = np.arange(101.0)
    some = np.concatenate([values, np.full(99, np.nan)])
    assert bootstrap(lambda taken: some, 3, draws=200, seed=0) == pytest.approx((2.5, 97.5))
    nothing = bootstrap(lambda taken: np.full(200, np.nan), 3, draws=200, seed=0)
    assert np.isnan(nothing).all() and len(nothing) == 2


def test_the_interval_repeats_with_its_seed():
    values = np.random.default_rng(0).normal(size=40)
    assert bootstrap_mean(values) == bootstrap_mean(values, seed=0, draws=10_000)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values) != bootstrap_mean(values, draws=10_001)
    assert bootstrap_mean(values) == bootstrap_mean(values, within=(-9, 9))  # they differ


@pytest.mark.parametrize(
    ("values", "within", "low", "high"),
    [
        ([4.0], None, 4, 4),
        ([4.0], (2, 8), 4 - 0.975 * 2, 4 + 0.975 * 4),  # 1 - 0.025 of what is left to either side
        ([4.0, 4.0], (2, 8), 4 - (1 - 0.025**0.5) * 2, 4 + (1 - 0.025**0.5) * 4),
        ([1.0] * 3, (0, 1), 0.025 ** (1 / 3), 1),
        ([0.0] * 3, (0, 1), 0, 1 - 0.025 ** (1 / 3)),
    ],
)
def test_equal_values_show_how_common_others_may_be(values, within, low, high):
    found = bootstrap_mean(values, within=within)
    assert (found.value, found.low, found.high) == pytest.approx((values[0], low, high))


def test_no_values_have_no_interval():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


def test_few_values_are_cut_less():
    """Student's 2.5 % of n - 1 degrees as tabulated, for the root mean square over n."""
    for n, student in ((2, 12.706205), (5, 2.776445), (30, 2.045230)):
        assert _expanded_tail(n) == pytest.approx(norm.cdf(-student * (n / (n - 1)) ** 0.5), 1e-4)
    assert _expanded_tail(1) == 0.025 and _expanded_tail(10**6) == pytest.approx(0.025, 1e-4)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1), (1, 0, 1), (1, 1, 1), (5, 0, 2 / 32), (0, 5, 2 / 32), (6, 1, 16 / 128)],
)
def test_mcnemar_by_hand(gained, lost, p):
    """Two-sided: twice the chance of so few or fewer heads in `gained + lost` tosses."""
    ours = [1] * gained + [0] * lost + [1, 0, 0]
    theirs = [0] * gained + [1] * lost + [1, 0, 0]
    assert mcnemar(ours, theirs) == pytest.approx(p)


@pytest.mark.parametrize(
    ("values", "difference", "power", "n"),
    [
        ([0, 2], 1, 0.8, 16),  # variance 2: (1.960 + 0.842)^2 2 = 15.7
        ([0, 2], 0.5, 0.8, 63),  # 62.8
        ([0, 2], 1, 0.9, 22),  # (1.960 + 1.282)^2 2 = 21.01
        ([0, 2], 1, 0.5, 8),  # 1.960^2 2 = 7.7
        ([0, 2], 10, 0.8, 2),  # never fewer than make a spread
        ([3, 3], 1, 0.8, 2),
    ],
)
def test_prompts_needed_by_hand(values, difference, power, n):
    assert prompts_needed(values, difference, power) == n


def test_prompts_needed_asks_for_sense():
    assert prompts_needed([0, 2], 1) == prompts_needed([0, 2], 1, power=0.8)
    for difference, power in ((0, 0.8), (-1, 0.8), (float("nan"), 0.8), (1, 0.49), (1, 1)):
        with pytest.raises(ValueError, match="wanted above 0"):
            prompts_needed([0, 2], difference, power)


def scores(**models):
    return pd.concat(
        pd.DataFrame({"model": name, "row": range(len(values)), "x": values})
        for name, values in models.items()
    )


def test_the_sentence_says_what_the_interval_allows():
    rng = np.random.default_rng(0)
    base = rng.binomial(1, 0.5, size=200).astype(float)
    table = lambda other: comparison_table(  # noqa: E731
        scores(SFT=base, DPO=other), candidate="DPO", baseline="SFT"
    ).loc["x"]
    better = table(np.maximum(base, rng.binomial(1, 0.3, size=200)))
    assert better["low"] > 0 and better["p"] < 0.001
    assert better["conclusion"] == f"DPO is higher, by at least {100 * better['low']:.1f} points"
    worse = table(np.minimum(base, rng.binomial(1, 0.5, size=200)))
    assert worse["conclusion"] == f"DPO is lower, by at least {-100 * worse['high']:.1f} points"
    same = table(rng.permutation(base))
    assert same["low"] < 0 < same["high"] and same["p"] > 0.05
    assert same["conclusion"].startswith("no difference shown: DPO may be ")
    long = table(base * 100)
    assert np.isnan(long["p"]) and "points" not in long["conclusion"]


def test_a_missing_score_is_an_error_and_not_a_smaller_sample():
    with pytest.raises(ValueError, match="DPO has no x for row 2"):
        comparison_table(scores(SFT=[1, 0, 1], DPO=[1, 0]), candidate="DPO", baseline="SFT")


def test_markdown_has_a_line_for_each_metric():
    table = comparison_table(
        scores(SFT=[0.0, 1.0, 0.0], DPO=[1.0, 1.0, 1.0]), candidate="DPO", baseline="SFT"
    )
    head, rule, line = to_markdown(table).splitlines()
    assert head.startswith("| metric | SFT | DPO | DPO over SFT | 95 % interval |")
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line.startswith("| x | 0.33 | 1.00 | +0.67 |")


def test_the_difference_is_named_by_its_models_and_not_by_their_columns():
    table = comparison_table(
        scores(DPO=[1.0, 1.0, 1.0], SFT=[0.0, 1.0, 0.0]), candidate="DPO", baseline="SFT"
    )
    head, _, line = to_markdown(table).splitlines()
    assert head.startswith("| metric | DPO | SFT | DPO over SFT |")
    assert line.startswith("| x | 1.00 | 0.33 | +0.67 |")
    table.attrs.clear()  # made by hand: nothing is claimed
    assert "| DPO | SFT | difference |" in to_markdown(table)


def test_with_fewer_prompts_the_interval_is_wider_and_shows_less():
    rng = np.random.default_rng(0)
    table = interval_by_prompts(points_with_ties(rng, 300) - 0.55, [30, 100, 300], repeats=50)
    widths = (table["high"] - table["low"]).tolist()
    assert widths[0] > 1.6 * widths[1] > 2 * widths[2]
    assert table["shown"].is_monotonic_increasing and table["shown"].iloc[0] < 0.6
