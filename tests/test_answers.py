"""Answers are kept by what the model is: free the second time, never stale."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import ROOT

from coursekit.evaluation import responses as answers_module
from coursekit.evaluation.responses import answer, kept_answers
from coursekit.lm.generation import generate
from coursekit.lm.identity import model_identity
from coursekit.lm.loading import load_model
from coursekit.tasks.triage import TRIAGE


@pytest.fixture()
def small(quick, tmp_path):
    return replace(quick, artifacts=tmp_path, max_new_tokens=12, generation_batch=4)


@pytest.fixture()
def copied(sft_folder, tmp_path):
    """An adapter of its own, whose files a test may change."""
    return shutil.copytree(sft_folder, tmp_path / "sft")


@pytest.fixture()
def loads(monkeypatch):
    """Which models were loaded to answer."""
    from coursekit.lm import loading as models

    seen = []

    def counting(source, *rest):
        seen.append(str(source))
        return load_model(source, *rest)

    monkeypatch.setattr(models, "load_model", counting)
    return seen


def test_a_second_time_nothing_is_loaded(small, copied, loads):
    rows = TRIAGE.rows("evaluation", 6, small)
    models = {"base": small.base_model, "SFT": copied}
    first = answer(models, rows, small)
    assert len(loads) >= 2 and [len(texts) for texts in first.values()] == [6, 6]
    loads.clear()
    assert answer(models, rows, small) == first and not loads


def test_what_is_kept_is_read_and_nothing_generated(small, copied, loads):
    rows = TRIAGE.rows("evaluation", 6, small)
    models = {"base": small.base_model, "SFT": copied}
    nothing = {name: [None] * 6 for name in models}
    assert kept_answers(models, rows, small) == nothing
    found = answer(models, rows[:4], small)
    loads.clear()
    assert kept_answers(models, rows, small) == {
        name: [*texts, None, None] for name, texts in found.items()
    }
    assert kept_answers(models, rows, small, temperature=0.0) == nothing
    assert kept_answers(models, rows, small, seed=1) == nothing
    assert kept_answers(models, rows, replace(small, max_new_tokens=13)) == nothing
    config = copied / "adapter_config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert kept_answers(models, rows, small)["SFT"] == [None] * 6  # another model by now
    assert not loads


def test_more_prompts_keep_the_first_answers(small, copied, loads):
    rows = TRIAGE.rows("evaluation", 9, small)
    few = answer({"SFT": copied}, rows[:3], small)["SFT"]
    many = answer({"SFT": copied}, rows, small)["SFT"]
    assert many[:3] == few
    fresh = answer({"SFT": copied}, rows, small, folder=small.artifacts / "other")["SFT"]
    assert fresh == many  # not a matter of which were there, nor of the order of asking
    assert answer({"SFT": copied}, rows[::-1], small)["SFT"] == many[::-1]


def test_a_changed_adapter_is_another_model(small, copied, loads):
    rows = TRIAGE.rows("evaluation", 2, small)
    answer({"SFT": copied}, rows, small)
    before = model_identity(copied, small)
    weights = copied / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    (copied / "SHA256SUMS").unlink()  # a change of one's own
    tensors = {name: value + 0.5 for name, value in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    assert model_identity(copied, small) != before
    loads.clear()
    answer({"SFT": copied}, rows, small)
    assert loads


def test_a_changed_base_changes_its_adapters(small, copied, tmp_path):
    base = shutil.copytree(small.base_model, tmp_path / "base")
    config = copied / "adapter_config.json"
    content = json.loads(config.read_text(encoding="utf-8")) | {
        "base_model_name_or_path": str(base)
    }
    config.write_text(json.dumps(content), encoding="utf-8")
    before = model_identity(copied, small)
    (base / "config.json").write_text(
        (base / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    assert model_identity(copied, small) != before
    assert model_identity(copied, replace(small, dtype="bfloat16")) != model_identity(copied, small)


def test_notes_beside_a_model_change_nothing(small, copied):
    before = model_identity(copied, small)
    (copied / "history.jsonl").write_text("{}", encoding="utf-8")
    (copied / "README.md").write_text("changed", encoding="utf-8")
    assert model_identity(copied, small) == before


def test_a_hub_name_is_told_by_its_commit(small, tmp_path, monkeypatch):
    import huggingface_hub

    def cached(commit):
        path = tmp_path / "snapshots" / commit / "config.json"
        monkeypatch.setattr(
            huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: str(path)
        )
        return model_identity("someone/model", small)

    assert cached("abc") == cached("abc") != cached("def")


def test_other_settings_are_other_answers(small, copied):
    rows = TRIAGE.rows("evaluation", 4, small)
    ask = lambda **options: answer({"SFT": copied}, rows, small, **options)["SFT"]  # noqa: E731
    assert ask(temperature=1.0, seed=1) != ask(temperature=1.0, seed=2)
    assert ask(temperature=0.0, seed=1) == ask(temperature=0.0, seed=2)


def test_the_same_prompt_twice_is_answered_twice(small, copied):
    rows = TRIAGE.rows("evaluation", 1, small) * 8
    texts = answer({"SFT": copied}, rows, small, temperature=1.5)["SFT"]
    assert len(set(texts)) > 1
    assert answer({"SFT": copied}, rows[:1], small, temperature=1.5)["SFT"] == texts[:1]


def test_what_was_answered_before_a_stop_is_kept(small, copied, monkeypatch):
    rows = TRIAGE.rows("evaluation", 10, small)
    calls = []

    def stopping(*args, **options):
        calls.append(len(args[2]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(*args, **options)

    monkeypatch.setattr("coursekit.lm.generation.generate", stopping)
    with pytest.raises(KeyboardInterrupt):
        answer({"SFT": copied}, rows, small)
    done = answer({"SFT": copied}, rows, small)["SFT"]
    assert calls == [4, 4, 2, 2] and len(done) == 10
    monkeypatch.undo()
    assert answer({"SFT": copied}, rows, small, folder=small.artifacts / "x")["SFT"] == done


def test_edited_answers_are_generated_again(small, copied, capsys):
    rows = TRIAGE.rows("evaluation", 2, small)
    first = answer({"SFT": copied}, rows, small)
    (path,) = (small.artifacts / "answers").glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[0]["response"] = "mine"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert answer({"SFT": copied}, rows, small) == first
    assert "line 1 was edited" in capsys.readouterr().out


def test_other_sampling_code_is_other_answers(small, copied, loads, monkeypatch, tmp_path):
    from coursekit.lm import generation

    rows = TRIAGE.rows("evaluation", 2, small)
    answer({"SFT": copied}, rows, small)
    changed = tmp_path / "generation.py"
    source = (ROOT / "coursekit" / "lm" / "generation.py").read_text(encoding="utf-8")
    changed.write_text(source + "\nX = 1\n", encoding="utf-8")
    monkeypatch.setattr(generation, "__file__", str(changed))
    answer({"SFT": copied}, rows, small)
    assert len(list((small.artifacts / "answers").glob("*.jsonl"))) == 2


def test_the_seed_of_a_prompt_is_its_own():
    assert answers_module._seed(0, "a", 0) != answers_module._seed(0, "a", 1)
    assert answers_module._seed(0, "a", 0) != answers_module._seed(1, "a", 0)


def test_one_seed_for_each_prompt(model, tokenizer):
    prompts = ["Tell the team.\nservice: user-db", "Which region?\nservice: user-db"]
    options = {"max_new_tokens": 12, "temperature": 1.5}
    before = torch.get_rng_state()
    both = generate(model, tokenizer, prompts, seed=[5, 9], **options)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's state is left alone
    assert generate(model, tokenizer, prompts[::-1], seed=[9, 5], **options) == both[::-1]
    assert generate(model, tokenizer, prompts[1:], seed=[9], **options) == both[1:]
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        generate(model, tokenizer, prompts, seed=[1], **options)
