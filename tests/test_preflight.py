"""The checklist passes a sound run, and each item fails on the fault it is there for."""

from dataclasses import replace

import pytest

from coursekit.models import load_model, load_tokenizer
from coursekit.preferences import alert_rows
from coursekit.preflight import ITEMS, preflight


@pytest.fixture(scope="module")
def evaluation(quick):
    return [row["prompt"] for row in alert_rows("evaluation", 10, quick)]


def look(quick, sft_folder, triples, evaluation, **changes):
    options = {
        "train": triples[:12],
        "validation": triples[12:],
        "evaluation": evaluation,
        "settings": replace(quick.dpo, learning_rate=5e-4),
    }
    options |= changes
    profile = options.pop("profile", quick)
    return preflight(sft_folder, options.pop("train"), profile, **options)


def test_a_sound_run_passes(quick, sft_folder, triples, evaluation):
    found = look(quick, sft_folder, triples, evaluation)
    assert found.passed, found.table().to_string()
    assert len(found.checks) == len(ITEMS) == 11
    assert "first loss 0.6931" in found["reference"].found
    assert "no prompt in two splits" in found["splits"].found
    assert found.table().loc["columns", "found"] == "12 triples to train on, 4 held out"


def faults(quick, sft_folder, triples):
    """What is done to a run, by the item that must notice."""
    other = load_tokenizer(sft_folder, quick)
    other.chat_template = other.chat_template.replace("<|assistant|>", "Answer: ")
    twice = load_tokenizer(sft_folder, quick)
    twice.chat_template = "{{ bos_token }}" + twice.chat_template
    endless = load_tokenizer(sft_folder, quick)
    endless.chat_template = endless.chat_template.replace("{{ eos_token }}", "")
    leaked = [*triples[:11], {**triples[11], "prompt": triples[12]["prompt"]}]
    wrong = load_model(quick.base_model, quick)
    settings = quick.dpo
    return [
        ("columns", {"train": [*triples[:11], {**triples[11], "rejected": ""}]}, "row 12"),
        ("chat template", {"tokenizer": other}, "other tokens"),
        ("chat template", {"tokenizer": twice}, "two BOS"),
        ("end token", {"tokenizer": endless}, "16 of 16 responses end without it"),
        ("lengths", {"settings": replace(settings, max_length=100)}, "over max_length = 100"),
        ("splits", {"train": leaked}, "validation leak: 1 of 12 rows"),
        ("rows", {"train": [*triples[:12], triples[0]]}, "doubled rows: 1"),
        ("reference", {"reference": wrong}, "the loss would compare with another model"),
        (
            "trainable weights",
            {"settings": replace(settings, lora_targets=("q_proj", "c_attn"))},
            "no layer called c_attn; there are: q_proj",
        ),
        ("learning rate", {"settings": replace(settings, learning_rate=5e-3)}, "0.005"),
        ("learning rate", {"settings": replace(settings, learning_rate=1e-9)}, "1e-09"),
        (
            "learning rate",
            {"settings": replace(settings, lora_rank=0, learning_rate=5e-4)},
            "for all weights",
        ),
        ("precision", {"profile": replace(quick, dtype="bfloat16")}, "bfloat16 on a CPU"),
    ]


@pytest.mark.parametrize("index", range(13))
def test_each_item_notices_its_fault(index, quick, sft_folder, triples, evaluation):
    cases = faults(quick, sft_folder, triples)
    assert len(cases) == 13
    name, changes, expected = cases[index]
    found = look(quick, sft_folder, triples, evaluation, **changes)
    assert not found[name].passed and expected in found[name].found
    line = found.table().loc[name]
    assert line[""] == "✗" and line["why"] and line["fix"]


def test_memory_that_is_not_there(quick, sft_folder, triples, evaluation, monkeypatch):
    monkeypatch.setattr("coursekit.preflight._free_memory", lambda: 0.001)
    found = look(quick, sft_folder, triples, evaluation)
    assert not found["memory"].passed and "0.0 GiB free" in found["memory"].found


def test_each_item_has_a_planted_fault(quick, sft_folder, triples):
    planted = {name for name, _, _ in faults(quick, sft_folder, triples)} | {"memory"}
    assert planted == {item.name for item in ITEMS}
