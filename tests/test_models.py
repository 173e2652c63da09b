"""The shipped model and loading: what is there, what is missing, what is safe."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import NATS

from coursekit.models import adapter_config, frozen_copy, load_model, load_tokenizer, merge_adapter
from coursekit.profile import TINY_MODEL, load_profile

FOLDER = Path(TINY_MODEL)


def test_the_shipped_model_is_small_and_standard():
    files = {file.name for file in FOLDER.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".checkpoint", ".py"))]
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 12 * 2**20
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert AutoTokenizer.from_pretrained(FOLDER).eos_token_id == model.config.eos_token_id


def test_the_card_tells_how_it_was_made():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert f"{config['num_hidden_layers']} layers, hidden size {config['hidden_size']}" in card
    for word in ("teaching model", "python -m coursekit.models.build", "minutes on", "seed"):
        assert word in card


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("Grüße, 世界 🙂\t\n  x", "<b>1e-5</b>", ""):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_words_of_a_service_are_single_tokens(tokenizer):
    from coursekit.triage.alerts import ROLES, SYSTEMS

    for system in SYSTEMS:
        for role in ROLES:
            assert len(tokenizer(f" {system}-{role}", add_special_tokens=False)["input_ids"]) == 2


def test_missing_weights_are_told(tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FOLDER / name, tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"no model\.safetensors .*python -m coursekit model"
    ):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere")


def test_a_model_without_end_token_is_told(tmp_path, tokenizer):
    copy = type(tokenizer).from_pretrained(FOLDER)
    copy.eos_token = None
    copy.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no end token.*set tokenizer\.eos_token"):
        load_tokenizer(tmp_path)


def test_a_missing_pad_token_becomes_the_end_token(tmp_path, tokenizer):
    copy = type(tokenizer).from_pretrained(FOLDER)
    copy.pad_token = None
    copy.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "<|end|>"


def test_adapters_stack_and_merge(sft_folder, quick, tokenizer, triples, tmp_path):
    from coursekit.logprobs import sequence_logps
    from coursekit.training import train_dpo

    run = train_dpo(sft_folder, triples, tmp_path / "dpo", quick)
    assert adapter_config(run.folder)["base_model_name_or_path"] == str(sft_folder)
    prompts, texts = [[row[key] for row in triples] for key in ("prompt", "chosen")]
    apart = sequence_logps(load_model(run.folder), tokenizer, prompts, texts)
    merged = sequence_logps(merge_adapter(load_model(run.folder)), tokenizer, prompts, texts)
    assert merged.tolist() == pytest.approx(apart.tolist(), abs=NATS)


def test_four_bit_loads_and_refuses_to_merge(sft_folder, quick):
    four_bit = replace(quick, four_bit=True)
    model = load_model(sft_folder, four_bit)
    with pytest.raises(ValueError, match="4-bit weights without loss"):
        merge_adapter(model)


def test_no_function_is_called_first_by_several_threads_at_once(profile, tokenizer):
    """Else one of them may compute it with low accuracy: each is called for one number before."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from coursekit.logprobs import sequence_logps

    first = {}

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if args and isinstance(args[0], torch.Tensor):
                first.setdefault(function.overloadpacket.__name__, args[0].numel())
            return function(*args, **(kwargs or {}))

    with Record():
        sequence_logps(load_model(profile.base_model, profile), tokenizer, ["a"], ["b"])
    assert first["cos"] == first["sin"] == first["exp"] == first["sqrt"] == 1


def test_frozen_copy_is_independent(model):
    copy = frozen_copy(model)
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    model.lm_head.weight.data.zero_()
    assert copy.lm_head.weight.abs().sum() > 0


def test_no_profile_trusts_remote_code():
    sources = (Path(TINY_MODEL).parent.parent).rglob("*.py")
    assert not any(
        "trust_remote_code=True" in source.read_text(encoding="utf-8") for source in sources
    )


def test_profiles(monkeypatch):
    assert load_profile().name == "tiny"
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    assert load_profile().dtype == "bfloat16"
    assert load_profile("colab").four_bit
    with pytest.raises(ValueError, match=r"unknown profile 'huge': .* tiny, colab, gpu"):
        load_profile("huge")


def test_damaged_weights_are_told(sft_folder, tmp_path):
    for source, name in ((FOLDER, "model.safetensors"), (sft_folder, "adapter_model.safetensors")):
        copy = tmp_path / source.name
        shutil.copytree(source, copy)
        weights = (copy / name).read_bytes()
        (copy / name).write_bytes(weights[: len(weights) // 2])
        with pytest.raises(ValueError, match=r"are damaged .*git checkout"):
            load_model(copy)


# Building the tiny model.


def test_a_build_that_was_stopped_goes_on_to_the_same_weights(tokenizer, tmp_path, monkeypatch):
    from coursekit.models import build

    recipe = build.Recipe(hidden=16, layers=1, feed_forward=32, steps=24, batch=2, warmup_steps=4)
    whole = build.build_model(recipe, tokenizer)
    done = build.train(recipe, whole, tokenizer, tmp_path / "whole")

    monkeypatch.setattr(build, "SAVE_EVERY", 10)
    save = build._save_state

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_save_state", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        build.train(recipe, build.build_model(recipe, tokenizer), tokenizer, tmp_path / "parts")
    monkeypatch.setattr(build, "_save_state", save)
    torch.manual_seed(99)  # a new process would start with another state
    resumed = build.build_model(recipe, tokenizer)
    again = build.train(recipe, resumed, tokenizer, tmp_path / "parts")
    assert again["tokens"] == done["tokens"] and again["step"] == 24
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weight, rtol=1e-5, atol=1e-6)

    other = replace(recipe, steps=25)
    with pytest.raises(ValueError, match="belongs to another recipe: delete it"):
        build.train(other, build.build_model(other, tokenizer), tokenizer, tmp_path / "parts")


def test_the_shipped_model_is_what_its_builder_makes(tokenizer):
    """Tokenizer, architecture and size: weights take minutes and are not made again here."""
    from coursekit.models import build

    made = build.build_tokenizer(build.Recipe())
    assert made.get_vocab() == tokenizer.get_vocab()
    assert made.chat_template == tokenizer.chat_template
    shipped = load_model(TINY_MODEL)
    fresh = build.build_model(build.Recipe(), made)
    shapes = {name: weight.shape for name, weight in fresh.state_dict().items()}
    assert {name: weight.shape for name, weight in shipped.state_dict().items()} == shapes
