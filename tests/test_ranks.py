"""Two processes that train together equal one, and leave what one leaves."""

import os
import pickle
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from together import run_processes

from coursekit.common.made_from import record_path
from coursekit.lm.generation import generate
from coursekit.lm.loading import load_model
from coursekit.tasks.triage import sample_demonstrations
from coursekit.training import Monitor, load_run, train_dpo, train_sft
from coursekit.training.arguments import share_out, validation_arguments
from coursekit.training.loop import run_training
from coursekit.training.monitor import METRICS_FILE
from coursekit.training.reward_model import train_reward_model
from coursekit.training.run import CHECKPOINTS

TOLERANCE = 1e-4  # of a loss; the same rows in other batches are summed in another order
STAGES = {"DPO": train_dpo, "SFT": train_sft, "reward model": train_reward_model}


def _calls(quick, sft_folder, triples, folder):
    """What each stage is called with, to train into `folder`."""
    demonstrations = sample_demonstrations(32, quick)
    monitor = Monitor([row["prompt"] for row in triples[:4]], triples[:4], times=2)
    watched = {"validation": triples[:6], "monitor": monitor}
    return {
        "DPO": ((sft_folder, triples, folder / "dpo", quick), watched),
        "SFT": (quick.base_model, demonstrations, folder / "sft", quick),
        "reward model": (sft_folder, triples, folder / "reward", quick),
    }


@pytest.fixture(scope="module")
def alone(quick, sft_folder, triples, tmp_path_factory):
    """The runs of this process."""
    calls = _calls(quick, sft_folder, triples, tmp_path_factory.mktemp("alone"))
    arguments, options = calls.pop("DPO")
    runs = {stage: STAGES[stage](*parts) for stage, parts in calls.items()}
    return runs | {"DPO": train_dpo(*arguments, **options)}


@pytest.fixture(scope="module")
def together(quick, sft_folder, triples, tmp_path_factory):
    """What two processes have seen, each in its turn, and what both of them printed."""
    folder = tmp_path_factory.mktemp("together")
    path = folder / "calls"
    path.write_bytes(pickle.dumps(_calls(quick, sft_folder, triples, folder)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    printed = run_processes(
        [*launch, str(ROOT / "tests" / "together.py"), str(path)],
        until="all have written",
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    return [pickle.loads((folder / f"calls.{rank}").read_bytes()) for rank in range(2)], printed


def _values(run, name):
    return [entry[name] for entry in run.history if name in entry]


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one(stage, alone, together):
    both, _ = together
    for seen in both:
        losses = _values(seen[stage], "loss")
        assert losses == pytest.approx(_values(alone[stage], "loss"), abs=TOLERANCE)
        assert len(losses) > 1 and losses[-1] != losses[0]


def test_held_out_rows_give_the_same(alone, together):
    """In the last evaluation: the first came after the checkpoint from which the run went on."""
    for name in ("eval_loss", "eval_rewards/margins", "eval_rewards/accuracies"):
        ours, theirs = (_values(run["DPO"], name) for run in (together[0][0], alone))
        assert len(theirs) == 2
        assert ours[-1] == pytest.approx(theirs[-1], abs=TOLERANCE)


def test_one_process_watches(alone, together):
    run = together[0][0]["DPO"]
    for name in ("kl/k1", "held/margin", "policy/length"):
        ours = _values(run, name)
        assert ours == pytest.approx(_values(alone["DPO"], name), rel=0.01, abs=1e-3)
    lines = [(at.folder / METRICS_FILE).read_text(encoding="utf-8") for at in (run, alone["DPO"])]
    assert lines[0].count("\n") == lines[1].count("\n") > 4


def test_the_models_answer_alike(alone, together, quick, tokenizer, triples):
    prompts = [row["prompt"] for row in triples[:6]]
    answers = [
        generate(load_model(run.folder, quick), tokenizer, prompts, max_new_tokens=48, label=None)
        for run in (alone["DPO"], together[0][0]["DPO"])
    ]
    assert answers[0] == answers[1]


def test_all_processes_are_given_the_same_run(alone, together):
    first, second = together[0]
    for stage in (*STAGES, "DPO again"):
        assert first[stage] == second[stage]
    assert first["DPO again"] == first["DPO"]
    run = first["DPO"]
    assert load_run(run.folder).history == run.history  # one process wrote it, once
    assert not (run.folder / CHECKPOINTS).exists() and record_path(run.folder).is_file()
    # Which processes trained it makes no other run of it.
    same = {key: value for key, value in alone["DPO"].made_from.items() if key != "history"}
    assert {key: value for key, value in run.made_from.items() if key != "history"} == same


def test_a_run_that_stopped_goes_on_and_speaks_once(together):
    both, printed = together
    assert all(isinstance(seen["stopped"], ConnectionError) for seen in both)
    assert printed.count("going on from step") == 1
    assert [entry["step"] for entry in both[0]["DPO"].history if "loss" in entry] == [1, 2, 3, 4]


def test_what_fails_in_the_main_process_fails_in_all(together):
    assert [type(seen["error"]) for seen in together[0]] == [KeyError, KeyError]


def test_alone_nothing_is_shared():
    assert share_out(16, 1, 1) == (16, 1) and share_out(4, 3, 1) == (4, 3)


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "processes", "share"),
    [
        (16, 1, 2, (8, 1)),
        (4, 4, 2, (4, 2)),
        (4, 4, 8, (2, 1)),
        (8, 3, 2, (6, 2)),
        (5, 2, 2, (5, 1)),
    ],
)
def test_an_update_keeps_its_rows(batch_size, accumulation, processes, share):
    rows, steps = share_out(batch_size, accumulation, processes)
    assert (rows, steps) == share
    assert rows * steps * processes == batch_size * accumulation and rows <= batch_size


def test_what_cannot_be_shared_out_is_told():
    with pytest.raises(ValueError, match=r"12 rows .* among 8 processes: take 1, 2, 3, 4, 6, 12"):
        share_out(12, 1, 8)


def test_evaluation_batches_are_shared_out():
    assert validation_arguments(64, 16, 2)["per_device_eval_batch_size"] == 8
    assert validation_arguments(0, 16, 2) == {}


def test_weights_in_parts_are_refused(quick, tmp_path):
    trainer = SimpleNamespace(is_fsdp_enabled=True, is_deepspeed_enabled=False)
    with pytest.raises(ValueError, match="torchrun"):
        run_training(trainer, "DPO", quick, tmp_path, {})
    assert not list(tmp_path.iterdir())
