"""Scores, intervals, win rates and the KL estimate."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NATS, frozen_copy

from coursekit.common.profile import TINY_MODEL, load_profile
from coursekit.common.statistics import bootstrap_mean
from coursekit.evaluation import (
    comparison_table,
    copy_accuracy,
    kl_from_reference,
    score_responses,
    win_rate,
)
from coursekit.evaluation.judges import ProgramJudge
from coursekit.lm.losses import dpo_loss
from coursekit.tasks.triage import TRIAGE, Alert, sample_alerts
from coursekit.tasks.triage.alerts import services_in
from coursekit.week.widgets import claim, comparison, side_by_side
from coursekit.workspace import Workspace


def test_bootstrap_agrees_with_theory():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    estimate = bootstrap_mean(values)
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.02)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        estimate = bootstrap_mean(rng.binomial(1, 0.6, size=100), draws=1000)
        hits += estimate.low <= 0.6 <= estimate.high
    assert 180 <= hits <= 199


def test_no_evaluation_alert_has_helped_to_choose(profile):
    """The training settings were found on the evaluation pool's alerts of the seeds 0 to 2."""
    seen = {alert.text for seed in range(3) for alert in sample_alerts("evaluation", 300, seed)}
    services = set(services_in("evaluation"))
    for seed in range(5):
        alerts = [
            Alert(**row["facts"]) for row in TRIAGE.rows("evaluation", 300, profile, seed=seed)
        ]
        assert not seen & {alert.text for alert in alerts}
        assert {alert.service for alert in alerts} <= services


def test_win_rate_counts(triples):
    good, bad = [row["chosen"] for row in triples], [row["rejected"] for row in triples]
    n = len(triples)
    assert win_rate(triples, good, bad, ProgramJudge(TRIAGE)).wins == n
    result = win_rate(
        triples, good[:4] + bad[4:], bad[:4] + bad[4:8] + good[8:], ProgramJudge(TRIAGE)
    )
    assert (result.wins, result.ties, result.losses) == (4, 4, n - 8)
    assert result.estimate.value == pytest.approx((4 + 2) / n)
    assert f"({4} won, {4} tied, {n - 8} lost)" in str(result)


def test_table_is_paired(triples):
    good, bad = [row["chosen"] for row in triples], [row["rejected"] for row in triples]
    scores = score_responses(TRIAGE, triples, {"base": ["?"] * 16, "SFT": bad, "SFT+DPO": good})
    table = comparison_table(scores, candidate="SFT+DPO", baseline="SFT")
    assert list(table.columns) == [
        *("kind", "base", "SFT", "SFT+DPO", "difference", "low", "high", "p", "n", "conclusion")
    ]
    assert table.loc["severity", "SFT+DPO"] == 1 and table.loc["severity", "SFT"] == 0
    unseen = 1 - 0.025 ** (1 / 16)  # how common another difference may still be after 16 alike
    assert table.loc["severity", ["difference", "low", "high"]].tolist() == pytest.approx(
        [1, 1 - 2 * unseen, 1]
    )
    assert "95 % interval" in comparison(table).to_html()
    # Paired: one and the same constant gain everywhere has an interval without width.
    uneven = pd.DataFrame(
        {
            "model": ["a"] * 50 + ["b"] * 50,
            "row": [*range(50)] * 2,
            "x": [*range(50), *(i + 1 for i in range(50))],
        }
    )
    line = comparison_table(uneven, candidate="b", baseline="a").loc["x"]
    assert line["low"] == line["high"] == 1


def test_copy_accuracy(triples):
    right = copy_accuracy(TRIAGE, triples, [row["chosen"] for row in triples])
    assert set(right) == {1.0} and "value" in right.index
    assert copy_accuracy(TRIAGE, triples, [""] * 16).max() == 0


def test_kl_is_zero_from_itself_and_right_where_it_is_known(model, tokenizer):
    reference = frozen_copy(model)
    prompts = ["Tell the team.\nservice: user-db"] * 64
    same = kl_from_reference(model, reference, tokenizer, prompts, max_new_tokens=8)
    assert same.value == pytest.approx(0, abs=NATS)
    # A policy that answers with one token and stops: everything is enumerable.
    policy, other = one_token_model(model, 1.5), one_token_model(model, 0.0)
    p, q = (torch.softmax(torch.tensor([bias, 0.0]), 0) for bias in (1.5, 0.0))
    exact = (p * (p / q).log()).sum().item()
    found = kl_from_reference(policy, other, tokenizer, prompts * 20, max_new_tokens=4)
    assert found.low <= exact <= found.high
    assert found.high - found.low < 0.1


def one_token_model(model, bias):
    """A model that says token 300 or 301, with logits `bias` and 0, and then ends."""
    copy = frozen_copy(model)
    end, vocabulary = copy.config.eos_token_id, copy.config.vocab_size

    def forward(input_ids=None, attention_mask=None, logits_to_keep=0, **kwargs):
        logits = torch.full((*input_ids.shape, vocabulary), -1e4)
        said = (input_ids == 300) | (input_ids == 301)
        logits[..., 300] = torch.where(said, -1e4, bias)
        logits[..., 301] = torch.where(said, -1e4, 0.0)
        logits[..., end] = torch.where(said, 0.0, -1e4)
        from transformers.modeling_outputs import CausalLMOutputWithPast

        return CausalLMOutputWithPast(logits=logits[:, -logits_to_keep:])  # 0: all

    copy.forward = forward
    copy.generation_config.use_cache = False
    return copy


def test_dpo_loss_by_hand():
    loss, chosen, rejected = dpo_loss(
        *(torch.tensor([x]) for x in (-10.0, -14.0, -11.0, -12.0)), beta=0.5
    )
    assert chosen.item() == pytest.approx(0.5)
    assert rejected.item() == pytest.approx(-1.0)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    zeros = [torch.zeros(3)] * 4
    assert dpo_loss(*zeros, beta=0.1)[0].tolist() == pytest.approx([math.log(2)] * 3)


def test_side_by_side_marks_faults_and_escapes(triples):
    html = side_by_side(
        TRIAGE, triples[:1], {"SFT": [triples[0]["rejected"]], "x": ["<script>"]}
    ).data
    assert "✗ severity" in html and "✗ service" not in html
    assert "<script>" not in html and "&lt;script&gt;" in html


@pytest.fixture()
def at_home(monkeypatch, tmp_path):
    """The course's own run: nothing is set but where it is kept."""
    for name in ("COURSE_PROFILE", "COURSE_JUDGE", "COURSE_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path))
    return tmp_path / "triage" / "tiny"


def test_on_the_courses_own_run_a_claim_that_does_not_hold_stops(at_home, capsys):
    claim(True, "it holds")
    assert capsys.readouterr().out == "✓ it holds\n"
    with pytest.raises(AssertionError, match="does not show it: no"):
        claim(False, "no")


def another_model(monkeypatch, runs):
    tiny = load_profile("tiny")
    monkeypatch.setattr(
        "coursekit.workspace.load_profile", lambda: replace(tiny, base_model="my/model")
    )


def another_sft(monkeypatch, runs):
    Workspace().use_sft(TINY_MODEL)


ELSEWHERE = {
    "profile": lambda monkeypatch, runs: monkeypatch.setenv("COURSE_PROFILE", "gpu"),
    "model": another_model,
    "SFT": another_sft,
    "judge": lambda monkeypatch, runs: monkeypatch.setenv("COURSE_JUDGE", "anthropic"),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_elsewhere_it_is_a_finding(what, at_home, monkeypatch, capsys):
    ELSEWHERE[what](monkeypatch, at_home)
    capsys.readouterr()
    claim(False, "SFT wins")
    claim(True, "it ranks")
    assert capsys.readouterr().out == "✗ This run does not show it: SFT wins\n✓ it ranks\n"


def test_with_what_the_course_names_itself_it_is_still_its_own(at_home, monkeypatch):
    monkeypatch.setattr("coursekit.training.train_sft", lambda *_, **__: SimpleNamespace(folder=0))
    Workspace().use_sft(TINY_MODEL)
    Workspace().use_sft(at_home / "sft")  # the course's own again
    monkeypatch.setenv("COURSE_PROFILE", "tiny")
    monkeypatch.setenv("COURSE_JUDGE", "program")
    with pytest.raises(AssertionError):
        claim(False, "no")
