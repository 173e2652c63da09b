"""From a run to something others can use: one adapter, its tokenizer, a model card, a version.

Nothing is sent unless `dry_run=False` says so, and nothing that holds a secret.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .profile import Profile

if TYPE_CHECKING:
    from peft import PeftModel

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r"v\d+\.\d+(\.\d+)?")
_WEIGHTS = "adapter_model.safetensors"
_SECRETS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"),
    "an AWS key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}


def make_release(
    dpo: str | Path,
    profile: Profile,
    version: str | None = None,
    *,
    evaluation: Mapping[str, str],
    data_card: str = "",
    name: str = "triage-dpo",
    license: str = "apache-2.0",
    limits: Sequence[str] = (),
    releases: str | Path | None = None,
) -> Path:
    """Write everything that others need into one folder, and look through it for secrets.

    The adapters of SFT and DPO become one on top of the base model, so that
    `PeftModel.from_pretrained(base, folder)` gives the DPO model.

    Args:
        dpo: the DPO run's folder. version: `v0.1`, `v1.2.3`; without, that of a release with the
            same weights, or the next.
        evaluation: markdown by heading, for the model card: the table, the pairwise line.
        data_card: markdown; goes into the folder as `DATA.md`.
        limits: sentences, beside those that hold for every model of the course.
        releases: where the folder named by the version goes;
            `profile.artifacts / profile.name / "releases"` if none is given.

    Raises:
        ValueError: a version of another form, or a secret in what would be published.
        FileExistsError: there is a release of that version, with other weights.
    """
    releases = Path(releases or profile.artifacts / profile.name / "releases")
    work = releases / "unfinished"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _one_adapter(dpo, profile, work)
    version = version or _next_version(releases, work)
    _check_version(version)
    folder = releases / version
    card = _model_card(profile, version, name, license, evaluation, limits, bool(data_card))
    (work / "README.md").write_text(card, encoding="utf-8")
    if data_card:
        (work / "DATA.md").write_text(data_card, encoding="utf-8")
    (work / "settings.json").write_text(json.dumps(_settings(profile), indent=2), encoding="utf-8")
    assert_no_secrets(work)
    if folder.is_dir():
        if not _same_weights(folder, work):
            shutil.rmtree(work)
            raise FileExistsError(
                f"{folder} is a release with other weights: what is published stays as it is. Give "
                "this one a new version"
            )
        shutil.rmtree(folder)
    work.replace(folder)
    return folder


def _same_weights(one: Path, other: Path) -> bool:
    return (one / _WEIGHTS).is_file() and (one / _WEIGHTS).read_bytes() == (
        other / _WEIGHTS
    ).read_bytes()


def _next_version(releases: Path, work: Path) -> str:
    """The version under which these weights are released already, or the next: v0.1, v0.2, ..."""
    found = {path.name: path for path in releases.iterdir() if _VERSION.fullmatch(path.name)}
    same = [name for name, path in found.items() if _same_weights(path, work)]
    if same:
        return max(same, key=_parts)
    minors = [_parts(name)[1] for name in found if _parts(name)[0] == 0]
    return f"v0.{max(minors, default=0) + 1}"


def _parts(version: str) -> list[int]:
    return [int(part) for part in version[1:].split(".")]


def _one_adapter(dpo: str | Path, profile: Profile, folder: Path) -> None:
    """The model in `dpo` as one adapter on the base model, with the tokenizer, in `folder`."""
    from peft import PeftModel

    from .models import adapter_config, load_model, load_tokenizer
    from .quiet import quiet

    chain: list[Path] = []
    source: str | Path = dpo
    while config := adapter_config(source):
        chain.insert(0, Path(source))
        source = config["base_model_name_or_path"]
    if not chain:
        raise ValueError(f"{dpo} holds no adapter: a whole model is published with save_pretrained")
    # Not digits: PEFT takes an adapter's name out of the names of weights, "layers.0" included.
    names = [f"part{number}" for number in range(len(chain))]
    with quiet():
        model = PeftModel.from_pretrained(load_model(source, profile), str(chain[0]), names[0])
        for name, adapter in zip(names[1:], chain[1:], strict=True):
            model.load_adapter(str(adapter), name)
        # W + s1 B1 A1 + s2 B2 A2 is one adapter of the summed rank: nothing is rounded.
        model.add_weighted_adapter(names, [1.0] * len(names), "joined", combination_type="cat")
        model.save_pretrained(folder / "all", selected_adapters=["joined"])
    for path in (folder / "all" / "joined").iterdir():
        if path.suffix in (".json", ".safetensors"):
            path.replace(folder / path.name)
    shutil.rmtree(folder / "all")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {
        "base_model_name_or_path": _public_name(source)
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    load_tokenizer(dpo, profile).save_pretrained(folder)


def load_release(folder: str | Path, profile: Profile) -> PeftModel:
    """The model that others get from a release: the profile's base model with its adapter."""
    from peft import PeftModel

    from .models import load_model
    from .quiet import quiet

    with quiet():
        return PeftModel.from_pretrained(
            load_model(profile.base_model, profile), str(folder)
        ).eval()


def _public_name(base: str | Path) -> str:
    """A hub name as it is; a folder of the course by its name there: no path of this machine."""
    path = Path(base)
    if not path.is_absolute():
        return str(base)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _settings(profile: Profile) -> dict[str, Any]:
    """What was trained how, by which versions."""
    from importlib.metadata import version

    packages = ("torch", "transformers", "trl", "peft", "datasets")
    return {
        "profile": profile.name,
        "sft": asdict(profile.sft),
        "dpo": asdict(profile.dpo),
        "versions": {package: version(package) for package in packages},
    }


def _model_card(
    profile: Profile,
    version: str,
    name: str,
    license: str,
    evaluation: Mapping[str, str],
    limits: Sequence[str],
    has_data_card: bool,
) -> str:
    base = _public_name(profile.base_model)
    on_hub = not Path(profile.base_model).is_absolute()
    front = [
        "---",
        f"license: {license}",
        "library_name: peft",
        *([f"base_model: {base}"] if on_hub else []),
        "pipeline_tag: text-generation",
        "tags: [dpo, trl, lora, preference-data]",
        "---",
    ]
    settings = _settings(profile)
    rows = [
        f"| {field} | {settings['sft'][field]} | {settings['dpo'][field]} |"
        for field in ("learning_rate", "epochs", "batch_size", "accumulation", "lora_rank", "beta")
    ]
    packages = ", ".join(f"{package} {number}" for package, number in settings["versions"].items())
    if on_hub:
        load = f'AutoModelForCausalLM.from_pretrained("{base}")'
    else:
        load = f'AutoModelForCausalLM.from_pretrained("{base}")  # in the course\'s repository'
    sections = {
        f"{name} {version}": (
            f"A LoRA adapter on `{base}`: SFT on demonstrations, then DPO on preference triples, "
            "in one adapter. It writes triage reports for incident alerts. Made in a course on DPO."
        ),
        "Use": (
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, "
            f'AutoTokenizer\n\nbase = {load}\nmodel = PeftModel.from_pretrained(base, "FOLDER")\n'
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```'
        ),
        "Data": (
            "Preference triples sampled from the SFT model and chosen by a judge"
            + (": `DATA.md` says how, and what an audit found." if has_data_card else ".")
        ),
        "Training": "| | SFT | DPO |\n|---|---:|---:|\n" + "\n".join(rows) + f"\n\n{packages}",
        **evaluation,
        "Limits": "\n".join(
            f"- {limit}"
            for limit in (
                "Evaluated on made-up alerts by a program that knows their facts; nothing is known "
                "of other texts.",
                "The judge who chose the triples is the one who evaluates: what it does not see, "
                "neither shows.",
                *limits,
            )
        ),
        "Licence": f"{license}; the base model's own terms hold besides.",
    }
    text = [
        f"{'#' if place == 0 else '##'} {head}\n\n{body}"
        for place, (head, body) in enumerate(sections.items())
    ]
    return "\n".join(front) + "\n" + "\n\n".join(text) + "\n"


def assert_no_secrets(folder: str | Path) -> None:
    """Raise ValueError if a file in `folder` holds a key, a token or this machine's paths.

    Looked for: the usual forms of keys, the values of environment variables whose names say KEY,
    TOKEN, SECRET or PASSWORD, and the home folder's path. The message does not repeat the secret.
    """
    known = {
        f"the value of {name}": re.compile(re.escape(value))
        for name, value in os.environ.items()
        if re.search(r"KEY|TOKEN|SECRET|PASSWORD", name) and len(value) >= 8
    }
    home = {"the path of your home folder": re.compile(re.escape(str(Path.home())) + r"[/\\]")}
    for path in sorted(Path(folder).rglob("*")):
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", errors="ignore")
        for kind, pattern in (_SECRETS | known | home).items():
            if pattern.search(text):
                raise ValueError(
                    f"{path.name} holds {kind}: take it out, and if it was a key, revoke it. "
                    "Nothing was published"
                )


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    version: str,
    *,
    dry_run: bool = True,
    private: bool = True,
    api: Any = None,
) -> list[str]:
    """Send a release to the hub and tag it there; by default only say what would be sent.

    Args:
        repo_id: `you/name`. api: a `huggingface_hub.HfApi`, which takes the token from your login
            or `HF_TOKEN`; never pass a token in a notebook.

    Returns the files, as paths within the folder. Raises ValueError for a secret in them, a version
    of another form, or a folder that is no release.
    """
    folder = Path(folder)
    _check_version(version)
    if not (folder / "adapter_model.safetensors").is_file() or not (folder / "README.md").is_file():
        raise ValueError(f"{folder} is no release: make one with make_release")
    assert_no_secrets(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    visible = "private" if private else "public"
    print(f"{'Would send' if dry_run else 'Sending'} to {repo_id} ({visible}), tag {version}:")
    for path in files:
        print(f"  {path.relative_to(folder)}  {path.stat().st_size / 1024:,.0f} kB")
    if not dry_run:
        from huggingface_hub import HfApi

        api = api or HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message=version)
        api.create_tag(repo_id, tag=version)
    return [str(path.relative_to(folder)) for path in files]


def git_tag(
    version: str, message: str, *, repo: str | Path = ROOT, dry_run: bool = True
) -> list[str]:
    """Tag the last commit of your copy of the course; by default only say what would be done.

    Returns the command. Raises ValueError for a version of another form or one that exists,
    RuntimeError where git has no commit to tag.
    """
    _check_version(version)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(repo), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"git {arguments[0]} in {repo}: {done.stderr.strip()}")
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    if version in git("tag", "--list").splitlines():
        raise ValueError(f"there is a tag {version} already: choose the next version")
    command = ["tag", "-a", version, "-m", message]
    print(f"{'Would tag' if dry_run else 'Tagging'} commit {commit} as {version}: {message}")
    if git("status", "--porcelain"):
        print("  (changes that are not committed are not part of it)")
    if not dry_run:
        git(*command)
    print(f"  to send it: git push origin {version}")
    return ["git", *command]


def _check_version(version: str) -> None:
    if not _VERSION.fullmatch(version):
        raise ValueError(f"version {version!r}: wanted the form v0.1 or v0.1.2")
