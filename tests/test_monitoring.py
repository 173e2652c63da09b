"""The KL against exact enumeration; what the monitor records; stopped and killed runs go on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
import torch
from conftest import NATS, ROOT, frozen_copy

from coursekit.common import parallel
from coursekit.common.profile import load_profile
from coursekit.lm.kl import estimate_kl, sample_responses
from coursekit.lm.loading import load_model
from coursekit.lm.logprobs import encode_prompt, score_tokens, token_logps
from coursekit.training import Monitor, load_metrics, train_dpo
from coursekit.training.monitor import _step

PROMPTS = [
    "Tell the team.\nservice: user-db",
    "Write a ticket.\nservice: cart-api",
    "What next?\nx",
]


def perturbed(model, scale, seed=0):
    """A copy whose weights are a little off: a policy that has moved."""
    copy = frozen_copy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copy.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(scale * parameter.std() * noise)
    return copy


@torch.no_grad()
def exact_kl_of_two_tokens(policy, reference, prompt_ids, end):
    """KL of responses of at most two tokens, by going through every first token."""

    def logps(model, rows):
        return model(torch.tensor(rows)).logits[:, -1].float().log_softmax(-1)

    def kl(rows):
        ours, theirs = logps(policy, rows), logps(reference, rows)
        return (ours.exp() * (ours - theirs)).sum(-1), ours

    first, ours = kl([prompt_ids])
    vocabulary = ours.shape[-1]
    second = torch.cat(
        [
            kl([[*prompt_ids, token] for token in range(start, min(start + 128, vocabulary))])[0]
            for start in range(0, vocabulary, 128)
        ]
    )
    second[end] = 0  # nothing follows the end token
    return (first[0] + (ours[0].exp() * second).sum()).item()


@pytest.mark.parametrize("scale", [0.03, 0.1])
def test_the_estimates_lie_within_two_errors_of_the_exact_kl(scale, model, tokenizer):
    policy = perturbed(model, scale)
    prompt = PROMPTS[0]
    exact = exact_kl_of_two_tokens(
        policy, model, encode_prompt(tokenizer, prompt), tokenizer.eos_token_id
    )
    pairs = sample_responses(
        policy, tokenizer, [prompt] * 2000, max_new_tokens=2, batch_size=500, label=None
    )
    found = estimate_kl(*(score_tokens(m, pairs, token_logps) for m in (policy, model)))
    assert exact > 0.001 and found.n == 2000
    assert abs(found.k1 - exact) < 2 * found.k1_se
    assert abs(found.k3 - exact) < 2 * found.k3_se
    assert found.k1_se < exact and found.k3_se < found.k1_se  # near by, k3 is the better


def test_the_end_token_counts_and_a_cut_response_gains_none(model, tokenizer):
    whole, cut = (
        sample_responses(model, tokenizer, PROMPTS, max_new_tokens=n, label=None) for n in (200, 3)
    )
    end = tokenizer.eos_token_id
    assert all(pair.response_ids.count(end) == 1 for pair in whole)
    assert all(pair.response_ids[-1] == end for pair in whole)
    assert all(len(pair.response_ids) == 3 and end not in pair.response_ids for pair in cut)


def test_estimates_need_the_same_tokens_and_two_responses():
    rows = [torch.zeros(3), torch.zeros(2)]
    with pytest.raises(ValueError, match="score the same token ids"):
        estimate_kl(rows, rows[::-1])
    with pytest.raises(ValueError, match="at least two"):
        estimate_kl(rows[:1], rows[:1])
    assert estimate_kl(rows, rows).k1 == estimate_kl(rows, rows).k3 == 0


@pytest.fixture(scope="module")
def watched(quick, sft_folder, triples):
    """A short run with a monitor."""
    shown = []
    monitor = Monitor(PROMPTS, triples[:4], times=2, show=shown.append)
    run = train_dpo(sft_folder, triples, quick.artifacts / "watched", quick, monitor=monitor)
    return monitor, run, shown


def test_what_the_monitor_records(watched, quick, sft_folder, triples, tokenizer):
    monitor, run, shown = watched
    frame = load_metrics(run.folder)
    measured = frame[frame["kl/k1"].notna()]
    assert frame["step"].tolist() == [0, 1, 2, 3, 4] and measured["step"].tolist() == [0, 2, 4]
    start, end = measured.iloc[0], measured.iloc[-1]
    for name in ("kl/k1", "kl/k3", "held/margin", "held/chosen_shift"):
        assert start[name] == pytest.approx(0, abs=NATS)
        assert end[name] != 0
    assert end["held/margin"] > 0 and 0 <= end["held/accuracy"] <= 1
    assert (measured["policy/entropy"] > 0).all() and (measured["policy/length"] > 1).all()
    assert frame["rewards/margins"].notna()[1:].all()  # TRL's own stay whole
    assert monitor.seconds > 0 and len(shown) == 2
    assert [entry["kl/k1"] for entry in run.history if "kl/k1" in entry]  # the trackers saw it
    samples = [
        json.loads(line)
        for line in (run.folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(samples) == 9 and {row["step"] for row in samples} == {0, 2, 4}
    assert [row["asked"] for row in samples[:3]] == list(PROMPTS[:3])
    # The last line is that of the saved model.
    policy, sft = load_model(run.folder, quick), load_model(sft_folder, quick)
    pairs = sample_responses(
        policy, tokenizer, PROMPTS, max_new_tokens=quick.max_new_tokens, seed=4, label=None
    )
    again = estimate_kl(*(score_tokens(m, pairs, token_logps) for m in (policy, sft)))
    assert again.k1 == pytest.approx(end["kl/k1"], abs=NATS)


def test_watching_changes_nothing(watched, quick, sft_folder, triples):
    plain = train_dpo(sft_folder, triples, quick.artifacts / "unwatched", quick)
    _, run, _ = watched
    assert [e["loss"] for e in plain.history] == [e["loss"] for e in run.history if "loss" in e]


def test_a_monitor_needs_something_to_look_at(triples, tmp_path):
    with pytest.raises(ValueError, match="at least two prompts"):
        Monitor(PROMPTS[:1], triples)
    with pytest.raises(ValueError, match="0 validation triples"):
        Monitor(PROMPTS, [])
    with pytest.raises(FileNotFoundError, match="train with monitor="):
        load_metrics(tmp_path)


def test_metrics_that_a_kill_has_cut_are_read_up_to_there(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 0, "loss": 1}\n{"step": 1, "loss": 2}\n{"step": 2, "lo', encoding="utf-8"
    )
    assert load_metrics(tmp_path)["loss"].tolist() == [1, 2]
    assert "the last line is cut" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no metrics"),
        ('{"step": 1', "holds no metrics"),
        ('{"step": 1\n{"step": 2}\n', "line 1 is not JSON"),
        ('{"loss": 1}\n', "row 1 has no number of a step"),
        ('{"step": 1}\n{"step": "2"}\n', "row 2 has no number of a step"),
        ('{"step": NaN}\n', "row 1 has no number of a step"),
        ("[1]\n", "row 1 has no number of a step"),
        ('{"step": 1, "step": 2}\n', "line 1 has an object with the key 'step' twice"),
    ],
)
def test_what_are_no_metrics_is_told(text, message, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_metrics(tmp_path)
    assert type(error.value) is ValueError and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("line", ["", '{"st', "[1]", "{}", '{"step": null}', '{"step": "x"}'])
def test_a_line_without_a_step_is_after_every_checkpoint(line):
    assert _step(line) == float("inf") and _step('{"step": 3, "loss": 1}') == 3


def test_the_import_says_nothing():
    code = "from coursekit.training import Monitor"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == result.stderr == ""


# Stopped and killed.


def train_apart(sft, triples, folder):
    """In a process of its own: what it says, and what stops it, goes into a file."""
    profile = replace(load_profile("tiny"), threads=1)
    profile = replace(profile, dpo=replace(profile.dpo, batch_size=4, epochs=5))
    monitor = Monitor([row["prompt"] for row in triples[:2]], triples[:2], times=4)
    with said_in(folder).open("w", encoding="utf-8") as file, redirect_stdout(file):
        try:
            train_dpo(sft, triples, folder, profile, monitor=monitor)
        except KeyboardInterrupt as stopped:
            print(stopped)


def said_in(folder):
    return folder.with_suffix(".txt")


@pytest.fixture(scope="module")
def start(sft_folder, triples, tmp_path_factory):
    """Start such a process: new ones of the fork server, which imports the libraries once."""
    place = tmp_path_factory.mktemp("stopped")

    def start(name):
        arguments = (sft_folder, triples, place / name)
        process = parallel._context().Process(target=train_apart, args=arguments)
        process.start()
        return process, place / name

    return start


def losses(folder):
    rows = [
        json.loads(line)
        for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def undisturbed(start):
    process, folder = start("whole")
    process.join()
    assert process.exitcode == 0
    return folder


def wait_for_step(process, folder, step):
    """Until the run has logged `step`; it may take what it takes, but must not end."""
    path = folder / "metrics.jsonl"
    while not (path.is_file() and path.read_text(encoding="utf-8").count('"loss"') >= step):
        assert process.is_alive(), said_in(folder).read_text(encoding="utf-8")
        time.sleep(0.005)


@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(how, start, undisturbed):
    process, folder = start(how)
    wait_for_step(process, folder, 10)
    os.kill(process.pid, signal.SIGKILL if how == "kill" else signal.SIGINT)
    process.join()
    assert not (folder / "history.jsonl").exists()
    if how == "interrupt":
        assert "what is done is kept" in said_in(folder).read_text(encoding="utf-8")
    process, folder = start(how)
    process.join()
    said = said_in(folder).read_text(encoding="utf-8")
    assert process.exitcode == 0, said
    assert "going on from step" in said
    assert losses(folder) == pytest.approx(losses(undisturbed), abs=NATS)
    ours, theirs = load_metrics(folder), load_metrics(undisturbed)
    assert ours["step"].tolist() == theirs["step"].tolist()
    assert ours["kl/k1"].dropna().tolist() == pytest.approx(
        theirs["kl/k1"].dropna().tolist(), abs=NATS
    )
    assert not (folder / "checkpoints").exists() and os.path.isfile(folder / "history.jsonl")


def test_a_checkpoint_of_another_run_is_not_used(tmp_path, capsys):
    from coursekit.common.made_from import write_record
    from coursekit.training.loop import last_whole_checkpoint
    from coursekit.training.run import CHECKPOINTS, finished_run

    folder = tmp_path / "dpo" / CHECKPOINTS
    whole = folder / "checkpoint-5"
    whole.mkdir(parents=True)
    (whole / "trainer_state.json").write_text("{}", encoding="utf-8")
    write_record(folder, {"seed": 1})
    assert finished_run(folder.parent, {"seed": 1}) is None
    assert last_whole_checkpoint(folder) == whole
    half = folder / "checkpoint-9"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global', encoding="utf-8")
    assert last_whole_checkpoint(folder) == whole and not half.exists()
    assert finished_run(folder.parent, {"seed": 2}) is None
    assert "seed was 1, now 2" in capsys.readouterr().out
    assert last_whole_checkpoint(folder) is None
    assert (tmp_path / "dpo-old1" / CHECKPOINTS / "checkpoint-5").is_dir()


def test_a_tracker_gets_what_the_monitor_measures(quick, sft_folder, triples, tmp_path):
    """Through TRL's own `report_to`, into files that outlive the run's checkpoints."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monitor = Monitor(PROMPTS, triples[:2], times=2)
    run = train_dpo(
        sft_folder, triples, tmp_path / "run", quick, monitor=monitor, report_to="tensorboard"
    )
    (file,) = (run.folder / "runs").rglob("events.*")
    events = accumulator.EventAccumulator(str(file))
    events.Reload()
    logged = events.scalars.Keys()
    assert {"train/kl/k1", "train/policy/entropy", "train/rewards/margins"} <= set(logged)
    metrics = load_metrics(run.folder)
    measured = metrics[metrics["kl/k1"].notna() & (metrics["step"] > 0)]
    found = {event.step: event.value for event in events.Scalars("train/kl/k1")}
    assert found == pytest.approx(dict(zip(measured["step"], measured["kl/k1"], strict=True)))
