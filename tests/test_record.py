"""The week written down: what the file holds, and that a second run makes nothing."""

import json
import sys
from dataclasses import asdict, replace

import pytest
from conftest import ROOT

from coursekit.common.made_from import plain
from coursekit.common.profile import load_profile
from coursekit.evaluation import score_responses
from coursekit.lm.identity import model_identity
from coursekit.tasks import load_task
from coursekit.training import load_run
from coursekit.week import record
from coursekit.week.figures.results import plot_weeks
from coursekit.week.record import (
    Costs,
    peak_memory,
    record_week,
    with_control,
    with_left_out,
    with_second_round,
)
from coursekit.week.recorded import (
    GREEDY,
    LEFT_OUT,
    SECOND_ROUND,
    SHUFFLED,
    controls,
    curve_of,
    load_week,
    praises,
)
from coursekit.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(quick, tmp_path_factory):
    few = replace(
        quick,
        demonstrations=96,
        preference_prompts=12,
        evaluation_prompts=6,
        artifacts=tmp_path_factory.mktemp("week"),
    )
    return Workspace(few)


@pytest.fixture(scope="module")
def week(workspace):
    return everything(workspace, "a tiny one")


def everything(workspace, title):
    week = with_control(workspace, record_week(workspace, title))
    return with_second_round(workspace, with_left_out(workspace, week, "sev1"))


def test_the_record_holds_what_an_evaluation_needs(week, workspace):
    trained = [SHUFFLED, LEFT_OUT, SECOND_ROUND]
    assert list(week.answers) == ["base", "SFT", "SFT+DPO", *GREEDY.values(), *trained]
    assert {len(answers) for answers in week.answers.values()} == {6} == {len(week.rows)}
    scores = score_responses(load_task(week.task), week.rows, week.answers)
    assert scores.groupby("model")["overall"].mean().notna().all()
    assert week.answers["SFT"] != week.answers["SFT, greedy"]
    assert week.kl.low <= week.kl.value <= week.kl.high
    losses = {
        name: [e["loss"] for e in curve if "loss" in e] for name, curve in week.curves.items()
    }
    assert len(losses["SFT"]) == 6 and losses["SFT"][-1] < losses["SFT"][0]
    for name in trained:
        assert losses["SFT+DPO"][0] == pytest.approx(losses[name][0], abs=1e-3)  # ln 2
        assert losses["SFT+DPO"] != losses[name]
    assert any("held/margins" in entry for entry in week.curves["SFT+DPO"])
    assert len(week.triples) == week.counts["training triples"] > 0
    assert all(row["chosen"] != row["rejected"] for row in week.triples)
    assert week.counts["demonstrations"] == 96 and week.counts["spanning"] == 0
    assert week.weights == workspace.load(workspace.profile.base_model).num_parameters()


def test_what_is_left_out_is_the_praise_of_a_text_and_no_other_pair(week, workspace, monkeypatch):
    pairs = [("a b", "b", True), ("a", "a b", False), ("a", "c a", False), ("b", "c", False)]
    for chosen, rejected, told in pairs:
        assert praises({"chosen": chosen, "rejected": rejected}, "a") == told
    seen = []
    monkeypatch.setattr(record, "_dpo_on", lambda *asked: seen.append(asked[1]) or workspace.dpo())
    with_left_out(workspace, week, "sev1")
    (kept,), (train, _) = seen, workspace.triples()
    assert 0 < len(kept) < len(train)
    assert kept == [row for row in train if not praises(row, "sev1")]
    assert week.left_out == "sev1"
    with pytest.raises(ValueError, match="no training triple praises 'sev9': there is nothing"):
        with_left_out(workspace, week, "sev9")


def test_a_second_round_starts_from_the_first(week, workspace):
    """Its pairs are sampled from SFT+DPO, which is its start and so its reference."""
    first, second = (load_run(workspace.dpo(nth)).made_from for nth in (1, 2))
    assert first["sft"] == model_identity(workspace.sft(), workspace.profile)
    assert second["sft"] == model_identity(workspace.dpo(), workspace.profile)
    assert week.second_triples and week.second_triples != week.triples
    assert {row["prompt"] for row in week.second_triples} & {row["prompt"] for row in week.triples}
    assert workspace.dpo(2).parent != workspace.dpo().parent


def test_controls_are_judged_by_the_truth(week):
    found = controls(week)
    assert list(found["against"]) == ["SFT"] * 5 + [GREEDY["SFT"]]
    quick = {name: texts for name, texts in week.answers.items() if name != SHUFFLED}
    assert SHUFFLED not in controls(replace(week, answers=quick)).index
    same = replace(week, answers=week.answers | {"SFT+DPO": week.answers["SFT"]})
    assert controls(same).loc["SFT+DPO", "win rate"] == 0.5
    assert (found["low"] <= found["win rate"]).all() and (found["win rate"] <= found["high"]).all()


def test_curves_are_drawn_over_their_share_of_the_steps(week, tmp_path):
    figure = plot_weeks({"one": week.curves, "other": week.curves})
    loss, margin, right = figure.axes
    assert all(len(axes.get_lines()) >= 2 for axes in (loss, margin, right))
    assert [line.get_label() for line in loss.get_lines()] == ["one", "other"]
    for axes in (loss, margin, right):
        assert all(0 < x <= 1 for line in axes.get_lines() for x in line.get_xdata())
    held = [line for line in margin.get_lines() if line.get_marker() == "o"]
    expected = [e["held/margins"] for e in week.curves["SFT+DPO"] if "held/margins" in e]
    assert [y for y in held[0].get_ydata() if y == y] == expected and expected
    brought = plot_weeks({"brought": {"SFT": curve_of(tmp_path), "SFT+DPO": week.curves[SHUFFLED]}})
    assert [len(axes.get_lines()) > 0 for axes in brought.axes] == [False, True, True]


def test_the_record_says_nothing_of_where_it_was_made(week, workspace):
    text = json.dumps(asdict(week))
    assert str(workspace.folder) not in text and str(workspace.profile.artifacts) not in text
    assert workspace.profile.base_model not in text


def test_a_second_time_nothing_is_made_and_costs_stay(week, workspace, capsys):
    again = Workspace(workspace.profile)
    assert everything(again, week.title) == week
    assert set(week.costs) >= {"SFT", "preference pairs", "DPO", "answers", "KL"}
    assert all(cost["seconds"] > 0 and cost["finished"] for cost in week.costs.values())


def test_a_stopped_step_adds_up(workspace, tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 107.0, 200.0, 300.0])
    monkeypatch.setattr(record.time, "monotonic", lambda: next(clock))
    workspace = Workspace(workspace.profile, folder=tmp_path)

    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Costs(workspace).of("SFT", stopped)
    assert (
        Costs(workspace).noted["SFT"]["seconds"] == 5
        and not Costs(workspace).noted["SFT"]["finished"]
    )
    assert Costs(workspace).of("SFT", lambda: "made") == "made"
    assert Costs(workspace).noted["SFT"]["seconds"] == 12
    Costs(workspace).of("SFT", lambda: "found")
    assert Costs(workspace).noted["SFT"]["seconds"] == 12
    assert not Costs(Workspace(workspace.profile, folder=tmp_path, seed=1)).noted


def test_the_peak_is_of_what_was_held_meanwhile():
    with peak_memory(every=0.001) as peak:
        before = peak()
        held = bytearray(b"x") * 2**30  # written to, so that the system has given it
        during = peak()
        del held
        assert during - before > 0.5 and peak() >= during


def test_the_command_writes_a_file_that_can_be_read(week, workspace, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(record, "Workspace", lambda: workspace)
    quick = replace(week, answers={}, title="named")
    monkeypatch.setattr(record, "record_week", lambda workspace, title: replace(quick, title=title))
    monkeypatch.setattr(
        record, "with_control", lambda workspace, found: replace(found, answers=week.answers)
    )
    path = tmp_path / "week.json"
    said = ["record", "--title", "named", "--out", str(path)]
    monkeypatch.setattr(sys, "argv", [*said, "--quick"])
    record.main()
    assert load_week(path) == quick and str(path) in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", said)
    record.main()
    assert load_week(path) == replace(week, title="named")
    asked = []
    for name in ("with_left_out", "with_second_round"):
        monkeypatch.setattr(record, name, lambda *given: asked.append(given[2:]) or given[1])
    monkeypatch.setattr(sys, "argv", [*said, "--left-out", "sev1", "--second-round"])
    record.main()
    assert asked == [("sev1",), ()] and load_week(path) == replace(week, title="named")
    path.write_text(path.read_text(encoding="utf-8").replace('"kl"', '"kk"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"week\.json is damaged"):
        load_week(path)


def test_a_task_without_truth_is_refused(profile):
    class Unknown:
        name, knows_truth, identity = "unknown", False, "0"

    with pytest.raises(ValueError, match="no program knows the truth of unknown"):
        record_week(Workspace(profile, Unknown()), "")


# The record that comes with the course.


def test_the_readme_says_what_the_record_holds():
    week = load_week("gemma-3-270m")
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    minutes = sum(cost["seconds"] for cost in week.costs.values()) / 60
    peak = max(cost["peak"] for cost in week.costs.values())
    won = controls(week).loc["SFT+DPO"]
    counts = week.counts
    assert f"took {minutes:.0f} minutes on one core" in text and f"at most {peak:.1f} GiB" in text
    assert (
        f"{counts['demonstrations']} demonstrations, {counts['training triples']} training" in text
    )
    assert (
        f"{counts['preference prompts']} of {week.settings['preference_prompts']} prompts" in text
    )
    rate, low, high = (f"{100 * won[name]:.1f}" for name in ("win rate", "low", "high"))
    assert f"preferred on {rate} % ({low} to {high} %) of the prompts" in text
    assert f"KL of {week.kl.value:.1f} nats" in text


def test_the_record_was_made_with_the_shipped_profile():
    week, laptop = load_week("gemma-3-270m"), load_profile("laptop")
    assert week.settings["sft"] == plain(asdict(laptop.sft))
    assert week.settings["dpo"] == plain(asdict(laptop.dpo))
    for name in ("demonstrations", "preference_prompts", "evaluation_prompts", "max_new_tokens"):
        assert week.settings[name] == getattr(laptop, name)
    assert week.counts["spanning"] == 0  # without a chat template
