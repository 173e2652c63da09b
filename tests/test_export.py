"""An exported run trains elsewhere as it did here: by `trl dpo`, in one process and in two."""

import json
import math
import os
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from conftest import ROOT
from together import run_processes

from coursekit.common.profile import TINY_MODEL
from coursekit.lm.generation import generate
from coursekit.lm.loading import adapter_config, load_model
from coursekit.lm.weights import check_checksums
from coursekit.preferences import to_trl, write_triples
from coursekit.training import train_dpo
from coursekit.training.export import export_dpo
from coursekit.training.export.texts import Export, write_texts
from coursekit.week import export as command

TOLERANCE = 1e-4  # of a loss; the same rows in other batches are summed in another order
ON_GPU = ("one_gpu", "several_gpus", "fsdp", "zero3", "nodes")
ALL = (*ON_GPU, "cpu", "two_cpus")
PROGRAMS = {
    "trl": [sys.executable, "-m", "trl.cli.main"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run"],
}


@pytest.fixture(scope="module")
def run(quick, sft_folder, triples):
    folder = quick.artifacts / "dpo_to_export"
    return train_dpo(sft_folder, triples, folder, quick, validation=triples[:6])


@pytest.fixture(scope="module")
def folder(run, quick, sft_folder, triples, tmp_path_factory):
    place = tmp_path_factory.mktemp("export") / "elsewhere"
    parts = {"sft": sft_folder, "triples": triples, "validation": triples[:6]}
    return export_dpo(run.folder, place, quick, **parts, gpus=2)


def _dpo(name):
    return "dpo.yaml" if name == "one_gpu" else f"dpo_{name}.yaml"


def _settings(folder, name):
    return yaml.safe_load((folder / _dpo(name)).read_text(encoding="utf-8"))


# It trains.


def _command_in(folder, name):
    """The command that the file itself gives, in its second line."""
    line = (folder / _dpo(name)).read_text(encoding="utf-8").splitlines()[1]
    words = shlex.split(line.removeprefix("#"))
    variables = dict(word.split("=") for word in words if "=" in word)
    program, *arguments = words[len(variables) :]
    return [*PROGRAMS[program], *arguments], variables


@pytest.fixture(scope="module", params=["cpu", "two_cpus"])
def trained(request, folder, tmp_path_factory):
    """The folder of what the command gave, and what the trainer logged."""
    command, variables = _command_in(folder, request.param)
    caches = {"HF_HOME": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **variables, **caches, "PYTHONUNBUFFERED": "1"}
    run_processes(command, until="Model saved", cwd=folder, env=environment)
    place = folder / "trained" / request.param
    state = place / "checkpoint-4" / "trainer_state.json"
    return place, json.loads(state.read_text(encoding="utf-8"))["log_history"]


def test_losses_are_the_runs(trained, run):
    _, history = trained
    for name in ("loss", "rewards/margins", "eval_loss", "eval_rewards/margins"):
        ours, theirs = ([e[name] for e in log if name in e] for log in (run.history, history))
        # The last evaluation comes after the checkpoint in which the history stands.
        assert len(theirs) == len(ours) - name.startswith("eval")
        assert theirs == pytest.approx(ours[: len(theirs)], abs=TOLERANCE), name
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=TOLERANCE) and losses[-1] < 0.68


def test_the_same_layers_have_adapters(trained, run):
    from safetensors.torch import load_file

    ours, theirs = adapter_config(run.folder), adapter_config(trained[0])
    for name in ("r", "lora_alpha", "lora_dropout", "task_type", "bias"):
        assert theirs[name] == ours[name]
    assert sorted(theirs["target_modules"]) == sorted(ours["target_modules"])
    one, other = (load_file(at / "adapter_model.safetensors") for at in (run.folder, trained[0]))
    assert one.keys() == other.keys()


def test_it_answers_as_the_run_does(trained, run, quick, tokenizer, triples, monkeypatch):
    monkeypatch.chdir(trained[0].parents[1])  # whence the adapter names its base
    prompts = [row["prompt"] for row in triples[:6]]
    answers = [
        generate(load_model(place, quick), tokenizer, prompts, max_new_tokens=48, label=None)
        for place in (run.folder, trained[0])
    ]
    assert answers[0] == answers[1]


# Each configuration is read by what will read it.


@pytest.mark.parametrize("name", ALL)
def test_trl_reads_the_settings(name, folder, run, monkeypatch):
    from trl.scripts.dpo import make_parser

    monkeypatch.chdir(folder)
    parser = make_parser()
    script, training, model, _ = parser.parse_args_and_config(["--config", _dpo(name)])
    settings = run.made_from["settings"]
    assert (script.dataset_name, script.dataset_test_split) == ("triples", "validation")
    assert (model.model_name_or_path, model.use_peft) == ("sft", True)
    assert model.lora_target_modules == sorted(settings["lora_targets"])
    for ours, theirs in (("learning_rate", "learning_rate"), ("epochs", "num_train_epochs")):
        assert getattr(training, theirs) == settings[ours]
    assert (training.beta, training.max_length) == (settings["beta"], settings["max_length"])
    assert (training.seed, training.warmup_steps) == (0, settings["warmup"])
    assert training.activation_checkpointing == (name in ON_GPU)
    assert not training.bf16 and not training.fp16 and model.dtype == "float32"


@pytest.mark.parametrize("name", [name for name in ALL if name != "two_cpus"])
def test_accelerate_reads_the_launcher(name, folder):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    path = folder / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    settings = _settings(folder, name)
    update = (
        settings["per_device_train_batch_size"]
        * settings["gradient_accumulation_steps"]
        * config.num_processes
    )
    assert update == 8
    assert config.use_cpu == settings["use_cpu"] and config.mixed_precision == "no"
    known = vars(launch_command_parser().parse_args(["script.py"]))
    assert {**config.fsdp_config, **config.deepspeed_config}.keys() <= known.keys() | {
        "gradient_accumulation_steps"
    }


def test_several_machines_meet(folder, tmp_path):
    """As SLURM runs the script: a task a machine, each with its own rank and the same address."""
    programs = {
        "scontrol": "echo first; echo second",
        "srun": 'for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done',
        "trl": 'echo "$@" | tee -a calls',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "a", "SLURM_JOB_ID": "7"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(folder / "slurm.sh")], env={**slurm, **path}, check=True)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    start = "dpo --config dpo_nodes.yaml --accelerate_config accelerate/nodes.yaml"
    end = "--main_process_ip first --main_process_port 20007"
    assert calls == [f"{start} --machine_rank {rank} {end}" for rank in (0, 1)]


# What each says.


def _written(run, quick, sft_folder, triples, place, **changes):
    """The settings of every configuration, for a run that differed in `changes` of its profile.

    settings: changes of its training settings.
    """
    from coursekit.training.dpo import DpoJob

    settings = replace(quick.dpo, **changes.pop("settings", {}))
    profile = replace(quick, **changes)
    job = DpoJob(sft_folder, triples, [], run.folder, profile, settings, 0, True, None, {})
    write_texts(Export(job, run, None, True, 2, 2), place)
    return {name: _settings(place, name) for name in ALL}


def test_pitfalls_of_a_plain_run(folder):
    said = {name: _settings(folder, name) for name in ALL}
    before = {name for name in ALL if said[name]["precompute_ref_log_probs"]}
    assert before == {"one_gpu", "several_gpus", "cpu", "two_cpus"}
    reentrant = {name for name in ALL if "activation_checkpointing_kwargs" in said[name]}
    assert reentrant == {"zero3"}
    assert "torch_dtype" not in {key for one in said.values() for key in one}
    fsdp = yaml.safe_load((folder / "accelerate/fsdp.yaml").read_text(encoding="utf-8"))
    assert fsdp["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    nodes = yaml.safe_load((folder / "accelerate/nodes.yaml").read_text(encoding="utf-8"))
    assert (nodes["rdzv_backend"], nodes["same_network"]) == ("c10d", False)
    assert len({said[name]["output_dir"] for name in ALL}) == len(ALL)


def test_pitfalls_of_4_bit_weights(run, quick, sft_folder, triples, tmp_path):
    parts = run, quick, sft_folder, triples, tmp_path
    said = _written(*parts, dtype="float16", four_bit=True)
    assert said["fsdp"]["dtype"] == said["fsdp"]["bnb_4bit_quant_storage"] == "bfloat16"
    assert all(one["load_in_4bit"] for one in said.values())
    shards = {name for name in ALL if "bnb_4bit_quant_storage" in said[name]}
    assert shards == {"fsdp", "zero3"}
    assert all(said[name]["bf16"] and not said[name]["fp16"] for name in ON_GPU)
    assert said["cpu"]["dtype"] == "float32"
    launcher = (tmp_path / "accelerate/several_gpus.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(launcher)["mixed_precision"] == "bf16"
    assert "the sum is quantised" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_half_precision_stays_what_it_was(run, quick, sft_folder, triples, tmp_path):
    said = _written(run, quick, sft_folder, triples, tmp_path, dtype="float16")
    assert all(said[name]["fp16"] and not said[name]["bf16"] for name in ON_GPU)
    assert said["one_gpu"]["dtype"] == "float16"


def test_all_weights(run, quick, sft_folder, triples, tmp_path):
    parts = run, quick, sft_folder, triples, tmp_path
    said = _written(*parts, settings={"lora_rank": 0, "learning_rate": 2e-5})
    assert not any(one["use_peft"] or "lora_r" in one for one in said.values())
    assert "activation_checkpointing_kwargs" not in said["zero3"]
    assert {one["learning_rate"] for one in said.values()} == {2e-5}  # a number, not a text
    assert "whole model" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_readme_says_what_the_run_logged(folder, run):
    text = (folder / "README.md").read_text(encoding="utf-8")
    losses = [entry["loss"] for entry in run.history if "loss" in entry]
    for number, loss in enumerate(losses, start=1):
        assert f"| {number} | {loss:.6f} |" in text
    assert "4 updates in 2 epochs." in text and "16 rows, and `validation.jsonl`, 6 rows" in text
    assert all(_dpo(name) in text for name in ALL if name != "nodes")
    assert "not run" in text


# What is trained on.


def test_the_rows_are_the_runs(folder, triples):
    from datasets import load_dataset

    read = load_dataset(str(folder / "triples"))
    assert read["train"].to_list() == to_trl(triples, chat=True).to_list()
    assert read["validation"].to_list() == to_trl(triples[:6], chat=True).to_list()


def test_without_a_template_no_token_spans_the_boundary(triples, tmp_path, run, quick, sft_folder):
    """Prompts end with the line break that the course's own training puts there."""
    from coursekit.training.dpo import DpoJob
    from coursekit.training.export.export import _write_triples

    rows = [{**row, "chosen": f" {row['chosen']}"} for row in triples[:3]]
    job = DpoJob(sft_folder, rows, [], run.folder, quick, quick.dpo, 0, True, None, {})
    _write_triples(job, tmp_path, chat=False)
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    assert written == to_trl(rows, chat=False).to_list()
    assert all(row["prompt"].endswith("\n") and row["chosen"][0] != " " for row in written)


def test_the_model_is_whole(folder, quick, sft_folder):
    check_checksums(folder / "sft")
    assert adapter_config(folder / "sft") is None
    assert load_model(folder / "sft", quick).num_parameters() == sum(
        p.numel() for p in load_model(TINY_MODEL, quick).parameters()
    )
    assert str(ROOT) not in "".join(
        path.read_text(encoding="utf-8") for path in (folder / "sft").glob("*.json")
    )


# What is refused.


def test_nothing_is_overwritten(folder, run, quick, sft_folder, triples):
    before = (folder / "README.md").read_bytes()
    with pytest.raises(FileExistsError, match="not empty"):
        export_dpo(run.folder, folder, quick, sft=sft_folder, triples=triples)
    assert (folder / "README.md").read_bytes() == before


def test_what_the_run_was_not_made_from(run, quick, sft_folder, triples, tmp_path):
    right = {"sft": sft_folder, "triples": triples, "validation": triples[:6]}
    for wrong, told in (
        ({"sft": TINY_MODEL}, "sft was"),
        ({"triples": triples[::-1]}, "rows was"),
        ({"validation": None}, "validation was"),
    ):
        with pytest.raises(ValueError, match=told):
            export_dpo(run.folder, tmp_path / "new", quick, **right | wrong)
    half = replace(quick, dtype="bfloat16")
    with pytest.raises(ValueError, match="sft was"):
        export_dpo(run.folder, tmp_path / "new", half, **right)
    with pytest.raises(ValueError, match="a run of SFT"):
        export_dpo(sft_folder, tmp_path / "new", quick, **right)
    with pytest.raises(ValueError, match=r"3 GPUs .* take 1, 2, 4, 8 of them.* --gpus"):
        export_dpo(run.folder, tmp_path / "new", quick, **right, gpus=3)
    assert not (tmp_path / "new").exists()


# The command.


@pytest.fixture()
def profile_here(monkeypatch, quick):
    monkeypatch.setattr(command, "load_profile", lambda: quick)


def test_command_with_a_run(run, triples, tmp_path, profile_here, capsys):
    write_triples(triples, tmp_path / "train.jsonl")
    write_triples(triples[:6], tmp_path / "held.jsonl")
    rows = [
        "--triples",
        str(tmp_path / "train.jsonl"),
        "--validation",
        str(tmp_path / "held.jsonl"),
    ]
    place = tmp_path / "new"
    asked = [str(run.folder), str(place), *rows, "--name", "team/sft", "--machines", "1"]
    assert command.main(asked) == 0, capsys.readouterr().err
    assert str(place) in capsys.readouterr().out
    assert not (place / "sft").exists() and (place / "triples/train.jsonl").is_file()
    assert _settings(place, "fsdp")["model_name_or_path"] == "team/sft"
    assert command.main(asked) == 1 and "not empty" in capsys.readouterr().err


def test_command_with_the_workspace(run, triples, sft_folder, tmp_path, profile_here, monkeypatch):
    class Workspace:
        def __init__(self, profile):
            self.dpo = lambda: run.folder
            self.triples = lambda: (triples, triples[:6])
            self.sft = lambda: sft_folder

    monkeypatch.setattr(command, "Workspace", Workspace)
    assert command.main([str(tmp_path / "new"), "--machines", "1"]) == 0
    assert (tmp_path / "new" / "sft" / "model.safetensors").is_file()


def test_command_asks_for_rows_that_are_not_there(run, tmp_path, profile_here, capsys):
    assert command.main([str(run.folder), str(tmp_path / "new")]) == 1
    assert "--triples" in capsys.readouterr().err
