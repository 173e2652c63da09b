"""Recording runs that go wrong, and the contest on the way: what is asked, compared and written."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from coursekit.evaluation.judges import ProgramJudge
from coursekit.tasks.triage import TRIAGE
from coursekit.training import WinRateCallback
from coursekit.week import gallery
from coursekit.workspace import Workspace


@pytest.fixture()
def spoken(monkeypatch):
    """`generate` replaced: the model is the list of its answers."""
    asked = []

    def generate(model, tokenizer, prompts, **options):
        asked.append((list(prompts), options))
        return model[: len(prompts)]

    monkeypatch.setattr("coursekit.lm.generation.generate", generate)
    return asked


def test_the_contest_asks_on_the_way_and_at_the_end(spoken, profile, triples):
    good, bad = [row["chosen"] for row in triples], [row["rejected"] for row in triples]
    contest = WinRateCallback(triples, bad, ProgramJudge(TRIAGE), "tokenizer", profile, times=3)
    models = {4: bad, 8: [*good[:8], *bad[8:]], 10: good}
    for step in range(1, 11):
        state = SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=True)
        contest.on_step_end(None, state, None, model=models.get(4 * (step // 4), bad))
    # Every third step (ten over three), and the last.
    assert [line["step"] for line in contest.measured] == [3, 6, 9, 10]
    contest.measured.clear()
    for step, model in models.items():
        state = SimpleNamespace(global_step=step, max_steps=step, is_world_process_zero=True)
        contest.on_step_end(None, state, None, model=model)
    # A tie counts half; half of the reports better; all better.
    assert [line["contest/win_rate"] for line in contest.measured] == [0.5, 0.75, 1.0]
    assert contest.answers == good
    prompts, options = spoken[-1]
    assert prompts == [row["prompt"] for row in triples]
    assert options["max_new_tokens"] == profile.max_new_tokens and options["temperature"] == 0.7


@pytest.fixture()
def without_models(monkeypatch, spoken, triples):
    """What `record` calls, replaced: SFT writes the rejected reports, the run the chosen ones."""
    good, bad = [row["chosen"] for row in triples], [row["rejected"] for row in triples]
    ran = []

    def run_condition(condition, sft, train, validation, prompts, folder, profile, **options):
        ran.append((condition.name, options["seed"]))
        contest = options["contest"]
        assert contest.baseline == bad and len(prompts) == 24
        state = SimpleNamespace(global_step=2, max_steps=2, is_world_process_zero=True)
        contest.on_step_end(None, state, None, model=good)
        return SimpleNamespace(folder=folder)

    metrics = pd.DataFrame({"step": [1, 2], "loss": [0.7, 0.123456], "nobody reads": [1, 1]})
    monkeypatch.setattr(Workspace, "sft", lambda self: "sft")
    monkeypatch.setattr(Workspace, "triples", lambda self: (triples[:12], triples[12:]))
    monkeypatch.setattr("coursekit.lm.loading.load_model", lambda *a: bad)
    monkeypatch.setattr("coursekit.lm.loading.load_tokenizer", lambda *a: None)
    monkeypatch.setattr("coursekit.training.load_metrics", lambda folder: metrics)
    monkeypatch.setattr(
        gallery.RECORDED_TASK,
        "rows",
        lambda split, n, *a, **o: (triples * 2)[: min(n, 24)] if split == "validation" else triples,
    )
    monkeypatch.setattr(gallery, "run_condition", run_condition)
    return ran


def test_a_run_is_recorded_with_its_end_and_read_back(without_models, profile, triples, tmp_path):
    gallery.record(replace(profile, threads=1), [3], tmp_path, healthy_only=True)
    healthy = [c.name for c in gallery.CONDITIONS if c.disease == "healthy"]
    assert without_models == [(name, 3) for name in healthy]
    runs = gallery.load_recorded(tmp_path)
    assert sorted(run.condition.name for run in runs) == sorted(healthy)
    run = next(run for run in runs if run.condition.name == "healthy")
    assert run.seed == 3 and run.beta == profile.dpo.beta
    assert list(run.metrics.columns) == ["step", "loss", "contest/win_rate"]
    assert run.metrics["loss"].tolist() == [0.7, 0.1235]
    assert run.metrics["contest/win_rate"].isna().tolist() == [True, False]
    assert run.metrics["contest/win_rate"][1] == 1 == run.end.win_rate[0]
    assert run.end.answers["SFT"] == [row["rejected"] for row in triples[:2]]
    assert run.end.answers["this run"] == [row["chosen"] for row in triples[:2]]
    assert run.end.scores["this run"]["overall"] == 1 > run.end.scores["SFT"]["overall"]


def test_what_is_recorded_is_not_run_again(without_models, profile, tmp_path):
    here = replace(profile, threads=1)
    gallery.record(here, [0], tmp_path, healthy_only=True)
    first = len(without_models)
    (tmp_path / "healthy.0.csv").unlink()  # a kill before it was written
    gallery.record(here, [0], tmp_path, healthy_only=True)
    assert without_models[first:] == [("healthy", 0)]
    assert json.loads((tmp_path / "healthy.0.json").read_text(encoding="utf-8"))["win_rate"][0] == 1
