"""What results show: each verdict comes out otherwise for other results, each claim can fail."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jupytext
import numpy as np
import pandas as pd
import pytest

from coursekit.common.statistics import Estimate, prompts_needed
from coursekit.evaluation import moved_by
from coursekit.evaluation.win_rates import rate_of
from coursekit.lm import memory_budget as memory
from coursekit.preferences.auditing import Audit, Finding, share
from coursekit.tasks.triage.causes import kind_of, lessons_on_unknown, unknown_by_alert
from coursekit.week import bandit, outcomes
from coursekit.week.gallery import load_recorded, nameless_table
from coursekit.week.outcomes import Claim, Outcome, by_interval, session_a, session_b, session_c
from coursekit.week.recorded import GREEDY, LEFT_OUT, SECOND_ROUND, SHUFFLED
from coursekit.week.sources import sources
from coursekit.week.spoil import spoil
from coursekit.week.widgets import claims, held, predict


def outcomes_of(source: Path) -> ModuleType:
    """The module that a notebook imports as `outcomes`."""
    text = source.read_text(encoding="utf-8")
    (name,) = re.findall(r"^from coursekit\.week\.outcomes import (\w+) as outcomes$", text, re.M)
    return import_module(f"coursekit.week.outcomes.{name}")


SOURCES = {source: outcomes_of(source) for source in sources()}


@cache
def options(function: str) -> list[str]:
    """The options, as a notebook asks them, of the prediction that `function` decides."""
    for source in SOURCES:
        text = "\n".join(
            re.sub(r"(?m)^%.*$", "", cell.source)
            for cell in jupytext.read(source).cells
            if cell.cell_type == "code"
        )
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        asked = next(
            (
                call.args[0].id
                for call in calls
                if ast.unparse(call.func) == "held" and f"outcomes.{function}(" in ast.unparse(call)
            ),
            None,
        )
        if asked:
            (listed,) = re.findall(
                rf"^{asked} = predict\(\s*\"[^\"]+\",\s*(\[[^\]]+\])", text, re.M
            )
            return ast.literal_eval(listed)
    raise LookupError(function)


def said(outcome: Outcome, function: str) -> str:
    """The option that came out, as the learner reads it."""
    return options(function)["abcdefgh".index(outcome.option)]


def verdicts(found: Claim | Iterable[Claim]) -> list[bool]:
    found = [found] if isinstance(found, Claim) else list(found)
    assert all(claim.sentence for claim in found)
    return [bool(claim.holds) for claim in found]


def each_can_fail(make: Callable[..., object], good: dict, *bad: dict) -> None:
    """All claims hold for `good`; and for each of the `bad` at least one fails, in the end each."""
    assert all(verdicts(make(**good)))
    found = [verdicts(make(**{**good, **changed})) for changed in bad]
    assert not any(map(all, found))
    assert not any(map(all, zip(*found, strict=True))), found


def estimate(value: float, by: float = 0.05) -> Estimate:
    return Estimate(value, value - by, value + by)


# What they have in common.


def test_an_interval_is_above_below_or_neither():
    ways = {"above": "up", "below": "down", "neither": "?"}
    found = [by_interval(estimate(value), **ways) for value in (0.1, 0.0, -0.1)]
    assert found == ["up", "?", "down"]
    assert by_interval(estimate(0.6), **ways, at=0.5) == "up"
    assert by_interval(estimate(0.52), **ways, at=0.5) == "?"


def test_an_estimate_is_written_with_its_interval():
    assert outcomes.with_interval(estimate(0.25), "+.1%") == "+25.0% (+20.0% to +30.0%)"


def test_an_option_may_be_said_by_its_letter(capsys):
    held(predict("Up?", ["up", "down"], choice="b"), *Outcome("b", "by 3"))
    assert "→ down: by 3\n✓ Your prediction held." in capsys.readouterr().out
    held(predict("Which?", ["b", "a"]), "b", "as it is")  # an option goes before a letter
    assert "→ b: as it is" in capsys.readouterr().out
    with pytest.raises(ValueError, match="'c' is none of the options: up, down"):
        held(predict("Up?", ["up", "down"]), "c", "")


def test_several_claims_are_shown_one_by_one(capsys):
    with pytest.raises(AssertionError, match="This run does not show it: two"):
        claims([Claim(True, "one"), Claim(False, "two"), Claim(True, "three")])
    assert capsys.readouterr().out == "✓ one\n"


def test_each_is_used_and_none_is_missing():
    for source, module in SOURCES.items():
        text = source.read_text(encoding="utf-8")
        public = {
            key
            for key, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__ and not key.startswith("_")
        }
        used = set(re.findall(r"outcomes\.([a-z]\w+)\(", text))
        assert used <= public
        assert public - used <= {"lost_to_sft"}  # what two others share


# Session A.


def scores(overall: dict[str, list[float]], **more: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"model": model, "row": row, "overall": value, **more}
            for model, values in overall.items()
            for row, value in enumerate(values)
        ]
    )


@pytest.mark.parametrize(
    ("faultless", "expected"),
    [(20, "nearly all"), (10, "between a fifth and four fifths"), (1, "hardly any")],
)
def test_how_many_are_without_fault(faultless, expected):
    found = session_a.without_fault(scores({"SFT": [1.0] * faultless + [0.5] * (20 - faultless)}))
    assert said(found, "without_fault") == expected
    assert f"{faultless / 20:.3f}" in found.evidence


def test_what_sft_has_taught_and_not():
    low, high = [0.5, 0.4, 0.6], [0.9, 0.8, 0.95]
    each_can_fail(
        session_a.sft_taught_the_task,
        {"scores": scores({"base": low, "SFT": high})},
        {"scores": scores({"base": high, "SFT": low})},
    )
    each_can_fail(
        session_a.sft_invents_causes,
        {"scores": scores({"SFT": high}, faithfulness=0.5)},
        {"scores": scores({"SFT": high}, faithfulness=1.0)},
    )


def climb(true: list[float], kl: float = 1.0, seeds: int = 4, proxy: float = 1.0) -> pd.DataFrame:
    """A path of as many steps in each world; KL and proxy grow evenly."""
    return pd.DataFrame(
        [
            {"seed": seed, "step": step, "kl": kl * step, "proxy": proxy * step, "true": value}
            for seed in range(seeds)
            for step, value in enumerate(true)
        ]
    )


@pytest.mark.parametrize(
    ("true", "expected"),
    [
        ([0, 1, 1], "it rises to its maximum and stays"),
        ([0, 1, -1], "it rises, then falls"),
        ([0, -1, -2], "it falls from the start"),
    ],
)
def test_what_the_true_reward_does(true, expected):
    found = session_a.proxy_climbed({0.0: climb(true)})
    assert said(found, "proxy_climbed") == expected
    assert f"ends at {true[-1]:.2f}, while the proxy climbs to 2.00" in found.evidence


def test_whether_the_kl_term_holds_back():
    good = {0.0: climb([0, 1, -1], kl=9), 0.3: climb([0, 1, 0.5]), 1.0: climb([0, 0.8, 0.8])}
    each_can_fail(
        lambda paths: session_a.kl_term_holds_back(paths),
        {"paths": good},
        {"paths": good | {0.0: climb([0, 1, 1], kl=9)}},
        {"paths": good | {0.0: climb([0, 1, -1], kl=9, proxy=-1)}},
        {"paths": good | {0.3: climb([0, 1, -2])}},
        {"paths": good | {1.0: climb([0, 0.8, 0.2])}},
        {"paths": good | {1.0: climb([0, 0.8, 0.8], kl=9)}},
    )


def test_whether_stopping_does_the_same():
    each_can_fail(
        session_a.same_if_stopped,
        {"beta": 0.3, "ends": pd.Series([0.1, 0.2]), "stopped": pd.Series([0.1, 0.205])},
        {"stopped": pd.Series([0.1, 0.3])},
    )


def test_memory():
    table = memory.memory_table({"7B": 7e9})
    recipes = memory.recipe_table(7e9)
    each_can_fail(
        session_a.full_dpo_of_7b,
        {"recipes": recipes, "table": table},
        {"recipes": recipes * 2},
        {"recipes": recipes * 0.2},
        {"table": table + 1, "recipes": recipes * 0.2},
    )
    each_can_fail(session_a.vocabulary_counts, {"small": 5.0, "large": 6.0}, {"large": 5.5})


@pytest.mark.parametrize(
    ("gradients", "kls", "expected"),
    [
        ((2.0, 1.0), (2.0, 1.0), "0.1 both"),
        ((2.0, 1.0), (1.0, 2.0), "0.1 the gradient, 1.0 the optimum"),
        ((1.0, 2.0), (2.0, 1.0), "1.0 the gradient, 0.1 the optimum"),
    ],
)
def test_the_sides_of_beta(gradients, kls, expected):
    betas = 0.1, 1.0
    found = session_a.sides_of_beta(
        dict(zip(betas, gradients, strict=True)), dict(zip(betas, kls, strict=True))
    )
    assert said(found, "sides_of_beta") == expected


def regrets(**excess: float) -> pd.DataFrame:
    """As from `compare_estimators`: DPO's regret is that much above the other's 0.005."""
    names = {name.replace("_", " "): value for name, value in excess.items()}
    return pd.DataFrame(
        [
            {"condition": name, "seed": seed, "method": method, "regret": value}
            for name, above in names.items()
            for seed in range(5)
            for method, value in (("DPO", 0.005 + above + seed * 1e-5), ("RLHF", 0.005))
        ]
    )


def test_excess_regret_is_paired():
    found = bandit.excess_regret(regrets(few_pairs=0.2))
    assert found.loc["few pairs"].tolist() == pytest.approx(
        [0.2 + seed * 1e-5 for seed in range(5)]
    )


@pytest.mark.parametrize(
    ("above", "expected"),
    [(0.1, "reward model + policy gradient"), (-0.1, "DPO"), (-2e-5, "both alike")],
)
def test_who_is_nearer_where_half_is_unseen(above, expected):
    found = session_a.where_half_is_unseen(regrets(half_never_seen=above))
    assert said(found, "where_half_is_unseen") == expected


def test_who_is_nearer():
    good = {"plenty_of_pairs": 0.0, "few_pairs": 0.1, "reward_model_blind": -0.2}
    each_can_fail(
        lambda **excess: session_a.who_is_nearer(regrets(**excess)),
        good,
        *({name: -0.2 if value > 0 else 0.2} for name, value in good.items()),
    )
    good = {0.01: estimate(2.0), 0.1: estimate(1.0), 1.0: estimate(1.0)}
    each_can_fail(
        session_a.ridge_decides_little,
        {"by_ridge": good},
        {"by_ridge": good | {1.0: estimate(0.0)}},
        {"by_ridge": good | {0.01: estimate(1.0)}},
    )


# Session B.


def test_what_sft_has_learnt():
    good = scores({"base": [0.2, 0.3], "SFT": [1.0, 0.7]})
    each_can_fail(
        session_b.sft_learnt,
        {"scores": good},
        {"scores": scores({"base": [1.0, 0.9], "SFT": [1.0, 0.7]})},
        {"scores": scores({"base": [0.2, 0.3], "SFT": [1.0, 1.0]})},
    )

    def table(base, sft, faithful):
        lines = [("base", base, 0.5), ("SFT", sft, faithful)]
        return {"scores": pd.DataFrame(lines, columns=["model", "format", "faithfulness"])}

    each_can_fail(
        session_b.sft_keeps_the_format,
        table(0.5, 0.95, 0.6),
        table(0.7, 0.95, 0.6),
        table(0.5, 0.8, 0.6),
        table(0.5, 0.95, 0.95),
    )


def test_what_is_copied():
    right = pd.Series({"service": 0.99, "time": 1.0})
    each_can_fail(session_b.copies_facts, {"copied": right}, {"copied": right - 0.1})
    assert "least often the service: 99.0%" in session_b.copies_facts(right).sentence
    each_can_fail(
        session_b.slips_when_sampled,
        {"greedy": right, "sampled": right - 0.1},
        {"sampled": right + 0.01},
    )


@pytest.mark.parametrize(
    ("won", "expected"),
    [
        (105, "about half of the time"),
        (140, "clearly more often, but not nearly always"),
        (198, "nearly always"),
    ],
)
def test_how_often_the_cooler_won(won, expected):
    measured = share([True] * won + [False] * (200 - won))
    found = session_b.cooler_won(Audit(200, (), {"the cooler won": measured}))
    assert said(found, "cooler_won") == expected and "of 200" in found.evidence


def audited(outcome: str, n: int, *rows: int) -> Audit:
    return Audit(n, (Finding("doubled rows", outcome, "", "", "", rows),))


def test_whether_faults_are_gone():
    each_can_fail(
        session_b.faults_are_gone,
        {"before": audited("fault", 9, 3, 4), "after": audited("ok", 7)},
        {"after": audited("fault", 7, 1)},
    )


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(0.9, "yes, clearly"), (0.1, "it stays near zero"), (-0.9, "it falls clearly")],
)
def test_whether_the_chosen_reward_rises(chosen, expected):
    last = pd.Series({"rewards/chosen": chosen, "rewards/margins": 1.0})
    assert said(session_b.chosen_reward(last), "chosen_reward") == expected


def test_whether_the_margin_has_grown():
    good = {
        "last": pd.Series({"rewards/margins": 1.0}),
        "history": [{"loss": 0.6}, {"eval_loss": 0.5, "eval_rewards/accuracies": 0.8}],
    }
    each_can_fail(
        session_b.margin_has_grown,
        good,
        {"last": pd.Series({"rewards/margins": 0.0})},
        {"history": [{"eval_loss": 0.7, "eval_rewards/accuracies": 0.5}]},
    )


def test_a_mystery_is_named_with_its_flags():
    runs = {run.condition.name: run for run in load_recorded()}
    ill = next(run for run in runs.values() if run.condition.disease not in ("", "healthy"))
    found = session_b.mystery(ill)
    assert found.option == ill.condition.name and ill.condition.disease in found.evidence
    assert session_b.mystery(runs["healthy"]).evidence == "flags: "


def test_whether_the_rules_hold():
    def table(named, alarms):
        lines = [("ill", 10, named, 0), ("healthy", 10, 0, alarms), ("", 10, 0, 0)]
        columns = ["disease", "runs", "named", "false alarms"]
        return {"detection": pd.DataFrame(lines, columns=columns)}

    each_can_fail(session_b.rules_hold, table(9, 0), table(8, 0), table(9, 1))


def test_nameless_runs_are_those_that_no_rule_could_name():
    runs = load_recorded()
    table = nameless_table(runs)
    assert len(table) == sum(not run.condition.disease for run in runs) > 0
    assert not any(name.startswith("healthy,") for name in table.index)
    assert table["wins over SFT"].str.fullmatch(r"\d+%|not compared").all()


USUAL = SimpleNamespace(beta=0.1, learning_rate=1e-3)


def sweep(**columns: list[float]) -> pd.DataFrame:
    """Five runs: the usual settings, two other betas, two other rates."""
    usual = {
        "beta": [0.1, 0.05, 1.0, 0.1, 0.1],
        "learning_rate": [1e-3, 1e-3, 1e-3, 1e-4, 1e-2],
        "win_rate": [0.7, 0.68, 0.66, 0.6, 0.4],
        "gap": [5.0, 5.2, 4.9, 1.0, 40.0],
        "margin": [0.5, 0.26, 4.9, 0.1, 4.0],
        "kl": [1.0, 1.1, 0.9, 0.1, 30.0],
    }
    return pd.DataFrame({**usual, **columns})


def test_what_moves_the_win_rate_more():
    found = session_b.beta_or_rate(sweep(), USUAL)
    assert said(found, "beta_or_rate") == "the learning rate"
    assert found.evidence == "beta moves it by 4.0%, the learning rate moves it by 30.0%"
    other = session_b.beta_or_rate(sweep(win_rate=[0.7, 0.3, 0.66, 0.6, 0.65]), USUAL)
    assert said(other, "beta_or_rate") == "beta"


def test_what_a_sweep_shows():
    each_can_fail(
        lambda sweep: session_b.what_a_sweep_shows(sweep, USUAL),
        {"sweep": sweep()},
        {"sweep": sweep(kl=[1.0, 1.1, 0.9, 2.0, 30.0])},
        {"sweep": sweep(margin=[0.5, 0.6, 4.9, 0.1, 4.0])},
        {"sweep": sweep(gap=[5.0, 9.0, 4.9, 1.0, 40.0])},
        {"sweep": sweep(win_rate=[0.7, 0.68, 0.66, 0.6, 0.8])},
    )


def test_what_asking_twice_mends_is_told():
    columns = ["wrong, asked once", "wrong, of those kept", "kept"]
    lines = [(0.15, 0.01, 0.8), (0.2, 0.19, 0.9), (0.0, 0.0, 0.95)]
    compared = pd.DataFrame(lines, ["likes the first", "errs in 20 %", "careful"], columns)
    text = session_b.asked_in_both_orders(compared).splitlines()
    assert text == [
        "the judge who likes the first is wrong on 15% of the pairs when asked once, and on 1% of "
        "those kept",
        "the judge who errs in 20 % is wrong on 20% of the pairs when asked once, and on 19% of "
        "those kept",
        "they keep 80% and 90% of the pairs; the careful judge keeps 95%",
    ]
    each_can_fail(session_b.still_moves, {"moved": estimate(-0.1)}, {"moved": estimate(0.0)})


def test_how_far_a_judge_moves_a_win_rate():
    truth = rate_of([1.0, 0.0, 0.5, None, 1.0])
    found = moved_by(rate_of([1.0, 0.5, 1.0, 1.0, None]), truth)
    assert found.value == pytest.approx(1 / 3) and found.low <= found.value <= found.high
    with pytest.raises(ValueError, match="no values"):
        moved_by(rate_of([1.0, None]), rate_of([None, 1.0]))


def noise(clean=0.8, fifth=0.7, worst=0.55, robust=0.55, low=0.6, wrong=0.4) -> pd.DataFrame:
    """As from `noise_table`."""
    lines = [
        ("DPO", 0.0, 0.0, clean),
        ("DPO", 0.2, 0.2, fifth),
        ("DPO", 0.4, wrong, worst),
        ("robust DPO", 0.4, wrong, robust),
    ]
    found = pd.DataFrame(lines, columns=["loss", "rate", "wrong", "win_rate"])
    return found.assign(low=low, high=0.9)


@pytest.mark.parametrize(
    ("worst", "expected"),
    [
        (0.79, "nearly all"),
        (0.65, "about half"),
        (0.52, "a quarter or less"),
        (0.45, "less than nothing"),
    ],
)
def test_what_remains_of_the_gain(worst, expected):
    assert said(session_b.remaining_gain(noise(worst=worst)), "remaining_gain") == expected


@pytest.mark.parametrize(
    ("robust", "expected"),
    [
        (0.6, "yes, by more than 2 points"),
        (0.56, "they differ by less than 2 points"),
        (0.5, "it wins less often"),
    ],
)
def test_whether_the_robust_loss_helps(robust, expected):
    found = session_b.robust_against_plain(noise(robust=robust))
    assert said(found, "robust_against_plain") == expected


def test_what_wrong_labels_cost():
    each_can_fail(
        lambda **changed: session_b.what_wrong_labels_cost(noise(**changed)),
        {},
        {"fifth": 0.5},
        {"low": 0.45},
        {"wrong": 0.2},
    )


def test_where_long_training_ends():
    optima = {"DPO, clean labels": 2.0, "DPO": 0.8, "robust DPO": 2.0}
    each_can_fail(
        session_b.where_long_training_ends,
        {"optima": optima},
        {"optima": optima | {"robust DPO": 1.0}},
        {"optima": optima | {"DPO": 1.5}},
    )
    fits = pd.DataFrame({"margin": [0.9, 0.8], "spread": [0.2, 0.01]})
    each_can_fail(
        session_b.more_labels,
        {"fits": fits, "optima": optima},
        {"fits": fits.iloc[::-1]},
        {"fits": fits.assign(margin=2.0)},
    )


def test_spoilt_rows_have_the_four_faults():
    train = [
        {
            "prompt": f"p{i}",
            "chosen": f"c{i}",
            "rejected": f"r{i}",
            "chosen_score": 2,
            "rejected_score": 1,
        }
        for i in range(60)
    ]
    rows = spoil(train, ["asked"], 5)
    assert len(rows) == 65 and rows[60:] == rows[:5]
    assert sum(row["chosen"] == row["rejected"] for row in rows[:60]) == 5
    assert sum(row["prompt"] == "ASKED" for row in rows[:60]) == 5
    assert sum(row["chosen_score"] < row["rejected_score"] for row in rows[:60]) == 5
    assert train[0]["prompt"] == "p0" and rows == spoil(train, ["asked"], 5)
    assert rows != spoil(train, ["asked"], 5, seed=1)
    bare = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in train]
    assert sum(row["chosen"].startswith("r") for row in spoil(bare, ["asked"], 5)[:60]) >= 4


# Session C.


def intervals(width: float) -> pd.DataFrame:
    return pd.DataFrame({"low": [0.0, 0.0], "high": [width, 90.0]}, index=["overall", "length"])


@pytest.mark.parametrize(
    ("width", "expected"), [(0.02, "a tenth"), (0.06, "about a third"), (0.18, "about the same")]
)
def test_how_much_narrower_the_intervals_are(width, expected):
    """Of shares alone: characters would drown them."""
    measured = pd.DataFrame({"row": range(300), "overall": 0.5, "length": 80.0})
    found = session_c.with_more_prompts(measured, intervals(width), intervals(0.2))
    assert said(found, "with_more_prompts") == expected
    assert f"on average {width:.3f} wide, not 0.200" in found.evidence
    assert "(√(30/300) is 32%)" in found.evidence


def test_what_the_table_shows():
    names = ["severity", "usefulness", "overall"]
    task = SimpleNamespace(metrics=[SimpleNamespace(name=name, kind="truth") for name in names])

    def table(*low):
        return {"table": pd.DataFrame({"difference": 0.1, "low": low}, index=names)}

    each_can_fail(
        lambda table: session_c.truer_than_sft(table, task),
        table(0.1, -0.1, 0.1),
        table(-0.1, -0.1, 0.1),
        table(0.1, 0.1, -0.1),
    )
    assert session_c.truer_than_sft(**table(-1, -1, -1), task=task)[0].sentence.startswith("half")


def test_intervals_by_hand():
    line = pd.Series({"low": 0.1, "high": 0.2})
    good = {"low": 0.1, "high": 0.205, "line": line}
    each_can_fail(session_c.same_interval, good, {"low": 0.2}, {"high": 0.3})
    good = {"paired": 0.1, "separate": 0.2, "correlation": 0.5}
    each_can_fail(
        session_c.pairing_narrows,
        good,
        {"paired": 0.3},
        {"correlation": -0.5},
        {"correlation": math.nan, "paired": 0.3},
    )


def won(value: float, by: float = 0.05):
    return replace(rate_of([1.0, 0.0]), estimate=estimate(value, by))


def test_whether_dpo_wins():
    each_can_fail(session_c.dpo_wins, {"result": won(0.7)}, {"result": won(0.53)})


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (0.99, "nearly always (more than 95 %)"),
        (0.8, "mostly (80 to 95 %)"),
        (0.79, "not reliably (less than 80 %)"),
    ],
)
def test_whether_thirty_prompts_are_enough(shown, expected):
    line = {"n": 30, "shown": shown, "estimate low": 0.1, "estimate high": 0.3}
    by_prompts = pd.DataFrame([line, {**line, "n": 300, "shown": 1.0}])
    found = session_c.thirty_are_enough(by_prompts, 300)
    assert said(found, "thirty_are_enough") == expected
    assert "from 60% to 80%" in found.evidence
    fewer = session_c.thirty_are_enough(by_prompts.replace({"n": {30: 20}}), 20)
    assert fewer.option == found.option


def test_a_taste_for_length():
    points = [1.0, 0.0, 1.0, 0.5, None, 1.0, 0.0]
    longer = [5, 5, -5, 5, 5, 0, -5]
    assert session_c.longer_chosen(points, longer, [0.5] * 7) == [1.0, 0.0, 0.0, 1.0]
    assert session_c.longer_chosen(points, longer, [1.0] * 7) == []
    told = [session_c.taste_for_length("x", chosen, 0.9) for chosen in ([1.0] * 40, [1.0, 0.0], [])]
    assert told[0].endswith("of 40 pairs: a taste for length") and "'x' prefers" in told[0]
    assert told[1].endswith("so few pairs show nothing by themselves")
    assert told[2].startswith("no pair is a tie in truth")


def test_at_equal_length():
    columns = ["win rate", "from", "to", "length-controlled", "low", "high"]

    def table(to=0.6, tempted=0.6, truth=0.6):
        lines = {
            "truth": [0.8, 0.7, 0.9, 0.7, truth, 0.8],
            "likes length": [0.5, 0.4, to, 0.7, tempted, 0.8],
        }
        return {"by_judge": pd.DataFrame(lines, columns).T}

    each_can_fail(
        session_c.at_equal_length, table(), table(truth=0.4), table(to=0.75), table(tempted=0.4)
    )


def test_what_a_judges_errors_do():
    each_can_fail(
        session_c.lead_is_understated,
        {"found": won(0.71), "truth": won(0.8), "errors": 0.15},
        {"found": won(0.8)},
        {"errors": 0.0},
    )
    each_can_fail(session_c.length_misleads, {"moved": estimate(-0.2)}, {"moved": estimate(-0.06)})


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (0.1, "the reward model, clearly"),
        (-0.1, "DPO's implicit reward, clearly"),
        (0.01, "they do not differ clearly"),
    ],
)
def test_which_ranks_better(ahead, expected):
    pairs = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}]
    found = session_c.better_ranker(estimate(ahead), pairs)
    assert said(found, "better_ranker") == expected
    assert found.evidence.endswith("on 3 pairs from 2 prompts")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, "wider gaps mean more wins"),
        (0.01, "no clear order is shown"),
        (-0.5, "wider gaps mean fewer wins"),
    ],
)
def test_what_wide_gaps_mean(value, expected):
    found = session_c.what_wide_gaps_mean(estimate(value), 40)
    assert (
        said(found, "what_wide_gaps_mean") == expected and "over 40 checkpoints" in found.evidence
    )


def test_where_the_gap_misleads():
    def runs(lied, widest):
        lines = [
            ("healthy", 5.0, 0.7, False),
            ("hot", 9.0, 0.2, lied),
            ("wild", 50.0, widest, False),
        ]
        return {"final": pd.DataFrame(lines, columns=["run", "gap", "win_rate", "lied"])}

    each_can_fail(session_c.gap_misleads, runs(True, 0.1), runs(False, 0.1), runs(True, 0.9))


def test_an_own_sweep_is_told():
    runs = pd.DataFrame(
        {"gap": [1.0, 2.0, 9.0], "win_rate": [0.6, 0.7, 0.3], "learning_rate": [1e-4, 1e-3, 1e-2]}
    )
    first, second = session_c.own_sweep(runs).splitlines()
    assert first.startswith("rank correlation -0.50 (")
    assert second == (
        "the widest gap: 9.0 nats, at learning rate 0.01, with a win rate of 30.0%; the highest "
        "win rate: 70.0%"
    )


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.95, "nearly always (at least 90 %)"),
        (0.6, "mostly (half to 90 %)"),
        (0.2, "less than half of the time"),
    ],
)
def test_whether_other_instructions_are_followed(share, expected):
    line = {"base": 1.0, "SFT": 0.8, "SFT+DPO": share}
    capability = pd.DataFrame([line], index=["other instructions followed"])
    found = session_c.still_follows(capability)
    assert said(found, "still_follows") == expected
    assert found.evidence == f"{share:.0%}; base 100%, SFT 80%"


def test_what_sft_has_cost():
    def capability(low):
        table = pd.DataFrame({"SFT low": [low]}, index=["perplexity of notes"])
        return {"capability": table}

    each_can_fail(session_c.sft_has_cost, capability(1.1), capability(0.9))
    good = {"kl": estimate(2.0), "tokens": 40.0, "limit": 0.1}
    each_can_fail(session_c.stays_near_sft, good, {"kl": estimate(5.0)}, {"tokens": 10.0})


def recorded(name: str, disease: str, win_rate: tuple[float, float, float], margin: float = 1.0):
    return SimpleNamespace(
        condition=SimpleNamespace(name=name, disease=disease),
        end=SimpleNamespace(win_rate=win_rate),
        metrics=pd.DataFrame({"held/margin": [0.0, margin]}),
    )


def test_the_gallerys_verdicts():
    won, lost = (0.7, 0.6, 0.8), (0.2, 0.1, 0.3)
    cases = {
        "A": recorded("healthy", "healthy", won),
        "B": recorded("hot", "kl", lost),
        "C": recorded("idle", "", lost, margin=0.0),
        "D": recorded("odd", "", won),
    }
    assert session_c.healthy_run(cases, ["A", "D"]) == ("A", "A: healthy, D: odd")
    assert session_c.with_a_good_margin(cases).endswith(
        "B, C; of these the margin still looks good in: B"
    )
    fewer = {letter: cases[letter] for letter in "AC"}
    assert session_c.with_a_good_margin(fewer).endswith(" in: none")
    each_can_fail(session_c.worse_than_none, {"cases": cases}, {"cases": fewer})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.7, "it wins, the whole interval above 50 %"),
        (0.52, "no difference is shown"),
        (0.3, "it loses"),
    ],
)
def test_whether_the_real_model_wins(value, expected):
    assert said(session_c.real_model_wins(estimate(value)), "real_model_wins") == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0.9, "about as often as with them"),
        (0.4, "about half as often"),
        (0.02, "hardly ever"),
    ],
)
def test_what_is_learnt_without_the_pairs(after, expected):
    line = {"SFT": 0.0, "SFT+DPO": 0.95, LEFT_OUT: after}
    table = pd.DataFrame([line], index=["names a change"])
    found = session_c.without_their_lesson(table)
    assert said(found, "without_their_lesson") == expected
    assert found.evidence.startswith(f"{after:.0%}") and "95% with" in found.evidence


def lessons_and_unknown(praised, blamed, change, none):
    rows = ["names a change", "names none"]
    columns = ["only the chosen says unknown", "only the rejected does"]
    return {
        "lessons": pd.DataFrame([[praised, blamed], [0, 0]], index=rows, columns=columns),
        "unknown": pd.DataFrame({SECOND_ROUND: [change, none]}, index=rows),
    }


def test_what_the_second_round_teaches():
    each_can_fail(
        session_c.second_round_tells_when,
        lessons_and_unknown(4, 19, 0.0, 0.5),
        lessons_and_unknown(16, 1, 0.0, 0.5),
        lessons_and_unknown(4, 19, 0.4, 0.5),
    )


def test_what_the_second_round_wins():
    def table(shuffled, greedy):
        return pd.DataFrame({"win rate": [shuffled, greedy]}, index=[SHUFFLED, GREEDY["SFT"]])

    better = rate_of([1.0] * 60 + [0.0] * 20)
    slightly, clearly = rate_of([1.0] * 45 + [0.0] * 35), rate_of([1.0] * 70 + [0.0] * 10)
    good = {"rounds": better, "over_sft": slightly, "against": table(0.45, 0.56)}
    each_can_fail(
        session_c.second_round_helps,
        good,
        {"rounds": slightly},
        {"over_sft": clearly},
        {"against": table(0.55, 0.56)},
        {"against": table(0.45, 0.3)},
    )
    needed = prompts_needed(slightly.rated, slightly.estimate.value - 0.5)
    assert any(f"some {needed}" in claim.sentence for claim in session_c.second_round_helps(**good))


def test_what_pairs_teach_of_unknown(triples):
    change = next(row for row in triples if row["facts"]["change"])
    none = next(row for row in triples if not row["facts"]["change"])
    assert (kind_of(change), kind_of(none)) == ("names a change", "names none")
    unknown, cause = "x\ncause: unknown", "x\ncause: suspected deploy 4"
    answers = {"SFT": [cause, cause, unknown], "DPO": [unknown] * 3}
    table = unknown_by_alert([change, none, none], answers)
    assert table.loc["names a change"].tolist() == [0, 1]
    assert table.loc["names none"].tolist() == [0.5, 1]
    pairs = [
        {**none, "chosen": unknown, "rejected": cause},
        {**none, "chosen": unknown, "rejected": unknown},
        {**change, "chosen": cause, "rejected": unknown},
    ]
    lessons = lessons_on_unknown(pairs)
    assert lessons.loc["names none"].tolist() == [2, 1, 0]
    assert lessons.loc["names a change"].tolist() == [1, 0, 1]
    assert np.issubdtype(lessons["pairs"].dtype, np.integer)
