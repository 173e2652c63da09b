"""Judges: the rubric's faults, asking in both orders, agreement beyond chance."""

import random
from pathlib import Path

import numpy as np
import pytest

from coursekit.evaluation.judges import (
    FlawedJudge,
    ProgramJudge,
    agreement,
    both_orders,
    compare_judges,
    one_order,
)
from coursekit.tasks.triage import TRIAGE


@pytest.fixture(scope="module")
def items():
    """Pairs of reports on 400 alerts, each written with vices."""
    from coursekit.tasks.triage import build_prompt, sample_alerts
    from coursekit.tasks.triage.demonstrations import Vices, write_imperfectly

    rng = random.Random(0)
    found = []
    for alert in sample_alerts("preferences", 400):
        row = {"prompt": build_prompt(alert), "facts": alert.to_dict()}
        found.append((row, *(write_imperfectly(alert, rng, Vices()) for _ in range(2))))
    return found


def test_without_faults_it_is_the_rubric(items):
    judge = ProgramJudge(TRIAGE)
    for row, one, other in items:
        difference = judge.score(row, one) - judge.score(row, other)
        verdict = both_orders(judge, row, one, other)
        assert verdict.consistent
        assert verdict.winner == (
            "first" if difference > 0 else "second" if difference < 0 else "tie"
        )


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4])
def test_errors_come_at_their_rate_and_do_not_depend_on_the_order(items, rate):
    careful, careless = (
        ProgramJudge(TRIAGE),
        FlawedJudge(ProgramJudge(TRIAGE), error_rate=rate, seed=1),
    )
    wrong = decided = 0
    for row, one, other in items:
        right = both_orders(careful, row, one, other)
        given = both_orders(careless, row, one, other)
        assert given.consistent and (given.winner == "tie") == (right.winner == "tie")
        decided += right.winner != "tie"
        wrong += given.winner != right.winner
    assert abs(wrong / decided - rate) < 3 * (rate * (1 - rate) / decided) ** 0.5
    other_seed = FlawedJudge(ProgramJudge(TRIAGE), error_rate=rate, seed=2)
    assert any(
        careless.compare(*item) != other_seed.compare(*item)
        for item in [(row, one, other) for row, one, other in items]
    )


def test_error_rates_that_make_no_sense_are_told():
    for rate in (-0.1, 0.6):
        with pytest.raises(ValueError, match=r"give a share from 0 to 0\.5"):
            FlawedJudge(ProgramJudge(TRIAGE), error_rate=rate)


def test_biases_do_what_they_say(items):
    row, one, _ = items[0]
    padded = one + ", and keep everyone informed"
    assert ProgramJudge(TRIAGE).score(row, one) >= ProgramJudge(TRIAGE).score(row, padded)
    assert FlawedJudge(ProgramJudge(TRIAGE), length_bias=100).compare(row, one, padded) == "second"
    assert FlawedJudge(ProgramJudge(TRIAGE), length_bias=100).compare(row, padded, one) == "first"
    biased = FlawedJudge(ProgramJudge(TRIAGE), position_bias=2.0)
    pair = next(item for item in items if item[1] != item[2])
    verdict = both_orders(biased, *pair)
    assert verdict.winner == "tie" and not verdict.consistent
    assert verdict.answers == ("first", "first")
    assert one_order(biased, *pair).winner == "first"
    assert FlawedJudge(ProgramJudge(TRIAGE), position_bias=-2.0).compare(*pair) == "second"


def test_what_both_orders_mend_and_what_not(items):
    table = compare_judges(
        items,
        [
            ProgramJudge(TRIAGE, "careful"),
            FlawedJudge(ProgramJudge(TRIAGE), "errs", error_rate=0.2),
            FlawedJudge(ProgramJudge(TRIAGE), "likes the first", position_bias=0.15),
            FlawedJudge(ProgramJudge(TRIAGE), "likes length", length_bias=2.0),
        ],
        ProgramJudge(TRIAGE),
    )
    careful = table.loc["careful"]
    assert careful["wrong, asked once"] == careful["flipped"] == 0 and careful["kappa"] == 1
    errs = table.loc["errs"]
    assert errs["flipped"] == 0  # asking twice does not help
    assert errs["wrong, asked once"] == errs["wrong, of those kept"] > 0.15
    first = table.loc["likes the first"]
    assert first["flipped"] > 0.2 and first["wrong, asked once"] > 0.1
    assert first["wrong, of those kept"] < 0.02  # but here it does
    assert first["kept"] < careful["kept"]
    assert table.loc["likes length", "the longer won"] > careful["the longer won"] + 0.2
    assert (table["low"] <= table["kappa"]).all() and (table["kappa"] <= table["high"]).all()
    with pytest.raises(ValueError, match="all these pairs are ties"):
        compare_judges([(items[0][0], "x", "y")], [ProgramJudge(TRIAGE)], ProgramJudge(TRIAGE))


def test_another_judge_has_another_identity(monkeypatch, tmp_path):
    from coursekit.tasks.triage import policy

    class Contrary(ProgramJudge):
        def compare(self, row, first, second):
            return super().compare(row, second, first)

    identity = ProgramJudge(TRIAGE).identity
    assert identity == ProgramJudge(TRIAGE).identity and identity.startswith("program:")
    others = [
        ProgramJudge(TRIAGE, "other"),
        FlawedJudge(ProgramJudge(TRIAGE), error_rate=0.1),
        FlawedJudge(ProgramJudge(TRIAGE), length_bias=0.1),
        FlawedJudge(ProgramJudge(TRIAGE), position_bias=0.1),
        FlawedJudge(ProgramJudge(TRIAGE), seed=1),
        Contrary(TRIAGE),
    ]
    assert len({identity, *(judge.identity for judge in others)}) == 7
    # A program that scores in another way is another judge.
    edited = tmp_path / "policy.py"
    source = Path(policy.__file__).read_text(encoding="utf-8")
    edited.write_text(source.replace(">= 30", "> 30"), encoding="utf-8")
    monkeypatch.setattr(policy, "__file__", str(edited))
    assert ProgramJudge(TRIAGE).identity != identity


# Agreement.


def labels(counts):
    return zip(
        *((i, j) for i, row in enumerate(counts) for j, n in enumerate(row) for _ in range(n)),
        strict=True,
    )


@pytest.mark.parametrize(
    ("counts", "kappa"),
    [
        ([[20, 5], [10, 15]], 0.4),  # po 0.70, pe 0.50
        ([[45, 15], [25, 15]], 0.1304),  # same agreement, two tables: pe 0.54 ...
        ([[25, 35], [5, 35]], 0.2593),  # ... and 0.46
        ([[0, 10], [10, 0]], -1.0),
        ([[30, 0], [0, 70]], 1.0),
    ],
)
def test_kappa_by_hand(counts, kappa):
    found = agreement(*labels(counts))
    assert found.kappa == pytest.approx(kappa, abs=5e-5)
    assert found.low <= found.kappa <= found.high
    assert found.table.to_numpy().tolist() == counts


def test_the_interval_covers_the_truth():
    """Two raters who each name the true label 85 % of the time: kappa 0.49, in 95 % of samples."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        truth = rng.integers(0, 2, 150)
        raters = [np.where(rng.random(150) < 0.85, truth, 1 - truth) for _ in range(2)]
        found = agreement(*(rater.tolist() for rater in raters), draws=400)
        covered += found.low <= 0.49 <= found.high
    assert 180 <= covered <= 199


def test_items_of_a_prompt_are_no_news():
    """Every prompt's pairs say the same: the interval is that of the prompts, and covers."""
    rng = np.random.default_rng(0)
    covered, alone, widths = 0, 0, []
    for _ in range(200):
        truth = rng.integers(0, 2, 60)
        raters = [np.where(rng.random(60) < 0.85, truth, 1 - truth) for _ in range(2)]
        groups = np.repeat(np.arange(60), 3).tolist()
        tripled = [np.repeat(rater, 3).tolist() for rater in raters]
        found = agreement(*tripled, groups, draws=400)
        same = agreement(*(rater.tolist() for rater in raters), draws=400)
        assert found.kappa == pytest.approx(same.kappa)
        widths.append([found.high - found.low, same.high - same.low])
        covered += found.low <= 0.49 <= found.high
        unaware = agreement(*tripled, draws=400)
        alone += unaware.low <= 0.49 <= unaware.high
    assert 178 <= covered <= 199 and alone < 160
    ours, theirs = np.mean(widths, axis=0)
    assert ours == pytest.approx(theirs, rel=0.02)
    with pytest.raises(ValueError, match=r"and its group \(there are 2\)"):
        agreement(["a"], ["b"], ["p", "q"])


def test_chance_and_constant_labels():
    rng = random.Random(0)
    one, other = ([rng.choice("ab") for _ in range(2000)] for _ in range(2))
    assert abs(agreement(one, other).kappa) < 0.06
    assert np.isnan(agreement(["a"] * 5, ["a"] * 5).kappa)
    assert agreement(["a"] * 5 + ["b"], ["a"] * 6).kappa == 0
    with pytest.raises(ValueError, match="needs two labels of each item"):
        agreement(["a"], [])
    assert "kappa 0.40 [" in str(agreement(*labels([[20, 5], [10, 15]])))


def test_side_by_side_keeps_the_order_and_stops_when_it_must():
    import threading
    import time

    from coursekit.evaluation.judges import side_by_side

    class Slow:
        name, concurrency, spent = "slow", 4, 0.5

    begun, lock = [], threading.Lock()

    def ask(item):
        with lock:
            begun.append(item)
        time.sleep(0.02 if item % 2 else 0.01)
        if item == 10:
            raise RuntimeError("no more money")
        return item * item

    assert list(side_by_side(Slow(), ask, range(9), "asking")) == [n * n for n in range(9)]
    begun.clear()
    with pytest.raises(RuntimeError, match="no more money"):
        list(side_by_side(Slow(), ask, range(200)))
    assert len(begun) < 40
    begun.clear()
    answers = side_by_side(Slow(), ask, range(11, 200))
    assert next(answers) == 121
    answers.close()
    assert len(begun) < 40


def test_calibration_by_the_true_difference(triples):
    from coursekit.evaluation.judges import calibration

    class Coarse(ProgramJudge):
        """Sees differences above 0.2 only."""

        def compare(self, row, first, second):
            difference = self.score(row, first) - self.score(row, second)
            return "tie" if abs(difference) < 0.2 else "first" if difference > 0 else "second"

    truth = ProgramJudge(TRIAGE)
    items = [(row, row["chosen"], row["rejected"]) for row in triples]
    items += [(row, row["chosen"], row["chosen"] + " ") for row in triples]
    padded = triples[0]["chosen"].replace("next: ", "next: first, ")
    items.append((triples[0], triples[0]["chosen"], padded))
    table = calibration(items, [truth, Coarse(TRIAGE, "coarse")], truth, edges=(0.0, 0.2, 0.5, 1.0))
    assert table["pairs"].sum() == len(items)
    assert set(table["program"].dropna()) == {1.0}
    small, large = table.loc[1], table.loc[2:][table.loc[2:, "pairs"] > 0]
    assert (large["coarse"] == 1).all()
    assert small["pairs"] == 0 or small["coarse"] == 0
