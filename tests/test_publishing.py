"""A release: one adapter that equals two, a card, no secrets; pushed and tagged only if asked."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import NATS

from coursekit import publishing
from coursekit.models import load_model
from coursekit.publishing import assert_no_secrets, git_tag, make_release, push_to_hub
from coursekit.training import train_dpo

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
    return make_release(dpo_folder, profile, version, evaluation=SECTIONS, **options)


def test_two_adapters_become_one_that_gives_the_same(dpo_folder, here, tokenizer, triples):
    from peft import PeftModel

    folder = release(dpo_folder, here, data_card="# Triples")
    joined = PeftModel.from_pretrained(load_model(here.base_model, here), str(folder)).eval()
    ours = load_model(dpo_folder, here)
    ids = tokenizer(triples[0]["prompt"], return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.allclose(joined(ids).logits, ours(ids).logits, atol=NATS)
        sft_alone = load_model(
            json.loads((dpo_folder / "adapter_config.json").read_text(encoding="utf-8"))[
                "base_model_name_or_path"
            ],
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
    assert "PeftModel.from_pretrained" in body and "coursekit/models/tiny" in body


def test_no_path_of_this_machine_is_in_it(dpo_folder, here):
    folder = release(dpo_folder, here)
    for path in folder.rglob("*"):
        text = path.read_bytes().decode("utf-8", errors="ignore")
        assert str(here.artifacts) not in text and str(publishing.ROOT) not in text, path.name


def test_a_version_is_not_changed_afterwards(dpo_folder, here, tmp_path):
    folder = release(dpo_folder, here)
    assert release(dpo_folder, here) == folder  # the same weights: the card may be written anew
    other = shutil.copytree(dpo_folder, tmp_path / "other")
    weights = other / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights)
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


# Made up, and put together here so that no scanner takes this file for a leak.
PLANTED = {
    "a Hugging Face token": "hf_" + "aB3" * 10,
    "an API key": "sk-" + "ant-" + "x9" * 12,
    "a GitHub token": "ghp_" + "Z7" * 15,
    "an AWS key": "AKIA" + "ABCD" * 4,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_secret_stops_the_release(dpo_folder, here, kind):
    with pytest.raises(ValueError, match=f"README.md holds {kind}") as caught:
        release(dpo_folder, here, limits=[f"my key is {PLANTED[kind]}"])
    assert PLANTED[kind] not in str(caught.value)
    assert not (here.artifacts / here.name / "releases" / "v0.1").exists()


def test_the_value_of_a_key_in_the_environment_is_found_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "correct horse battery")
    (tmp_path / "notes.md").write_text("as I said, correct horse battery", encoding="utf-8")
    with pytest.raises(ValueError, match="the value of SOME_API_KEY") as caught:
        assert_no_secrets(tmp_path)
    assert "battery" not in str(caught.value)
    (tmp_path / "notes.md").write_text(f"see {Path.home()}/mine", encoding="utf-8")
    with pytest.raises(ValueError, match="home folder"):
        assert_no_secrets(tmp_path)


class Hub:
    """Stands in for `HfApi`: remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **options: self.calls.append((name, args, options))


def test_a_dry_run_sends_nothing_and_says_what_it_would(dpo_folder, here, capsys):
    folder, hub = release(dpo_folder, here), Hub()
    files = push_to_hub(folder, "me/mine", "v0.1", api=hub)
    assert not hub.calls
    out = capsys.readouterr().out
    assert "Would send to me/mine (private), tag v0.1" in out
    assert all(name in out for name in files) and "adapter_model.safetensors" in files


def test_a_push_makes_the_repository_sends_and_tags(dpo_folder, here):
    folder, hub = release(dpo_folder, here), Hub()
    push_to_hub(folder, "me/mine", "v0.1", dry_run=False, api=hub)
    names = [name for name, _, _ in hub.calls]
    assert names == ["create_repo", "upload_folder", "create_tag"]
    assert hub.calls[0][2] == {"private": True, "exist_ok": True}
    assert hub.calls[1][2]["folder_path"] == str(folder)
    assert hub.calls[2][2] == {"tag": "v0.1"}


def test_a_secret_added_later_is_not_pushed(dpo_folder, here):
    folder, hub = release(dpo_folder, here), Hub()
    (folder / "more.txt").write_text(PLANTED["an API key"], encoding="utf-8")
    with pytest.raises(ValueError, match=r"more.txt holds an API key"):
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
