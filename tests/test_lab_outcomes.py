"""What the lab's results show: each verdict comes out otherwise for others, each claim can fail."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from test_outcomes import each_can_fail, said

from coursekit.week.lab.record import SFT_ITSELF, reward_at
from coursekit.week.lab.studies import WRONG
from coursekit.week.outcomes import lab

LEARNED, TRUE = lab.LEARNED, lab.TRUE


def points(**ends: float) -> pd.DataFrame:
    """Two seeds of runs that rise straight from SFT's 0.5 to these rewards, at 2 nats."""
    curves = {
        "dpo": "DPO, beta 0.05",
        "true": f"{TRUE}, beta 1",
        "learned": f"{LEARNED}, beta 1",
        "optimum": "optimum",
    }
    lines = [
        {"curve": curves[name], "seed": seed, "place": 1, "kl": 2.0, "reward": end}
        for name, end in ({"dpo": 0.8, "true": 0.8, "learned": 0.6, "optimum": 1.0} | ends).items()
        if name in curves
        for seed in (0, 1)
    ]
    for seed in (0, 1):
        itself = {"curve": SFT_ITSELF, "seed": seed, "place": 1, "kl": 0.0, "reward": 0.5}
        cooler = {**itself, "place": 2, "kl": 0.3, "reward": 0.55}
        best = [
            {"curve": "best of n, learned reward", "seed": seed, "place": n, "n": n, "kl": n / 4}
            | {"reward": reward}
            for n, reward in ((2, 0.6), (4, ends.get("best", 0.5)))
        ]
        overdone = {"curve": "DPO, beta 0.05", "seed": seed, "place": 2, "kl": 3.0}
        overdone["reward"] = ends.get("end", 0.5)
        lines += [itself, cooler, *best, overdone]
    return pd.DataFrame(lines)


def test_the_reward_at_a_kl_lies_on_the_line_between_two_checkpoints():
    run = {"curve": "DPO", "seed": 0}
    bent = pd.DataFrame(
        [
            {**run, "place": 1, "kl": 1.0, "reward": 0.7},
            {**run, "place": 2, "kl": 0.5, "reward": 0.8},  # back, and higher
            {**run, "place": 3, "kl": 1.5, "reward": 0.9},
            {"curve": SFT_ITSELF, "seed": 0, "place": 1, "kl": 0.0, "reward": 0.5},
        ]
    )
    at = {kl: reward_at(bent, kl) for kl in (0.25, 0.75, 2.0)}
    rewards = {kl: found[found["curve"] == "DPO"]["reward"].tolist() for kl, found in at.items()}
    assert rewards[0.25] == pytest.approx([0.55])
    assert rewards[0.75] == pytest.approx([0.825])  # the highest of three passes
    assert rewards[2.0] == []  # it never gets so far
    assert lab.sft_reward(bent) == 0.5


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({"dpo": 0.9}, "DPO, as in the paper"),
        ({"true": 0.9}, "RLHF with the true reward"),
        ({"dpo": 0.8, "true": 0.8}, "the curves cross, or lie together"),
    ],
)
def test_who_is_higher_at_the_same_kl(ends, expected):
    found = lab.dpo_against_rlhf(points(**ends))
    assert said(found, "dpo_against_rlhf") == expected and "at a KL of 0.5" in found.evidence


def test_what_the_frontier_shows():
    each_can_fail(
        lambda **ends: lab.the_frontier(points(**ends)),
        {"true": 0.9},
        {"dpo": 1.2, "true": 1.3},
        {"learned": 0.85},
        {"true": 0.7},
        {"best": 0.7},
        {"true": 0.9, "end": 0.8},
    )


def table(rates: dict[str, float], against: str, width: float = 0.02) -> pd.DataFrame:
    """As of `win_table`, with differences as wide everywhere."""
    lines = []
    for curve, rate in rates.items():
        difference = rate - rates[against]
        lines.append(
            {
                **{"curve": curve, "win rate": rate, "difference": difference},
                **{"difference low": difference - width, "difference high": difference + width},
                **{"shown": abs(difference) > width, "seeds": [rate, rate]},
            }
        )
    return pd.DataFrame(lines)


CONTROLS = {
    "DPO": 0.75,
    "SFT on the best of 4": 0.74,
    "SFT on the chosen": 0.68,
    "SFT, sampled cooler": 0.62,
    "more SFT, as many steps": 0.53,
    "DPO, labels by coin": 0.5,
}


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("SFT on the best of 4", "SFT on the best of four own answers"),
        ("SFT on the chosen", "SFT on the chosen responses"),
        ("SFT, sampled cooler", "SFT, sampled cooler"),
    ],
)
def test_which_control_comes_closest(curve, expected):
    found = lab.closest_control(table({**CONTROLS, curve: 0.745}, "DPO"))
    assert said(found, "closest_control") == expected and "DPO 75.0%" in found.evidence


def test_what_the_controls_explain():
    best, chosen = "SFT on the best of 4", "SFT on the chosen"
    others = [{curve: 0.75} for curve in CONTROLS if curve not in ("DPO", best, chosen)]
    each_can_fail(
        lambda **changed: lab.what_explains(table({**CONTROLS, **changed}, "DPO")),
        {},
        *others,
        {best: 0.6},
        {chosen: 0.6},
    )


def test_a_run_is_reproduced_within_its_intervals():
    def cell(reward, seed=0):
        rewards = [reward - 0.1, reward + 0.1] * 50
        return {"curve": "DPO", "seed": seed, "answered": {"rewards": rewards}}

    record = {"cells": [cell(0.2, seed=1), cell(0.8)]}
    each_can_fail(lab.reproduced, {"live": cell(0.81), "record": record}, {"live": cell(0.9)})


def family(**rates: float) -> pd.DataFrame:
    named = {"DPO": 0.75, "IPO": 0.75, "KTO": 0.75, "ORPO": 0.7, f"DPO{WRONG}": 0.7}
    return table(named | rates, "DPO")


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({}, "none"),
        ({"KTO": 0.8}, "one or two"),
        ({"KTO": 0.8, "IPO": 0.8, "ORPO": 0.8, f"DPO{WRONG}": 0.9}, "more than two"),
    ],
)
def test_who_beats_dpo(rates, expected):
    assert said(lab.who_beats_dpo(family(**rates)), "who_beats_dpo") == expected


@pytest.mark.parametrize("best", lab.NOISY)
def test_who_keeps_most_with_wrong_labels(best):
    right = dict.fromkeys(lab.NOISY, 0.75) | {"KTO": 0.7}
    wrong = {loss + WRONG: 0.65 if loss == best else 0.55 for loss in lab.NOISY}
    found = lab.kept_with_wrong_labels(table(right | wrong, "DPO"))
    assert said(found, "kept_with_wrong_labels") == best
    assert "DPO 60%" in found.evidence or best != "DPO"


def test_what_starts_from_the_base():
    def rates(orpo=0.7, simpo=0.3, after=0.7):
        named = {"ORPO, from the base": orpo, "SimPO, from the base": simpo, "SimPO": after}
        found = table(named, "SimPO")
        return found.assign(low=found["win rate"] - 0.05, high=found["win rate"] + 0.05)

    each_can_fail(
        lambda **changed: lab.from_the_base(rates(**changed)),
        {},
        {"orpo": 0.52},
        {"simpo": 0.48},
        {"after": 0.52},
    )


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.8, "three rounds win, in each seed"),
        (0.71, "no difference is shown"),
        (0.6, "one round wins, in each seed"),
    ],
)
def test_whether_three_rounds_win(rate, expected):
    rates = {"one offline round": 0.7, "three rounds, reference renewed": rate}
    found = lab.three_rounds(table(rates, "one offline round"))
    assert said(found, "three_rounds") == expected


def test_what_fresh_answers_are_good_for():
    def rates(stale=0.3, fresh=0.75, grpo=0.8):
        named = {
            "one offline round": 0.7,
            "one offline round, thrice the updates": stale,
            "three rounds, renewed, thrice the updates": fresh,
            "GRPO, true reward": grpo,
        }
        return table(named, "one offline round").assign(kl=1.0)

    each_can_fail(
        lambda **changed: lab.fresh_answers(rates(**changed)),
        {},
        {"stale": 0.7},
        {"fresh": 0.25},
        {"grpo": 0.7},
    )


def test_whether_the_learners_own_reward_has_risen():
    before = [0.5, 0.6] * 20
    better, same = [0.8, 0.7] * 20, [0.6, 0.5] * 20
    each_can_fail(lab.paid_more, {"before": before, "after": better}, {"after": same})


@pytest.mark.parametrize(
    ("end", "expected"), [(0.9, "it rises too"), (0.71, "it stays"), (0.5, "it falls")]
)
def test_what_becomes_of_the_rubrics_score(end, expected):
    found = lab.rubric_follows(pd.DataFrame({"reward": [0.2, end]}), 0.7)
    assert said(found, "rubric_follows") == expected


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((0.7, 0.7, 0.7), "about 100"),
        ((0.6, 0.69, 0.7), "about 400"),
        ((0.5, 0.6, 0.7), "more than 400"),
    ],
)
def test_where_more_pairs_help_no_longer(rates, expected):
    named = dict(zip(("all, 100", "all, 400", "all, 2000"), rates, strict=True))
    found = lab.where_it_saturates(table({**named, "widest, 400": 0.9}, "all, 100"))
    assert said(found, "where_it_saturates") == expected


@pytest.mark.parametrize(
    ("widest", "one", "expected"),
    [
        (0.8, 0.75, "those with the widest margins"),
        (0.6, 0.75, "one of each prompt"),
        (0.6, 0.71, "no difference is shown"),
    ],
)
def test_which_pairs_are_best(widest, one, expected):
    rates = {"all, 100": 0.7, "widest, 100": widest, "one a prompt, 100": one}
    assert said(lab.which_pairs(table(rates, "all, 100")), "which_pairs") == expected


def test_verdicts_on_records_need_no_torch():
    """Session C imports them in its first cell, before it needs a model."""
    code = "import sys, coursekit.week.outcomes.session_c; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == "False", found.stderr
