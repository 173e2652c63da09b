"""Win rates, counted by hand: no model, and a judge that says what it is told."""

import math
import statistics

import pytest

from coursekit.evaluation.win_rates import WinRate, all_pairs, rate_of, win_rate


class Longer:
    """Prefers the longer response; its answers to some texts are faulty."""

    name = identity = "longer"

    def compare(self, row, first, second):
        if "?" in first + second:
            return "invalid"
        if "!" in first + second:  # whatever stands first
            return "first"
        return "first" if len(first) > len(second) else "second"


def test_points_become_counts():
    points = [1.0, 0.5, 0.0, None, 0.75, 0.25, None, 1.0]
    found = rate_of(points, inconsistent=2)
    assert (found.wins, found.ties, found.losses) == (3, 1, 2)
    assert (found.inconsistent, found.missing, found.points) == (2, 2, tuple(points))
    assert found.rated == (1.0, 0.5, 0.0, 0.75, 0.25, 1.0)
    assert found.estimate.value == pytest.approx(3.5 / 6)
    assert found.se == pytest.approx(statistics.stdev(found.rated) / math.sqrt(6))
    assert "on 6 prompts (3 won, 1 tied, 2 lost, 2 contradictory, 2 missing)" in str(found)


def test_what_there_was_none_of_is_not_told():
    found = rate_of([1.0, 0.0])
    assert (found.inconsistent, found.missing) == (0, 0) and found.se == pytest.approx(0.5)
    assert str(found).endswith("on 2 prompts (1 won, 0 tied, 1 lost)")
    plain = WinRate(found.estimate, found.se, wins=1, ties=0, losses=1)
    assert (plain.inconsistent, plain.missing) == (0, 0)


@pytest.mark.filterwarnings("error")
def test_one_verdict_has_no_standard_error_and_none_no_rate():
    assert math.isnan(rate_of([1.0]).se)
    for points in ([], [None]):
        with pytest.raises(ValueError, match="no verdict at all"):
            rate_of(points)


@pytest.mark.parametrize("points", [0.0, 1.0])
def test_the_interval_stays_between_0_and_1_and_is_not_a_point(points):
    estimate = rate_of([points] * 10).estimate
    assert 0 <= estimate.low < estimate.high <= 1 and points in (estimate.low, estimate.high)


ROWS = [{"prompt": "p"}] * 6
RESPONSES = {
    "base": ["a", "bb", "c", "d", "e!", "ff"],
    "SFT": ["aa", "b", "c", "d?", "ee", "f"],
    "DPO": ["aaa", "bbb", "ccc", "ddd", "eee", "fff"],
}


def test_verdicts_become_points():
    found = win_rate(ROWS, RESPONSES["SFT"], RESPONSES["base"], Longer())
    assert found.points == (1.0, 0.0, 0.5, None, 0.5, 0.0)
    assert found.inconsistent == 1
    with pytest.raises(ValueError, match="zip"):
        win_rate(ROWS, RESPONSES["SFT"][:5], RESPONSES["base"], Longer())


def test_every_model_meets_every_other_once():
    table = all_pairs(ROWS, RESPONSES, Longer())
    assert list(zip(table["model"], table["against"], strict=True)) == [
        *(("SFT", "base"), ("DPO", "base"), ("DPO", "SFT"))
    ]
    counts = ["won", "tied", "lost", "contradictory", "missing"]
    assert table[counts].values.tolist() == [[1, 2, 2, 1, 1], [5, 1, 0, 1, 0], [5, 0, 0, 0, 1]]
    found = win_rate(ROWS, RESPONSES["SFT"], RESPONSES["base"], Longer())
    line = table.iloc[0]
    assert line[["win_rate", "low", "high"]].tolist() == [
        *(found.estimate.value, found.estimate.low, found.estimate.high)
    ]
    assert line["se"] == found.se
