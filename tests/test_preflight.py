"""The checklist passes a sound run, and each item fails on the fault it is there for."""

from dataclasses import replace

import pytest

from coursekit.lm.loading import load_model, load_tokenizer
from coursekit.tasks.triage import TRIAGE
from coursekit.training import checklist as module
from coursekit.training.checklist import ITEMS, preflight


@pytest.fixture(scope="module")
def evaluation(quick):
    return [row["prompt"] for row in TRIAGE.rows("evaluation", 10, quick)]


@pytest.fixture()
def look(quick, sft_folder, triples, evaluation, monkeypatch):
    """Run the checklist on a sound run with `changes`: one item alone, or all."""

    def run(item=None, **changes):
        if item:
            monkeypatch.setattr(module, "ITEMS", [each for each in ITEMS if each.name == item])
        options = {
            "train": triples[:12],
            "validation": triples[12:],
            "evaluation": evaluation,
            "settings": replace(quick.dpo, learning_rate=5e-4),
            "profile": quick,
        } | changes
        return preflight(sft_folder, **options)

    return run


def test_a_sound_run_passes(look):
    found = look()
    assert found.passed, found.table().to_string()
    assert len(found.checks) == len(ITEMS) == 13
    assert "first loss 0.6931" in found["reference"].found
    assert "no prompt in two splits" in found["splits"].found
    assert found.table().loc["columns", "found"] == "12 triples to train on, 4 held out"
    assert found["boundary"].found == "a token spans it in 0 of 12 rows"
    assert found["asked alike"].found == "as SFT was (lines that all prompts share: 1)"


def other_template(change):
    """The SFT model's tokenizer with another chat template."""

    def make(quick, sft_folder, triples):
        tokenizer = load_tokenizer(sft_folder, quick)
        tokenizer.chat_template = change(tokenizer.chat_template)
        return {"tokenizer": tokenizer}

    return make


def other_settings(**changes):
    return lambda quick, sft_folder, triples: {"settings": replace(quick.dpo, **changes)}


def other_row(**changes):
    """The twelfth row changed; a value may be made from all triples."""

    def make(quick, sft_folder, triples):
        made = {key: change(triples) for key, change in changes.items()}
        return {"train": [*triples[:11], {**triples[11], **made}]}

    return make


def asked_in_full(quick, sft_folder, triples):
    rows = TRIAGE.rows("preferences", 12, replace(quick, full_instruction=True))
    return {"train": [{**old, **row} for old, row in zip(triples, rows, strict=False)]}


# What is done to a run, by the item that must notice, and what it finds.
FAULTS = [
    ("columns", other_row(rejected=lambda triples: ""), "row 12"),
    (
        "chat template",
        other_template(lambda text: text.replace("<|assistant|>", "Answer: ")),
        "other tokens",
    ),
    ("chat template", other_template(lambda text: "{{ bos_token }}" + text), "two BOS"),
    (
        "boundary",  # as where a template ends with a space and a response begins with a word
        other_template(lambda text: text.replace("'<|assistant|>'", "' '")),
        "in 12 of 12 rows, row 1 the first",
    ),
    ("asked alike", asked_in_full, "where SFT's had 'Write the triage report.'"),
    (
        "end token",
        other_template(lambda text: text.replace("{{ eos_token }}", "")),
        "16 of 16 responses end without it",
    ),
    ("lengths", other_settings(max_length=100), "over max_length = 100"),
    (
        "lengths",
        lambda *_: (
            other_settings(max_length=5000)(*_)
            | other_row(chosen=lambda triples: "wait " * 2000)(*_)
        ),
        "1 over the model's context = 1024",
    ),
    (
        "splits",
        other_row(prompt=lambda triples: triples[12]["prompt"]),
        "validation leak: 1 of 12 rows",
    ),
    (
        "rows",
        lambda quick, sft, triples: {"train": [*triples[:12], triples[0]]},
        "doubled rows: 1",
    ),
    (
        "reference",
        lambda quick, sft, triples: {"reference": load_model(quick.base_model, quick)},
        "the loss would compare with another model",
    ),
    (
        "trainable weights",
        other_settings(lora_targets=("q_proj", "c_attn")),
        "no layer called c_attn; there are: q_proj",
    ),
    ("learning rate", other_settings(learning_rate=6e-4), "0.0006"),
    ("learning rate", other_settings(learning_rate=1e-9), "1e-09"),
    ("learning rate", other_settings(lora_rank=0, learning_rate=5e-4), "for all weights"),
    (
        "precision",
        lambda quick, sft, triples: {"profile": replace(quick, dtype="bfloat16")},
        "bfloat16 on a CPU",
    ),
]


@pytest.mark.parametrize(("name", "make", "expected"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_each_item_notices_its_fault(name, make, expected, look, quick, sft_folder, triples):
    found = look(name, **make(quick, sft_folder, triples))
    assert not found[name].passed and expected in found[name].found
    line = found.table().loc[name]
    assert line[""] == "✗" and line["why"] and line["fix"]


def test_memory_that_is_not_there(look, monkeypatch):
    monkeypatch.setattr(module, "_free_memory", lambda: 0.001)
    found = look("memory")
    assert not found["memory"].passed and "0.0 GiB free" in found["memory"].found


def test_each_item_has_a_planted_fault():
    assert {name for name, _, _ in FAULTS} | {"memory"} == {item.name for item in ITEMS}


def test_one_range_of_learning_rates_is_told():
    """Numbers stand in what was found alone, so that no second range can contradict it."""
    (rate,) = [item for item in ITEMS if item.name == "learning rate"]
    assert not any(character.isdigit() for character in rate.fix + rate.why)


def test_one_prompt_does_not_show_how_it_is_asked(look, triples):
    found = look("asked alike", train=[triples[0]] * 3)["asked alike"]
    assert found.passed and found.found.startswith("not known")
