"""The shipped model and loading: what is there, what is missing, what is safe."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import NATS, frozen_copy

from coursekit.common.profile import TINY_MODEL, load_profile
from coursekit.lm.loading import (
    adapter_config,
    load_model,
    load_tokenizer,
    merge_adapter,
)

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
    for word in (
        "teaching model",
        "python -m coursekit.tasks.triage.base_model",
        "minutes on",
        "seed",
    ):
        assert word in card


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("Grüße, 世界 🙂\t\n  x", "<b>1e-5</b>", ""):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_words_of_a_service_are_single_tokens(tokenizer):
    from coursekit.tasks.triage.alerts import ROLES, SYSTEMS

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


@pytest.mark.parametrize("kept", [0, 0.5])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_cut_short_is_told(name, kept, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"is damaged .*copy tokenizer.json.*anew") as error:
        load_tokenizer(tmp_path)
    assert type(error.value) is ValueError and str(tmp_path) in str(error.value)


def test_adapters_stack_and_merge(sft_folder, quick, tokenizer, triples, tmp_path):
    from coursekit.lm.logprobs import sequence_logps
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

    from coursekit.lm.logprobs import sequence_logps

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


def test_nothing_is_loaded_with_code_of_its_own():
    """Each call of `from_pretrained` of an Auto class says so, and reads no pickle."""
    import ast

    calls = []
    for source in (Path(TINY_MODEL).parent.parent).rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                if called.endswith(".from_pretrained") and not called.startswith("Peft"):
                    calls.append((source.name, called, ast.unparse(node)))
    assert len(calls) >= 3
    for name, called, text in calls:
        assert "trust_remote_code=False" in text, (name, text)
        assert (
            called.startswith(("AutoTokenizer", "AutoConfig")) or "use_safetensors=True" in text
        ), (name, text)


def test_profiles(monkeypatch):
    assert load_profile().name == "tiny"
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    assert load_profile().dtype == "bfloat16"
    assert load_profile("colab").four_bit
    with pytest.raises(ValueError, match=r"unknown profile 'huge': .* tiny, laptop, colab, gpu"):
        load_profile("huge")


@pytest.fixture(scope="module")
def adapter(profile, tmp_path_factory):
    """A small adapter on the shipped model, as a run saves it, without training."""
    from peft import LoraConfig, get_peft_model

    from coursekit.lm.loading import base_name
    from coursekit.lm.weights import write_checksums

    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(
        load_model(profile.base_model, profile),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    model.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    name = base_name(profile.base_model, folder, profile.artifacts)
    path.write_text(
        json.dumps(
            json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
        ),
        encoding="utf-8",
    )
    write_checksums(folder)
    load_tokenizer(profile.base_model, profile).save_pretrained(folder)
    return folder


@pytest.fixture(params=["whole", "adapter"])
def saved(request, adapter, tmp_path):
    """A copy of a whole model or of an adapter: its folder, and its weights' file."""
    whole = request.param == "whole"
    copy = shutil.copytree(FOLDER if whole else adapter, tmp_path / "copy")
    return copy, copy / ("model.safetensors" if whole else "adapter_model.safetensors")


def change_weights(path, change, noted):
    """Rewrite the tensors in `path`; with `noted`, with the right check sum beside them."""
    from safetensors.torch import load_file, save_file

    from coursekit.lm.weights import write_checksums

    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    if noted:
        write_checksums(path.parent)


def test_what_was_saved_is_loaded(saved):
    assert load_model(saved[0]).num_parameters() > 800_000


@pytest.mark.parametrize("noted", [True, False])
def test_cut_weights_are_told(saved, noted):
    folder, path = saved
    path.write_bytes(path.read_bytes()[:-1000])
    if not noted:
        (folder / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match=r"damaged .*git checkout"):
        load_model(folder)


def test_weights_that_changed_since_they_were_saved_are_told(saved):
    folder, path = saved
    change_weights(path, lambda tensors: {n: t * 1.01 for n, t in tensors.items()}, noted=False)
    with pytest.raises(ValueError, match=r"changed since it was saved .*delete SHA256SUMS"):
        load_model(folder)
    (folder / "SHA256SUMS").unlink()
    load_model(folder)


def first(change):
    """A change of the first tensor alone; None takes it away."""

    def changed(tensors):
        name = min(tensors)
        new = change(tensors[name])
        others = {key: value for key, value in tensors.items() if key != name}
        return others if new is None else {**others, name: new}

    return changed


DAMAGE = {
    "missing": (first(lambda tensor: None), "tensors 1 missing"),
    "misfit": (first(lambda tensor: tensor[:-1].contiguous()), "1 of another shape"),
    "foreign": (lambda tensors: tensors | {"model.extra.weight": torch.ones(2)}, "1 of no use"),
    "infinite": (first(lambda tensor: tensor * float("nan")), "are not finite"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_weights_that_are_not_the_models_are_refused(saved, kind):
    folder, path = saved
    change, expected = DAMAGE[kind]
    change_weights(path, change, noted=True)
    with pytest.raises(ValueError, match=expected):
        load_model(folder)


def test_an_adapter_that_changes_nothing_is_refused(adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    change_weights(
        copy / "adapter_model.safetensors",
        lambda tensors: {name: tensor * 0 for name, tensor in tensors.items()},
        noted=True,
    )
    with pytest.raises(ValueError, match="changes nothing"):
        load_model(copy)


def test_four_bit_weights_that_are_not_finite_are_refused(tmp_path, profile):
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    change = {"model.layers.0.mlp.up_proj.weight": torch.full((384, 128), torch.nan)}
    change_weights(copy / "model.safetensors", lambda tensors: tensors | change, noted=True)
    with pytest.raises(ValueError, match=r"not finite .*up_proj"):
        load_model(copy, replace(profile, four_bit=True))


def test_an_adapter_without_weights_is_told_and_no_pickle_is_read(adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    (copy / "adapter_model.safetensors").unlink()
    torch.save({}, copy / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no .*adapter_model.safetensors.*is not read"):
        load_model(copy)


@pytest.mark.parametrize("text", ["", '{"peft_type": "LO', "[]", "{}", "null"])
def test_a_damaged_adapter_config_is_told(adapter, tmp_path, text):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    (copy / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"adapter_config.json is damaged .*names the adapter's"):
        load_model(copy)


@pytest.mark.parametrize("links", [["./"], ["../b", "../a"]])
def test_an_adapter_that_stands_on_itself_is_told(adapter, tmp_path, links):
    for name, base in zip("ab", links, strict=False):
        copy = shutil.copytree(adapter, tmp_path / name)
        rename_base(copy, base)
    with pytest.raises(ValueError, match="stands on itself"):
        load_model(tmp_path / "a")


def rename_base(folder, base):
    path = folder / "adapter_config.json"
    path.write_text(
        json.dumps(
            json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base}
        ),
        encoding="utf-8",
    )


def test_an_adapter_does_not_send_us_to_the_hub(adapter, profile, tmp_path, monkeypatch):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    rename_base(copy, "someone/model")
    with pytest.raises(ValueError, match=r"a name on the hub that the profile 'tiny' does not"):
        load_model(copy, profile)

    asked = []
    monkeypatch.setattr("coursekit.lm.loading._load_plain", lambda source, _: asked.append(source))
    with pytest.raises(AttributeError):  # of None, in place of the base
        load_model(copy, replace(profile, base_model="someone/model"))
    assert asked == ["someone/model"]


def test_an_adapter_on_the_hub_is_refused(profile, monkeypatch):
    monkeypatch.setattr("transformers.utils.find_adapter_config_file", lambda *_, **__: "there")
    with pytest.raises(ValueError, match="someone/adapter on the hub is an adapter: download"):
        load_model("someone/adapter", profile)


def test_a_base_that_is_gone_is_told(adapter, tmp_path):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    rename_base(copy, str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"was trained on .*gone, which is not there"):
        load_model(copy)


def test_adapters_and_their_bases_may_move_together(adapter, tmp_path):
    from coursekit.lm.loading import base_name

    artifacts = tmp_path / "artifacts"
    for name in ("tiny/sft", "tiny/dpo", "elsewhere"):
        shutil.copytree(adapter, artifacts / name)
    sft, dpo = artifacts / "tiny/sft", artifacts / "tiny/dpo"
    assert base_name(sft, dpo, artifacts) == "../sft"
    assert base_name(sft, sft / "inner", artifacts) == ".."
    assert base_name(sft, artifacts, artifacts) == "./tiny/sft"
    assert base_name(sft, tmp_path / "outside", artifacts) == str(sft)
    assert base_name("owner/name", dpo, artifacts) == "owner/name"
    assert base_name(TINY_MODEL, dpo, artifacts) == "coursekit/lm/tiny"

    rename_base(dpo, "../sft")
    moved = artifacts.rename(tmp_path / "moved")
    shutil.copytree(moved, artifacts)  # what was left behind is not what is loaded
    shutil.rmtree(artifacts / "tiny/sft")
    assert adapter_config(moved / "tiny/dpo")["base_model_name_or_path"] == str(moved / "tiny/sft")
    assert adapter_config(moved / "tiny/sft")["base_model_name_or_path"] == TINY_MODEL
    load_model(moved / "tiny/dpo")


@pytest.mark.parametrize("text", ["", '{"version": "1.0", "trunc', "{}"])
def test_a_damaged_tokenizer_is_told(tmp_path, text):
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    (copy / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"the tokenizer in .* is damaged .*git checkout"):
        load_tokenizer(copy)


# Building the tiny model.


def test_a_build_that_was_stopped_goes_on_to_the_same_weights(tokenizer, tmp_path, monkeypatch):
    from coursekit.tasks.triage import base_model as build

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
    from coursekit.tasks.triage import base_model as build

    made = build.build_tokenizer(build.Recipe())
    assert made.get_vocab() == tokenizer.get_vocab()
    assert made.chat_template == tokenizer.chat_template
    shipped = load_model(TINY_MODEL)
    fresh = build.build_model(build.Recipe(), made)
    shapes = {name: weight.shape for name, weight in fresh.state_dict().items()}
    assert {name: weight.shape for name, weight in shipped.state_dict().items()} == shapes
