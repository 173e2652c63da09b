"""A release: one adapter that equals two, a card, no secrets; pushed and tagged only if asked."""

import re
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import NATS
from safetensors.torch import load_file, save_file

from coursekit.lm.loading import adapter_config, load_model
from coursekit.lm.weights import write_checksums
from coursekit.tasks.triage import TRIAGE, Triage
from coursekit.training import load_run, train_dpo
from coursekit.training import release as publishing
from coursekit.training.release import assert_whole, git_tag, make_release, push_to_hub

SECTIONS = {
    "Evaluation on 30 prompts": "| a |\n|---|\n| 1 |",
    "Response against response": "- 70 %",
}


@pytest.fixture(scope="module")
def dpo_folder(quick, sft_folder, triples):
    return train_dpo(
        sft_folder, triples, quick.artifacts / "dpo-to-publish", quick, save_strategy="no"
    ).folder


@pytest.fixture()
def here(quick, tmp_path):
    return replace(quick, artifacts=tmp_path)


def release(dpo_folder, profile, version="v0.1", **options):
    releases = profile.artifacts / "releases"
    return make_release(
        dpo_folder, releases, TRIAGE, profile, version, evaluation=SECTIONS, **options
    )


def test_two_adapters_become_one_that_gives_the_same(dpo_folder, here, tokenizer, triples):
    from peft import PeftModel

    folder = release(dpo_folder, here, data_card="# Triples")
    joined = PeftModel.from_pretrained(load_model(here.base_model, here), str(folder)).eval()
    ours = load_model(dpo_folder, here)
    ids = tokenizer(triples[0]["prompt"], return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.allclose(joined(ids).logits, ours(ids).logits, atol=NATS)
        sft_alone = load_model(
            adapter_config(dpo_folder)["base_model_name_or_path"],
            here,
        )
        assert not torch.allclose(joined(ids).logits, sft_alone(ids).logits, atol=10 * NATS)
    assert {path.name for path in folder.iterdir()} >= {
        *("adapter_model.safetensors", "adapter_config.json", "tokenizer.json"),
        *("README.md", "DATA.md", "settings.json"),
    }
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))


def test_the_card(dpo_folder, here):
    card = (release(dpo_folder, here, limits=["Only tried on Mondays."]) / "README.md").read_text(
        encoding="utf-8"
    )
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert "license: apache-2.0" in head and "library_name: peft" in head
    for wanted in ("v0.1", *SECTIONS, "| 1 |", "Only tried on Mondays.", "learning_rate", "trl 1."):
        assert wanted in body
    assert "PeftModel.from_pretrained" in body and "coursekit/lm/tiny" in body


def test_the_card_tells_the_runs_settings_and_not_the_profiles(dpo_folder, here, tmp_path):
    """The weights never saw what the profile says by now."""
    changed = replace(here, dpo=replace(here.dpo, learning_rate=0.123, beta=0.77))
    card = (release(dpo_folder, changed) / "README.md").read_text(encoding="utf-8")
    record = load_run(dpo_folder).made_from
    assert "0.123" not in card and "0.77" not in card
    assert "| | SFT | DPO |" in card and f"| rows | 64 | {record['n']} |" in card
    assert f"| learning_rate | 0.002 | {record['settings']['learning_rate']} |" in card
    assert f"| {record['sft']} |" in card and record["rows"] in card
    assert f"trl {record['versions']['trl']}" in card
    # Trained elsewhere: nothing is claimed.
    strange = shutil.copytree(dpo_folder, dpo_folder.with_name("strange"))
    (strange / "made_from.json").unlink()
    card = (release(strange, changed, "v0.2") / "README.md").read_text(encoding="utf-8")
    assert "| | SFT | adapter 2 |" in card and "| learning_rate | 0.002 | not recorded |" in card
    assert "0.123" not in card and "Versions: not recorded." in card


class Hostile(Triage):
    name = "<img src=x> | *a*"


def test_names_are_values_of_the_front_matter_and_text_of_the_card(dpo_folder, here):
    import yaml

    hostile = "mit\nevil: true # <script>alert(1)</script>"
    folder = make_release(
        dpo_folder,
        here.artifacts,
        Hostile(),
        here,
        "v0.1",
        evaluation=SECTIONS,
        license=hostile,
    )
    head, body = (
        (folder / "README.md").read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
    )
    front = yaml.safe_load(head)
    assert front["license"] == hostile and "evil" not in front and "base_model" not in front
    assert body.startswith("# \\<img src=x\\> \\| \\*a\\*-dpo v0.1\n")
    assert not re.search(r"(?<!\\)<(script|img)", body)


def test_no_path_of_this_machine_is_in_it(dpo_folder, here):
    folder = release(dpo_folder, here)
    for path in folder.rglob("*"):
        text = path.read_bytes().decode("utf-8", errors="ignore")
        assert str(here.artifacts) not in text and str(publishing.ROOT) not in text, path.name


def test_what_is_noted_of_the_base_model_is_not_its_place_here(dpo_folder, here, monkeypatch):
    """A workspace's notes have the path, which lies in the home folder where the course does."""
    noted = {"base model": here.base_model, "profile": "tiny"}
    run = SimpleNamespace(made_from={"stage": "DPO", "notes": noted})
    monkeypatch.setattr("coursekit.training.run.load_run", lambda folder: run)
    told = publishing._record(dpo_folder)
    public = {"base model": "coursekit/lm/tiny", "profile": "tiny"}
    assert told == {"stage": "DPO", "notes": public} and noted["base model"] == here.base_model


def test_a_version_is_not_changed_afterwards(dpo_folder, here):
    folder = release(dpo_folder, here)
    assert release(dpo_folder, here) == folder  # the same weights: the card may be written anew
    other = shutil.copytree(dpo_folder, dpo_folder.with_name("other"))  # beside its base
    weights = other / "adapter_model.safetensors"
    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights)
    write_checksums(other)
    before = (folder / "README.md").read_bytes()
    with pytest.raises(FileExistsError, match="Give this one a new version"):
        release(other, here)
    assert (folder / "README.md").read_bytes() == before
    assert release(other, here, None).name == "v0.2"  # the next
    assert release(dpo_folder, here, None) == folder  # these weights have a version
    assert release(other, here, "v1.0").name == "v1.0" and release(other, here, None).name == "v1.0"


@pytest.mark.parametrize("version", ["0.1", "v1", "v0.1-beta", "v0.1\n"])
def test_other_versions_are_refused(dpo_folder, here, version):
    with pytest.raises(ValueError, match="wanted the form"):
        release(dpo_folder, here, version)


def test_a_whole_model_is_no_adapter(here):
    with pytest.raises(ValueError, match="holds no adapter"):
        release(here.base_model, here)


SECRET = "hf_" + "aB3" * 10  # made up, and put together so that no scanner takes it for a leak


def test_a_secret_stops_the_release(dpo_folder, here):
    with pytest.raises(ValueError, match=r"README.md holds a Hugging Face token \(line") as caught:
        release(dpo_folder, here, limits=[f"my key is {SECRET}"])
    assert SECRET not in str(caught.value)
    assert not (here.artifacts / "releases" / "v0.1").exists()


# Whole or not, by the files alone.


@pytest.fixture()
def adapter(tmp_path):
    """A folder that looks like an adapter of two layers, without a model."""
    module = "base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.weight"
    weights = {
        module.format(layer, name, part): torch.ones(2, 3)
        for layer in range(2)
        for name in "qv"
        for part in "AB"
    }
    save_file(weights, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 2}', encoding="utf-8")
    return tmp_path


def change(folder, **changes):
    """Save the adapter anew: tensors whose names hold `name` changed, or left out for None."""
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    for part, value in changes.items():
        for name in [name for name in weights if part in name.replace(".", "_")]:
            weights[name] = value if value is None else value.clone()
    save_file({name: value for name, value in weights.items() if value is not None}, path)


def cut(folder, name, bytes_):
    (folder / name).write_bytes((folder / name).read_bytes()[:bytes_])


WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
DAMAGE = {
    "cut or damaged": lambda folder: cut(folder, WEIGHTS, -5),
    r"cut or damaged \(": lambda folder: cut(folder, WEIGHTS, 4),
    r"not all finite \(.*layers.1.self_attn.q": lambda folder: change(
        folder, layers_1_self_attn_q_proj_lora_A=torch.tensor([[1.0, float("nan")]])
    ),
    r"q_proj.lora_A.weight has no B": lambda folder: change(
        folder, layers_0_self_attn_q_proj_lora_B=None
    ),
    r"layer 1 has fewer": lambda folder: change(folder, layers_1_self_attn_v_proj=None),
    r"none at all": lambda folder: change(folder, layers=None),
    r"adapter_config.json in .* is damaged": lambda folder: cut(folder, CONFIG, 3),
    r"has no adapter_config.json": lambda folder: (folder / CONFIG).unlink(),
    r"has no adapter_model": lambda folder: (folder / WEIGHTS).unlink(),
    r"SHA-256 is not the one": lambda folder: (folder / "SHA256SUMS").write_text(
        f"0  {WEIGHTS}", encoding="utf-8"
    ),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_what_is_cut_or_damaged_is_not_whole(adapter, said):
    assert_whole(adapter)
    DAMAGE[said](adapter)
    with pytest.raises(ValueError, match=said):
        assert_whole(adapter)


class Hub:
    """Stands in for `HfApi`: remembers what it was asked to change."""

    def __init__(self, exists=False, private=True, tags=()):
        self.calls = []
        self.exists, self.private, self.tags = exists, private, tags

    def repo_exists(self, repo_id):
        return self.exists

    def repo_info(self, repo_id):
        return SimpleNamespace(private=self.private)

    def list_repo_refs(self, repo_id):
        return SimpleNamespace(tags=[SimpleNamespace(name=name) for name in self.tags])

    def __getattr__(self, name):
        return lambda *args, **options: self.calls.append((name, args, options))


def test_a_dry_run_sends_nothing_and_says_what_it_would(dpo_folder, here, capsys):
    folder, hub = release(dpo_folder, here), Hub()
    files = push_to_hub(folder, "me/mine", "v0.1", api=hub)
    assert not hub.calls
    out = capsys.readouterr().out
    assert "Would send to me/mine (private), tag v0.1" in out
    assert all(name in out for name in files) and "adapter_model.safetensors" in files


def test_a_push_makes_the_repository_sends_what_it_said_and_tags(dpo_folder, here, capsys):
    folder, hub = release(dpo_folder, here), Hub()
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "README.md").write_text("old", encoding="utf-8")
    names = push_to_hub(folder, "me/mine", "v0.1", dry_run=False, api=hub)
    assert [name for name, _, _ in hub.calls] == ["create_repo", "upload_folder", "create_tag"]
    assert hub.calls[0][2] == {"private": True}
    assert hub.calls[1][2]["folder_path"] == str(folder)
    assert hub.calls[1][2]["allow_patterns"] == names
    assert hub.calls[2][2] == {"tag": "v0.1"}
    assert "optimizer.pt" not in names and ".ipynb_checkpoints/README.md" not in names
    assert {"adapter_model.safetensors", "README.md", "tokenizer.json"} <= set(names)
    assert capsys.readouterr().out.count("stays here: no part of a release") == 2


def test_what_is_public_or_tagged_already_is_not_touched(dpo_folder, here):
    folder = release(dpo_folder, here)
    public = Hub(exists=True, private=False)
    with pytest.raises(ValueError, match="me/mine is public: nothing was sent"):
        push_to_hub(folder, "me/mine", "v0.1", dry_run=False, api=public)
    tagged = Hub(exists=True, tags=["v0.1"])
    with pytest.raises(ValueError, match=r"has a tag v0.1 already"):
        push_to_hub(folder, "me/mine", "v0.1", dry_run=False, api=tagged)
    assert not public.calls and not tagged.calls
    push_to_hub(folder, "me/mine", "v0.1", dry_run=False, private=False, api=public)
    push_to_hub(folder, "me/mine", "v0.2", dry_run=False, api=tagged)
    for hub in (public, tagged):
        assert [name for name, _, _ in hub.calls] == ["upload_folder", "create_tag"]


def test_a_secret_or_damage_that_comes_later_is_not_pushed(dpo_folder, here):
    folder, hub = release(dpo_folder, here), Hub()
    (folder / "more.txt").write_text(SECRET, encoding="utf-8")
    with pytest.raises(ValueError, match=r"more.txt holds a Hugging Face token"):
        push_to_hub(folder, "me/mine", "v0.1", dry_run=False, api=hub)
    (folder / "more.txt").unlink()
    change(folder, layers_0=torch.zeros(1, 1))
    with pytest.raises(ValueError, match="SHA-256 is not the one"):
        push_to_hub(folder, "me/mine", "v0.1", dry_run=False, api=hub)
    assert not hub.calls
    with pytest.raises(ValueError, match="is no release"):
        push_to_hub(here.artifacts, "me/mine", "v0.1", api=hub)


def test_tagging(tmp_path, capsys):
    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True, text=True
        ).stdout

    with pytest.raises(RuntimeError, match="git rev-parse"):
        git_tag("v0.1", "first", repo=tmp_path)
    git("init", "-q")
    git("config", "user.email", "a@b.c")
    git("config", "user.name", "A")
    (tmp_path / "x").write_text("1", encoding="utf-8")
    git("add", ".")
    git("commit", "-qm", "one")
    git_tag("v0.1", "first", repo=tmp_path)
    assert "Would tag commit" in capsys.readouterr().out and git("tag") == ""
    (tmp_path / "x").write_text("2", encoding="utf-8")
    git_tag("v0.1", "first", repo=tmp_path, dry_run=False)
    assert "changes that are not committed" in capsys.readouterr().out
    assert git("tag").split() == ["v0.1"]
    with pytest.raises(ValueError, match="already: choose the next"):
        git_tag("v0.1", "again", repo=tmp_path)
