"""What session C calls: capability, gap and win, the record, the portfolio, the gallery's page."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from coursekit.common.statistics import Estimate
from coursekit.evaluation import (
    capability_scores,
    capability_table,
    comparison_table,
    load_three_way,
    save_three_way,
    score_responses,
    win_rate,
)
from coursekit.evaluation.judges import ProgramJudge
from coursekit.lm.identity import model_identity
from coursekit.lm.loading import load_model
from coursekit.lm.logprobs import sequence_logps
from coursekit.tasks.triage import TRIAGE
from coursekit.week.deliverables import portfolio, reflection
from coursekit.week.figures.results import plot_exhibit, plot_gap_and_win, plot_intervals
from coursekit.week.gallery import (
    CONDITIONS,
    EXHIBITED,
    SHOWN,
    contest_rows,
    exhibition,
    load_recorded,
)
from coursekit.week.gap import checkpoints, gap_and_win, rank_correlation
from coursekit.week.widgets import comparison, exhibits
from coursekit.workspace import Workspace

# Capability.


def test_held_out_documents_are_new_and_of_both_kinds():
    documents = TRIAGE.probes(20)
    assert sum(item.kind == "question" for item in documents) == 20 and len(documents) == 40
    asked = [[item.prompt for item in TRIAGE.probes(20, seed)] for seed in (0, 0, 1)]
    assert [item.prompt for item in documents] == asked[0] == asked[1] != asked[2]


def test_perplexity_and_answers_are_what_they_say(model, tokenizer, profile):
    documents = TRIAGE.probes(6)
    scores = capability_scores({"base": model}, tokenizer, documents, max_new_tokens=8)
    expected = -sequence_logps(
        model, tokenizer, [d.prompt for d in documents], [d.response for d in documents]
    )
    assert scores["nats"].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    notes = scores[scores["kind"] != "question"]
    table = capability_table(
        capability_scores({"base": model, "same": model}, tokenizer, documents, max_new_tokens=8),
        before="base",
    )
    line = table.loc["perplexity of notes"]
    assert line["base"] == pytest.approx(math.exp(notes["nats"].sum() / notes["tokens"].sum()))
    assert line["same change"] == pytest.approx(1) and line["same low"] == pytest.approx(1)
    # Greedy decoding itself agrees with what is read off the scores.
    from coursekit.lm.generation import generate

    asked = [item for item in documents if item.kind == "question"]
    said = generate(model, tokenizer, [item.prompt for item in asked], max_new_tokens=24)
    right = [text == item.response for text, item in zip(said, asked, strict=True)]
    answered = scores[scores["kind"] == "question"]["answered"]
    assert answered.tolist() == [float(value) for value in right] and sum(right) > 0


def test_a_spoilt_model_is_seen_to_have_lost_something(model, tokenizer, profile):
    import torch

    spoilt = load_model(profile.base_model, profile)
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    scores = capability_scores(
        {"base": model, "spoilt": spoilt}, tokenizer, TRIAGE.probes(30), max_new_tokens=8
    )
    table = capability_table(scores, before="base")
    assert table.loc["perplexity of notes", "spoilt low"] > 1
    assert table.loc["questions answered", "spoilt high"] < 0


def test_the_harness_runs_offline_and_agrees(profile, tokenizer, model, tmp_path):
    pytest.importorskip("lm_eval")
    from coursekit.evaluation.harness import QUESTIONS, run_harness, write_questions

    n = 24
    results = run_harness(
        profile.base_model, profile, task_folder=write_questions(TRIAGE, tmp_path, n)
    )
    rows = [
        json.loads(line)
        for line in (tmp_path / f"{QUESTIONS}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    right = 0
    for row in rows:
        # The harness compares the answers' sums without the end token; all are equally long here.
        logps = sequence_logps(
            model, tokenizer, [row["question"]] * 3, row["choices"], per_token=True
        )
        right += max(range(3), key=lambda i: logps[i][:-1].sum().item()) == row["answer"]
    assert results[QUESTIONS]["acc,none"] == pytest.approx(right / n)
    assert right / n > 0.5


def test_without_the_harness_the_error_says_what_to_install(profile, monkeypatch):
    import sys

    from coursekit.evaluation.harness import run_harness

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ModuleNotFoundError, match='pip install "lm-eval'):
        run_harness(profile.base_model, profile)


def test_notes_open_in_their_style():
    from itertools import islice

    from coursekit.tasks.triage.corpus import OPENINGS, corpus, opens_as

    notes = [item for item in islice(corpus(), 400) if item.kind in OPENINGS]
    assert {item.kind for item in notes} == set(OPENINGS)
    for item in notes:
        assert [style for style in OPENINGS if opens_as(style, item.response)] == [item.kind]


# Gap and win.


def points(gaps, wins):
    return pd.DataFrame(
        {"run": [f"r{i // 2}" for i in range(len(gaps))], "seed": 0, "gap": gaps, "win_rate": wins}
    )


def test_rank_correlation():
    gaps = list(range(20))
    assert rank_correlation(points(gaps, gaps), "gap").value == pytest.approx(1)
    against = rank_correlation(points(gaps, [-gap for gap in gaps]), "gap")
    assert against.value == pytest.approx(-1) and against.high < -0.9
    rng = np.random.default_rng(0)
    nothing = rank_correlation(points(rng.random(200), rng.random(200)), "gap")
    assert nothing.low < 0 < nothing.high
    with pytest.raises(ValueError, match="at least three"):
        rank_correlation(points([1, 2], [1, 2]), "gap")


def test_the_bootstrap_of_the_correlation_draws_whole_runs():
    """Copies of a run's points are no new evidence: the interval must not shrink."""
    rng = np.random.default_rng(1)
    few = points(rng.random(16), rng.random(16))
    many = pd.concat([few] * 10, ignore_index=True)
    narrow, wide = rank_correlation(many, "gap"), rank_correlation(few, "gap")
    assert narrow.high - narrow.low > 0.8 * (wide.high - wide.low)


def test_where_the_gap_lied():
    found = gap_and_win(points([1, 5, 9, 9], [0.7, 0.4, 0.4, 0.6]), healthy=4)
    assert found["lied"].tolist() == [False, True, True, False]


def test_the_recorded_runs_were_compared_on_the_way():
    runs = [run for run in load_recorded() if run.end]
    assert {run.condition.name for run in runs} == {condition.name for condition in CONDITIONS}
    found = checkpoints(runs)
    assert (found.groupby(["run", "seed"]).size() >= 4).all()
    assert found[["gap", "kl", "win_rate"]].notna().all(axis=None)
    for run in runs:  # the last comparison is the one whose answers are kept
        last = found[(found["run"] == run.condition.name) & (found["seed"] == run.seed)].iloc[-1]
        assert last["win_rate"] == pytest.approx(run.end.win_rate[0], abs=1e-3)
        assert run.end.win_rate[1] <= run.end.win_rate[0] <= run.end.win_rate[2]
    assert len(plot_gap_and_win(gap_and_win(found, 2.0)).axes) == 3


# The gallery's page.


def test_the_gallery_shows_at_least_eight_and_folds_the_answer(profile):
    cases = exhibition(load_recorded())
    assert len(cases) >= 8 and [run.condition.name for run in cases.values()] == list(EXHIBITED)
    assert all(run.condition.story for run in cases.values())
    page = exhibits(cases, contest_rows(profile)[1], place=1).data
    shown = re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)
    for letter, run in cases.items():
        assert f"Run {letter}" in shown
        assert run.condition.name in page and run.condition.name not in shown
    assert page.count("data:image/png") == len(cases) == page.count("<details")
    assert len(page) < 1_500_000
    assert plot_exhibit(next(iter(cases.values())).metrics).axes


def test_a_condition_changes_one_thing_or_says_what_else():
    for condition in CONDITIONS:
        if condition.name == "healthy":
            continue
        plain = CONDITIONS[0]
        changed = len(condition.settings) + sum(
            getattr(condition, name) != getattr(plain, name)
            for name in ("rows", "triples", "start", "reference")
        )
        said = ("Three things at once", "All triples, with", "As many steps")
        assert changed == 1 or condition.story.startswith(said), condition.name


def test_the_alert_that_is_shown_is_the_one_that_was_answered(profile):
    rows = contest_rows(profile)
    for run in load_recorded():
        if run.end:
            for row, text in zip(rows, run.end.answers["SFT"], strict=False):
                assert row["facts"]["service"] in text


def test_the_recorded_runs_were_compared_with_the_same_answers():
    """One SFT model throughout; and a run that learnt nothing still says nearly what that said."""
    ends = {run.condition.name: run.end for run in load_recorded() if run.end and run.seed == 0}
    healthy = ends["healthy"]
    for end in ends.values():
        assert end.answers["SFT"] == healthy.answers["SFT"]
        assert end.scores["SFT"] == healthy.scores["SFT"]
        assert len(end.answers["this run"]) == SHOWN
    idle = ends["learning rate far too low"]
    assert idle.scores["this run"]["overall"] == pytest.approx(
        idle.scores["SFT"]["overall"], abs=0.02
    )


# The record, the reflection, the portfolio.


@pytest.fixture()
def saved(profile, triples, tmp_path):
    good, bad = [row["chosen"] for row in triples], [row["rejected"] for row in triples]
    judge = ProgramJudge(TRIAGE)
    scores = score_responses(
        TRIAGE, triples, {"base": bad, "SFT": bad, "SFT+DPO": good}, judge=judge, against="SFT"
    )
    table = comparison_table(scores, candidate="SFT+DPO", baseline="SFT")
    here = replace(profile, artifacts=tmp_path)
    record = save_three_way(
        tmp_path / "triage" / here.name,
        table,
        win_rate(triples, good, bad, judge),
        made_from={"models": {"base": "a", "SFT": "b", "SFT+DPO": "c"}},
        length_controlled=Estimate(0.9, 0.8, 1.0),
        kl=Estimate(1.0, 0.5, 1.5),
        capability=pd.DataFrame(
            [
                ("perplexity of notes", 1.1, 1.2, 1.25, 1.13, 1.1, 1.2),
                ("questions answered", 0.9, 0.9, 0.8, -0.1, -0.2, 0.0),
            ],
            columns=[
                *("measure", "base", "SFT", "SFT+DPO"),
                *("SFT+DPO change", "SFT+DPO low", "SFT+DPO high"),
            ],
        ).set_index("measure"),
    )
    return here, record, table


def test_the_record_is_read_back_and_ends_with_the_pairwise_line(saved):
    here, record, table = saved
    folder = here.artifacts / "triage" / here.name
    assert load_three_way(folder) == record and load_three_way(here.artifacts) is None
    text = (folder / "three_way.txt").read_text(encoding="utf-8")
    assert text.strip().splitlines()[-1] == record.pairwise
    assert "SFT+DPO against SFT: win rate 100.0%" in record.pairwise
    assert "severity" in text and "preferred" in text
    markdown = (folder / "three_way.md").read_text(encoding="utf-8")
    assert "## What it cost elsewhere" in markdown and "| preferred |" in markdown
    assert "| perplexity of notes | 1.10 | 1.20 | 1.25 | ×1.13 | ×1.10 to ×1.20 |" in markdown
    assert "| questions answered | 0.90 | 0.90 | 0.80 | -0.10 | -0.20 to +0.00 |" in markdown
    assert table.loc["preferred", "SFT"] == 0.5 and table.loc["preferred", "SFT+DPO"] == 1


@pytest.mark.parametrize("damage", ['{"models": ', "[]", '{"n": 3}'])
def test_a_damaged_record_says_what_to_do(damage, tmp_path):
    from coursekit.evaluation import load_three_way

    (tmp_path / "three_way.json").write_text(damage, encoding="utf-8")
    with pytest.raises(ValueError, match=r"three_way.json is damaged .*section 11 again"):
        load_three_way(tmp_path)


def test_the_table_for_reading(saved):
    html = comparison(saved[2]).to_html()
    assert "95 % interval" in html and "16 prompts" in html and "what it shows" in html
    assert "&lt;\u00a00.001" in html  # what no line break parts


def test_the_reflection_carries_the_table_and_is_never_overwritten(saved, capsys):
    here, record, _ = saved
    made = reflection(record, here.artifacts)
    text = made.path.read_text(encoding="utf-8")
    assert made.words == 0 and record.markdown in text and record.pairwise in text
    made.path.write_text(
        text + "\nMy own eleven words are not in any line of it.\n", encoding="utf-8"
    )
    other = replace(record, pairwise="SFT+DPO against SFT: another", markdown="| x |")
    again = reflection(other, here.artifacts)
    assert "My own eleven words" in again.path.read_text(encoding="utf-8")
    assert "table of an earlier run" in capsys.readouterr().out
    assert reflection(record, here.artifacts).words == 11


def test_the_portfolio_says_what_is_missing_and_where_to_make_it(profile, tmp_path):
    table = portfolio(Workspace(replace(profile, artifacts=tmp_path)))
    assert len(table) == 11 and set(table["state"]) == {"missing"}
    assert table["where"].str.startswith("session ").all()
    assert not any(tmp_path.iterdir())  # looking makes nothing


def test_the_portfolio_finds_what_is_sound(saved, quick, sft_folder, triples):
    from coursekit.common.files import save_jsonl
    from coursekit.training import train_dpo
    from coursekit.week.deliverables import TEMPLATES

    here, record, _ = saved
    runs = here.artifacts / "triage" / here.name
    here = replace(quick, artifacts=here.artifacts)
    Workspace(here).use_sft(sft_folder)
    train_dpo(sft_folder, triples, runs / "dpo", here, save_strategy="no")
    (here.artifacts / "notes").mkdir()
    (here.artifacts / "notes" / "dpo.md").write_text(
        TEMPLATES["dpo"] + "word " * 600, encoding="utf-8"
    )
    (here.artifacts / "notes" / "instructgpt.md").write_text(
        TEMPLATES["instructgpt"] + "word " * 9, encoding="utf-8"
    )
    save_jsonl(triples, runs / "triples.jsonl")
    found = portfolio(Workspace(here))
    assert found.loc["notes on DPO", "state"] == "sound"
    assert found.loc["notes on InstructGPT", "found"] == "9 words, at least 200 wanted"
    assert found.loc["preference triples", "state"] == "unfinished"  # sixteen are too few
    assert found.loc["DPO adapter", "state"] == "sound"
    stale = found.loc["three-way evaluation"]
    adapter = model_identity(runs / "dpo", here)
    assert stale["state"] == "unfinished" and f'SFT+DPO was "c", now "{adapter}"' in stale["found"]
    # Evaluated again, it is this adapter's.
    path = runs / "three_way.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["made_from"] = Workspace(here).evaluated(
        {"base": here.base_model, "SFT": sft_folder, "SFT+DPO": runs / "dpo"},
        Workspace(here).rows("evaluation"),
    )
    path.write_text(json.dumps(content), encoding="utf-8")
    assert portfolio(Workspace(here)).loc["three-way evaluation", "found"] == record.pairwise
    other = replace(here, dpo=replace(here.dpo, beta=0.3))
    line = portfolio(Workspace(other)).loc["DPO adapter"]
    assert line["state"] == "unfinished" and "beta was 0.1, now 0.3" in line["found"]
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    for piece in ("three-way evaluation", "reflection"):
        line = portfolio(Workspace(here)).loc[piece]
        assert line["state"] == "unfinished" and "three_way.json is damaged" in line["found"]


def test_a_cut_adapter_or_release_is_not_called_sound(profile, tmp_path):
    """By the files alone: what is cut is found before anything is loaded."""
    import torch
    from safetensors.torch import save_file

    from coursekit.common.made_from import write_record

    here = replace(profile, artifacts=tmp_path)
    runs = tmp_path / "triage" / here.name
    weights = {
        f"base_model.model.model.layers.{layer}.q_proj.lora_{part}.weight": torch.ones(2, 3)
        for layer in range(3)
        for part in "AB"
    }
    for folder in (runs / "dpo", runs / "releases" / "v0.1", runs / "releases" / "unfinished"):
        folder.mkdir(parents=True)
        save_file(weights, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(
            '{"base_model_name_or_path": "x"}', encoding="utf-8"
        )
        (folder / "README.md").write_text("# Card", encoding="utf-8")
    write_record(runs / "dpo", {})
    assert portfolio(Workspace(here)).loc["release", "found"] == "v0.1, ready to push"
    for folder in (runs / "dpo", runs / "releases" / "v0.1"):
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
    found = portfolio(Workspace(here)).loc[["DPO adapter", "release"]]
    assert set(found["state"]) == {"unfinished"}
    assert found["found"].str.contains("are cut or damaged").all()


def test_the_intervals_are_drawn_as_they_are():
    line = {"low": 0.1, "high": 0.6, "estimate low": 0.2, "estimate high": 0.5, "shown": 0.25}
    by_prompts = pd.DataFrame([{"n": 30} | line, {"n": 300} | line | {"low": 0.3, "shown": 1.0}])
    intervals, shown = plot_intervals(by_prompts, "lead").axes
    bars = intervals.containers[0].lines[2][0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == [
        pytest.approx([10, 60]),
        pytest.approx([30, 60]),
    ]
    assert [bar[0, 0] for bar in bars] == [30, 300]
    _, band = intervals.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((20, 50))
    assert shown.lines[0].get_ydata().tolist() == pytest.approx([25, 100])
    assert intervals.get_ylabel() == "lead"
