"""From a run to something others can use: one adapter, its tokenizer, a model card, a version.

Nothing is sent unless `dry_run=False` says so, and nothing that holds a secret.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.markup import as_code, as_markdown
from ..common.profile import ROOT, Profile
from ..common.secret_scan import assert_no_secrets
from ..lm.weights import SUMS_FILE, check_checksums, write_checksums
from ..tasks import Task

if TYPE_CHECKING:
    from peft import PeftModel

_VERSION = re.compile(r"v\d+\.\d+(\.\d+)?")
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_SETTINGS = "settings.json"
# What a release consists of, and all that is ever sent: no pickles, which run code when loaded.
_TOKENIZER = ("tokenizer*.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json")
_VOCABULARY = ("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja")
_PARTS = (
    _WEIGHTS,
    SUMS_FILE,
    _CONFIG,
    _SETTINGS,
    "README.md",
    "DATA.md",
    *_TOKENIZER,
    *_VOCABULARY,
)
_SHOWN_SETTINGS = (
    *("learning_rate", "epochs", "batch_size", "accumulation", "warmup"),
    *("lora_rank", "lora_alpha", "max_length", "beta"),
)
_NOT_RECORDED = "not recorded"
_CARD = Path(__file__).with_name("model_card.md")  # a template of Jinja
_ONE_JUDGE = (
    "The judge who chose the triples is the one who evaluates: what it does not see, neither shows."
)


def make_release(
    dpo: str | Path,
    releases: str | Path,
    task: Task,
    profile: Profile,
    version: str | None = None,
    *,
    evaluation: Mapping[str, str],
    data_card: str = "",
    license: str = "apache-2.0",
    limits: Sequence[str] = (),
) -> Path:
    """Write everything that others need into one folder, and look through it for secrets.

    The adapters of SFT and DPO become one on top of the base model, so that
    `PeftModel.from_pretrained(base, folder)` gives the DPO model.

    Args:
        dpo: the DPO run's folder. releases: where the folder named by the version goes.
        version: `v0.1`, `v1.2.3`; without, that of a release with the same weights, or the next.
        evaluation: markdown by heading, for the model card: the table, the pairwise line.
        data_card: markdown; goes into the folder as `DATA.md`.
        limits: sentences in markdown, beside the task's.

    The card says how the weights were trained by the runs' own records, not by the profile, which
    may have changed since; what was not recorded, it calls that.

    Raises:
        ValueError: a version of another form, weights that are damaged, or a secret in what would
            be published.
        FileExistsError: there is a release of that version, with other weights.
    """
    releases = Path(releases)
    work = releases / "unfinished"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    base, adapters = _adapters(dpo)
    _one_adapter(base, adapters, profile, work)
    version = version or _next_version(releases, work)
    _check_version(version)
    runs = [_record(adapter) for adapter in adapters]
    card = _model_card(base, runs, version, task, license, evaluation, limits, bool(data_card))
    settings = {"base_model": _public_name(base), "runs": runs}
    _write_texts(work, card, data_card, settings)
    _assert_publishable(work)
    return _put_in_place(work, releases / version)


def _write_texts(folder: Path, card: str, data_card: str, settings: Mapping[str, Any]) -> None:
    """What is to be read beside the weights, and the check sums of those."""
    (folder / "README.md").write_text(card, encoding="utf-8")
    if data_card:
        (folder / "DATA.md").write_text(data_card, encoding="utf-8")
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=2), encoding="utf-8")
    write_checksums(folder)


def _assert_publishable(folder: Path) -> None:
    """Raise ValueError for damage or a secret in what would be published."""
    assert_whole(folder)
    assert_no_secrets(folder)


def _put_in_place(work: Path, folder: Path) -> Path:
    """`work` becomes the release `folder`, in place of one with the same weights at most."""
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


def _next_version(folder: Path, work: Path) -> str:
    """The version under which these weights are released already, or the next: v0.1, v0.2, ..."""
    found = {path.name: path for path in folder.iterdir() if _VERSION.fullmatch(path.name)}
    same = [name for name, path in found.items() if _same_weights(path, work)]
    if same:
        return max(same, key=_parts)
    minors = [_parts(name)[1] for name in found if _parts(name)[0] == 0]
    return f"v0.{max(minors, default=0) + 1}"


def find_releases(folder: str | Path) -> list[Path]:
    """The releases in `folder`, the latest made last."""
    found = [
        path for path in Path(folder).glob("*/README.md") if _VERSION.fullmatch(path.parent.name)
    ]
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def _parts(version: str) -> list[int]:
    return [int(part) for part in version[1:].split(".")]


def base_of(adapter: str | Path) -> str | Path:
    """The model at the bottom of an adapter, however many others lie between, as found from here.

    Raises ValueError for a folder without adapter.
    """
    return _adapters(adapter)[0]


def _adapters(dpo: str | Path) -> tuple[str | Path, list[Path]]:
    """The model at the bottom, and the adapters on it up to the one in `dpo`."""
    from ..lm.loading import adapter_config

    adapters: list[Path] = []
    source: str | Path = dpo
    while config := adapter_config(source):
        adapters.insert(0, Path(source))
        source = config["base_model_name_or_path"]
    if not adapters:
        raise ValueError(f"{dpo} holds no adapter: a whole model is published with save_pretrained")
    return source, adapters


def _one_adapter(base: str | Path, adapters: list[Path], profile: Profile, folder: Path) -> None:
    """All adapters as one on the base model, with the tokenizer, in `folder`."""
    from peft import PeftModel

    from ..common.quiet import quiet
    from ..lm.loading import load_model, load_tokenizer

    # Not digits: PEFT takes an adapter's name out of the names of weights, "layers.0" included.
    names = [f"part{number}" for number in range(len(adapters))]
    for adapter in adapters:
        assert_whole(adapter)
    with quiet():
        model = PeftModel.from_pretrained(load_model(base, profile), str(adapters[0]), names[0])
        for name, adapter in zip(names[1:], adapters[1:], strict=True):
            model.load_adapter(str(adapter), name)
        # W + s1 B1 A1 + s2 B2 A2 is one adapter of the summed rank: nothing is rounded.
        model.add_weighted_adapter(names, [1.0] * len(names), "joined", combination_type="cat")
        # Without False, peft looks on the hub whether the base's vocabulary has grown.
        model.save_pretrained(
            folder / "all", selected_adapters=["joined"], save_embedding_layers=False
        )
    for path in (folder / "all" / "joined").iterdir():
        if path.suffix in (".json", ".safetensors"):
            path.replace(folder / path.name)
    shutil.rmtree(folder / "all")
    path = folder / _CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) | {
        "base_model_name_or_path": _public_name(base)
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    load_tokenizer(adapters[-1], profile).save_pretrained(folder)


def _record(adapter: Path) -> dict[str, Any]:
    """What the run that trained the adapter says it was made from; nothing where it says none.

    Its notes name the base model by its place on this machine; here that is its public name.
    """
    from .run import load_run

    try:
        record = load_run(adapter).made_from
    except (FileNotFoundError, ValueError):  # not trained here, or the record is damaged
        return {}
    if base := record.get("notes", {}).get("base model"):
        record = {**record, "notes": {**record["notes"], "base model": _public_name(base)}}
    return record


def assert_whole(folder: str | Path) -> None:
    """Raise ValueError if an adapter's folder is cut or damaged: cheaper than to load it.

    Looked at: every JSON file; the header of the weights and whether the file is as long as it
    says; that all numbers are finite, that each A has its B and every layer the same of them; and
    the check sums that were taken when it was saved.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    said = {}
    for path in sorted(folder.glob("*.json")):
        try:
            said[path.name] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path.name} in {folder.name} is damaged ({error})") from error
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder.name} has no {name}")
    try:
        problem = _problem_with(folder / _WEIGHTS, said[_CONFIG])
    except SafetensorError as error:
        problem = f"cut or damaged ({error})"
    if problem:
        raise ValueError(f"the weights in {folder.name} are {problem}")
    check_checksums(folder)


def _problem_with(weights: Path, config: Mapping[str, Any]) -> str:
    """What is wrong with an adapter's weights, or an empty text."""
    from safetensors import safe_open

    modules: dict[str, set[str]] = {}  # adapted modules by layer
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
        for name in names:
            if not file.get_tensor(name).isfinite().all():
                return f"not all finite ({name})"
            if "lora_A" in name and name.replace("lora_A", "lora_B") not in names:
                return f"not whole ({name} has no B)"
            if layer := re.search(r"\.layers\.(\d+)\.(.+)", name):
                modules.setdefault(layer[1], set()).add(layer[2])
    if not names:
        return "none at all"
    everywhere = set().union(*modules.values())
    lacking = [layer for layer, found in modules.items() if found != everywhere]
    if lacking and not config.get("layers_to_transform") and not config.get("layers_pattern"):
        return f"not whole (layer {min(lacking, key=int)} has fewer than others)"
    return ""


def load_release(folder: str | Path, profile: Profile, base: str | Path | None = None) -> PeftModel:
    """The model that others get from a release: its base model with its adapter.

    base: where that lies, for a release that names a folder which is not the course's.
    """
    from ..common.quiet import quiet
    from ..lm.loading import adapter_config, load_model
    from ..lm.weights import load_adapter

    config = adapter_config(folder)
    if config is None:
        raise FileNotFoundError(f"{folder} is no release: it has no {_CONFIG}")
    base = base or config["base_model_name_or_path"]
    with quiet():
        return load_adapter(folder, load_model(base, profile), trainable=False).eval()


def _public_name(base: str | Path) -> str:
    """A hub name as it is; a folder of the course by its name there: no path of this machine."""
    path = Path(base)
    if not path.is_dir() and not path.is_absolute():
        return str(base)
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _model_card(
    base_model: str | Path,
    runs: Sequence[Mapping[str, Any]],
    version: str,
    task: Task,
    license: str,
    evaluation: Mapping[str, str],
    limits: Sequence[str],
    has_data_card: bool,
) -> str:
    """`model_card.md` filled in. What is a name and not markdown is escaped before."""
    from huggingface_hub import ModelCard, ModelCardData

    base, on_hub = _public_name(base_model), not Path(base_model).is_dir()
    front = ModelCardData(
        license=license,
        library_name="peft",
        base_model=base if on_hub else None,
        pipeline_tag="text-generation",
        tags=["dpo", "trl", "lora", "preference-data"],
    )
    card = ModelCard.from_template(
        front,
        template_path=str(_CARD),
        title=as_markdown(f"{task.name}-dpo {version}"),
        base=as_code(base),
        load=json.dumps(base),
        is_ours=(ROOT / base).is_dir() and not on_hub,
        description=task.description,
        has_data_card=has_data_card,
        training=_training(runs),
        evaluation={as_markdown(head): body for head, body in evaluation.items()},
        limits=[" ".join(limit.split()) for limit in (*task.limits, _ONE_JUDGE, *limits)],
        terms=as_markdown(license),
    )
    return f"{card}\n"


def _training(runs: Sequence[Mapping[str, Any]]) -> str:
    """A column for each adapter, in order, of what its run recorded."""

    def cells(name: str, values: Sequence[object]) -> str:
        shown = (_NOT_RECORDED if value is None else as_markdown(value) for value in values)
        return f"| {name} | {' | '.join(shown)} |"

    stages = [run.get("stage", f"adapter {number}") for number, run in enumerate(runs, start=1)]
    lines = [
        f"| | {' | '.join(map(as_markdown, stages))} |",
        "|---|" + "---:|" * len(runs),
        cells("started from", [run.get("base") or run.get("sft") for run in runs]),
        cells("rows", [run.get("n") for run in runs]),
        cells("rows' fingerprint", [run.get("rows") for run in runs]),
        *(cells(field, [_setting(run, field) for run in runs]) for field in _SHOWN_SETTINGS),
        cells("seed", [run.get("seed") for run in runs]),
    ]
    versions = [
        ", ".join(f"{package} {number}" for package, number in run.get("versions", {}).items())
        or f"Versions: {_NOT_RECORDED}."
        for run in runs
    ]
    lines += ["", *dict.fromkeys(map(as_markdown, versions))]
    return "\n".join(lines)


def _setting(run: Mapping[str, Any], field: str) -> object:
    if field == "beta" and run.get("stage") == "SFT":
        return "none"  # recorded as the settings have it, but SFT knows no beta
    return run.get("settings", {}).get(field)


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

    Sent are the files of which a release consists, and no others that lie in the folder.

    Args:
        repo_id: `you/name`. api: a `huggingface_hub.HfApi`, which takes the token from your login
            or `HF_TOKEN`; never pass a token in a notebook.

    Returns the files, as paths within the folder. Raises ValueError for a secret or damage in them,
    a version of another form, a folder that is no release, and, before anything is sent, for a
    repository that is public where a private one was asked for, or that has the tag already.
    """
    folder = Path(folder)
    _check_version(version)
    if not (folder / _WEIGHTS).is_file() or not (folder / "README.md").is_file():
        raise ValueError(f"{folder} is no release: make one with make_release")
    _assert_publishable(folder)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    parts = [path for path in files if _is_part(path)]
    visible = "private" if private else "public"
    print(f"{'Would send' if dry_run else 'Sending'} to {repo_id} ({visible}), tag {version}:")
    for path in files:
        size = f"{(folder / path).stat().st_size / 1024:,.0f} kB"
        print(f"  {path}  {size if path in parts else 'stays here: no part of a release'}")
    names = [path.as_posix() for path in parts]
    if not dry_run:
        from huggingface_hub import HfApi

        _send(api or HfApi(), folder, names, repo_id, version, private)
    return names


def _is_part(path: Path) -> bool:
    """Whether a file, by its path within a release, is a part of it."""
    return len(path.parts) == 1 and any(fnmatch(path.name, part) for part in _PARTS)


def _send(
    api: Any, folder: Path, names: list[str], repo_id: str, version: str, private: bool
) -> None:
    if api.repo_exists(repo_id):
        if private and not api.repo_info(repo_id).private:
            raise ValueError(
                f"{repo_id} is public: nothing was sent. Take another name, or pass private=False"
            )
        if version in [tag.name for tag in api.list_repo_refs(repo_id).tags]:
            raise ValueError(f"{repo_id} has a tag {version} already: choose the next version")
    else:
        api.create_repo(repo_id, private=private)
    api.upload_folder(
        repo_id=repo_id, folder_path=str(folder), commit_message=version, allow_patterns=names
    )
    api.create_tag(repo_id, tag=version)


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
