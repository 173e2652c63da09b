"""Whatever takes a model brings its tensors to the model's device; so do the notebooks' cells."""

import ast
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import frozen_copy
from elsewhere import Elsewhere

from coursekit.lm.logprobs import encode_pair, encode_prompt, sequence_logps
from coursekit.week.sources import named, sources


@pytest.fixture()
def gpu():
    with Elsewhere() as mode:
        yield mode


def asked(triples, n=3):
    return [row["prompt"] for row in triples[:n]], [row["chosen"] for row in triples[:n]]


# The guard itself.


def test_the_guard_notices_ids_on_the_cpu(gpu, model, tokenizer):
    ids = torch.tensor([encode_prompt(tokenizer, "hi")])
    expected = model(ids).logits
    gpu.move(model)
    assert model.device == torch.device("cuda", 0)
    with pytest.raises(RuntimeError, match="same device"):
        model(ids)
    logits = model(ids.to(model.device)).logits
    with pytest.raises(RuntimeError, match="same device"):
        logits.log_softmax(-1).gather(-1, ids[..., None])
    assert torch.equal(logits.cpu(), expected)
    assert torch.equal(logits.cpu() * 2, expected * 2) and logits.device.type == "cuda"


# Helpers.


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generate(temperature, gpu, model, tokenizer, triples):
    from coursekit.lm.generation import generate

    gpu.move(model)
    texts = generate(
        model, tokenizer, asked(triples)[0], max_new_tokens=4, temperature=temperature, label=None
    )
    assert all(texts)


def test_scores_and_kl(gpu, model, tokenizer, triples):
    from coursekit.evaluation import kl_from_reference
    from coursekit.training.reward_model import implicit_rewards

    expected = sequence_logps(model, tokenizer, *asked(triples))
    reference = gpu.move(frozen_copy(model))
    gpu.move(model)
    found = sequence_logps(model, tokenizer, *asked(triples))
    assert found.device.type == "cpu" and torch.equal(found, expected)
    kl = kl_from_reference(model, reference, tokenizer, asked(triples)[0], max_new_tokens=4)
    assert kl.value == pytest.approx(0, abs=1e-4)
    rewards = implicit_rewards(model, reference, tokenizer, *asked(triples), beta=0.1)
    assert rewards == pytest.approx([0, 0, 0], abs=1e-4)


def test_capability(gpu, model, tokenizer):
    from coursekit.evaluation.alignment_tax import capability_scores
    from coursekit.tasks.triage import TRIAGE

    probes = TRIAGE.probes(3, seed=5)
    scores = capability_scores({"base": gpu.move(model)}, tokenizer, probes, max_new_tokens=4)
    assert len(scores) == 6


def test_reward_model_scores(gpu, profile, tokenizer, triples):
    from transformers import AutoModelForSequenceClassification

    from coursekit.training.reward_model import RewardModel

    model = AutoModelForSequenceClassification.from_pretrained(
        profile.base_model, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    assert len(RewardModel(gpu.move(model), tokenizer).scores(*asked(triples))) == 3


def test_the_monitors_measurements(gpu, model, tokenizer, profile, triples, tmp_path):
    from coursekit.training import Monitor

    monitor = Monitor(*[rows[:2] for rows in (asked(triples)[0], triples)])
    reference = gpu.move(frozen_copy(model))
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        model=gpu.move(model),
        ref_model=reference,
        beta=0.1,
        add_callback=lambda callback: None,
    )
    monitor.attach(trainer, tokenizer, profile, tmp_path)
    assert monitor.measure(0)["held/margin"] == pytest.approx(0, abs=1e-4)


# Cells of the notebooks that call a model themselves.

MODELS = ("base", "sft", "published", "policy", "reference", "model", "reward", "loaded")


def cells(name: str) -> list[str]:
    """The code cells of a notebook, without IPython's own lines."""
    (source,) = named(name)
    text = source.read_text(encoding="utf-8")
    parts = re.split(r"(?m)^# %%(.*)$", text)[1:]
    return [
        "\n".join(line for line in body.split("\n") if not line.lstrip().startswith(("%", "!")))
        for head, body in zip(parts[::2], parts[1::2], strict=True)
        if "[markdown]" not in head
    ]


def calls_a_model(cell):
    """Whether a cell passes something to a model, and not to a helper that takes one."""
    for node in ast.walk(ast.parse(cell)):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in ("generate", "forward"):
                return True
            if isinstance(called, ast.Subscript):
                called = called.value
            if isinstance(called, ast.Name) and called.id in MODELS:
                return True
    return False


def test_cells_of_session_a(gpu, model, tokenizer, triples):
    from trl.data_utils import common_prefix_length

    from coursekit.lm.logprobs import token_logps
    from coursekit.week.exercises import session_a as exercises

    found = cells("A_paper_math")
    own = [index for index, cell in enumerate(found) if calls_a_model(cell)]
    assert len(own) == 2, "cells that call a model: run each below, under the guard"
    last = next(i for i, cell in enumerate(found) if cell.startswith("\ntokens = {"))
    section = [cell for cell in found[own[0] : last] if "exercises." not in cell]
    prompts, texts = asked(triples)
    names = {
        "torch": torch,
        "pd": pd,
        "sft": gpu.move(model),
        "tokenizer": tokenizer,
        "prompts": prompts,
        "responses": {"SFT": texts},
        "encode_pair": encode_pair,
        "sequence_logps": sequence_logps,
        "token_logps": token_logps,
        "common_prefix_length": common_prefix_length,
        "response_logp": exercises.response_logp.solution,
        "token_strip": lambda *_, **__: None,
        "claim": lambda *_: None,
    }
    for cell in section:
        exec(cell, names)
    assert abs(names["by_hand"] - names["by_helper"]) < 1e-3


def test_no_cell_of_another_notebook():
    others = [path.stem for path in sources() if path.stem[0] not in "AC"]
    assert others and not [cell for name in others for cell in cells(name) if calls_a_model(cell)]


def test_cells_of_session_c(gpu, model, tokenizer, triples):
    (cell,) = [cell for cell in cells("C_three_way_eval") if calls_a_model(cell)]
    cell = re.sub(r"(?m)^from coursekit.*$", "", cell)  # what stands in for them is below
    gpu.move(model)
    names = {
        "torch": torch,
        "tokenizer": tokenizer,
        "evaluation": triples,
        "release": None,
        "profile": None,
        "models": {"SFT+DPO": None},
        "base_of": lambda adapter: None,
        "load_release": lambda release, profile, base: model,
        "loaded": {"SFT+DPO": model},
        "claim": lambda *_: None,
    }
    exec(cell, names)
    assert names["apart"] == 0
