"""Runs side by side: results in any order, errors raised, nothing left behind; the beta sweep."""

import math
import shutil
from dataclasses import replace

import pytest

from coursekit.common.parallel import run_all
from coursekit.evaluation.judges import ProgramJudge
from coursekit.tasks.triage import TRIAGE
from coursekit.training.sweep import beta_sweep, kept_trials

JUDGE = ProgramJudge(TRIAGE)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_jobs_are_run_once(workers):
    told = []
    results = list(run_all(math.sqrt, [1.0, 4.0, 9.0], workers, lambda *a: told.append(a)))
    assert sorted(results) == [1.0, 2.0, 3.0]
    assert sum(count for count, *_ in (a or (1,) for a in told)) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_job_is_raised(workers):
    with pytest.raises(ValueError, match=r"math domain error|expected a nonnegative input"):
        list(run_all(math.sqrt, [1.0, -1.0, 4.0], workers, lambda *a: None))


def test_processes_that_are_warm_run_the_same():
    from coursekit.common.parallel import warm_up

    warm_up()
    warm_up()
    assert sorted(run_all(math.sqrt, [1.0, 4.0], 2, lambda *a: None)) == [1.0, 2.0]


def test_no_jobs():
    assert list(run_all(math.sqrt, [], 2, lambda *a: None)) == []


def test_the_beta_sweep(quick, sft_folder, triples, tmp_path):
    profile = replace(quick, threads=1, max_new_tokens=16)
    rows = TRIAGE.rows("validation", 4, profile)
    options = {"betas": (0.05, 0.1), "rates": (1.0, 3.0), "n": 16, "path": tmp_path / "b.jsonl"}
    table = beta_sweep(sft_folder, triples, rows, profile, JUDGE, **options)
    rate = profile.dpo.learning_rate
    assert table[["beta", "learning_rate"]].to_numpy().tolist() == [
        [0.05, rate],
        [0.1, rate],
        [0.1, 3 * rate],
    ]
    assert table["win_rate"].tolist() == [sum(points) / 4 for points in table["points"]]
    assert table["win_rate"].between(table["low"], table["high"]).all()
    assert table["kl"].between(table["kl_low"], table["kl_high"]).all()
    # A higher rate, a wider margin: the runs are not one run under three names.
    assert table["margin"][2] > table["margin"][1] > 0 and table["margin"].nunique() == 3
    before = (tmp_path / "b.jsonl").read_bytes()
    kept = kept_trials(tmp_path / "b.jsonl", sft_folder, profile)
    assert sorted(kept["gap"]) == pytest.approx(sorted(table["gap"]))
    assert kept_trials(tmp_path / "other.jsonl", sft_folder, profile).empty
    again = beta_sweep(sft_folder, triples, rows, profile, JUDGE, **options)
    assert again.equals(table) and (tmp_path / "b.jsonl").read_bytes() == before


def test_other_rows_are_compared_with_answers_to_them(quick, sft_folder, triples):
    """In one process, one after the other: nothing of the first call is served to the second."""
    # So small a step changes no answer: against its own, to the same rows, a model ties.
    still = replace(quick.dpo, epochs=1, learning_rate=1e-12)
    profile = replace(quick, threads=1, dpo=still)
    rows = TRIAGE.rows("validation", 6, profile)
    for those in (rows[:3], rows[3:]):
        table = beta_sweep(
            sft_folder, triples, those, profile, JUDGE, betas=(0.1,), rates=(1.0,), n=8
        )
        assert table["points"][0] == [0.5] * 3


@pytest.fixture()
def runs(monkeypatch):
    """Trials replaced by a note of what was run."""
    from coursekit.training import sweep as trials

    seen = []

    def run(trial, **shared):
        seen.append(trial.name["beta"])
        return {"name": trial.name, "answers": [""], "margin": 0.5}

    monkeypatch.setattr(trials, "_run", run)
    monkeypatch.setattr(trials, "_compared", lambda made, *others: made | {"win_rate": 1.0})
    monkeypatch.setattr(trials, "_respond", lambda *arguments: [])
    return seen


def test_kept_trials_are_of_one_sft_model(runs, quick, triples, tmp_path, capsys):
    profile = replace(quick, threads=1)
    path = tmp_path / "betas.jsonl"
    rows = TRIAGE.rows("validation", 1, profile)

    def sweep(sft):
        return beta_sweep(sft, triples, rows, profile, JUDGE, betas=(0.1,), rates=(1.0,), path=path)

    base = profile.base_model
    other = shutil.copytree(base, tmp_path / "other")
    (other / "config.json").write_text(
        (other / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    sweep(base), sweep(base)
    assert runs == [0.1] and len(kept_trials(path, base, profile)) == 1
    assert kept_trials(path, other, profile).empty
    assert "betas.jsonl is not used: sft was" in capsys.readouterr().out
    sweep(other)
    assert runs == [0.1, 0.1] and (tmp_path / "betas-old1.jsonl").is_file()
    assert "sft was" in capsys.readouterr().out


def test_the_sweep_varies_one_setting_and_takes_beta_out_of_the_margin(runs, quick, triples):
    profile = replace(quick, threads=1)
    rows = TRIAGE.rows("validation", 1, profile)
    table = beta_sweep(
        profile.base_model, triples, rows, profile, JUDGE, betas=(0.05, 0.1), rates=(1.0, 3.0)
    )
    assert sorted(runs) == [0.05, 0.1, 0.1]  # the profile's own is run once
    assert dict(zip(table["beta"], table["gap"], strict=True)) == {0.05: 10.0, 0.1: 5.0}


def test_no_sweep_for_a_model_that_is_not_there(runs, quick, triples, tmp_path):
    profile = replace(quick, threads=1)
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        beta_sweep(tmp_path / "sft", triples, TRIAGE.rows("validation", 1, profile), profile, JUDGE)
    assert not runs


def test_other_alerts_behind_the_same_prompts_are_other_trials(runs, quick, triples, tmp_path):
    profile = replace(quick, threads=1)
    rows = TRIAGE.rows("validation", 2, profile)
    turned = [row | {"facts": rows[0]["facts"]} for row in rows]
    for those in (rows, turned):
        beta_sweep(
            profile.base_model,
            triples,
            those,
            profile,
            JUDGE,
            betas=(0.1,),
            rates=(1.0,),
            path=tmp_path / "betas.jsonl",
        )
    assert runs == [0.1, 0.1]


def test_kept_trials_that_were_cut_or_edited_are_told(runs, quick, triples, tmp_path, capsys):
    profile = replace(quick, threads=1)
    path = tmp_path / "betas.jsonl"
    rows = TRIAGE.rows("validation", 1, profile)
    beta_sweep(profile.base_model, triples, rows, profile, JUDGE, rates=(), path=path)
    whole = path.read_text(encoding="utf-8")
    assert len(kept_trials(path, profile.base_model, profile)) == 4
    path.write_text(whole[:-9], encoding="utf-8")  # a kill in the last line
    assert len(kept_trials(path, profile.base_model, profile)) == 3
    path.write_text(whole.replace('"margin": 0.5', '"margin": 5.0', 1), encoding="utf-8")
    assert kept_trials(path, profile.base_model, profile).empty
    assert "line 1 was edited" in capsys.readouterr().out
