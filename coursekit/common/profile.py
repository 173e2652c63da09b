"""Profiles: one setting, `COURSE_PROFILE`, chooses the size at which the same cells run.

It names a shipped profile or a TOML file of your own; `COURSE_MODEL` puts another base model in.
Nothing else in the course asks which profile it is: notebooks and helpers read the fields.

The standard library alone is imported, and what only a file of your own needs is imported there:
the course's commands read this before anything is installed, on any Python.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TINY_MODEL = str(ROOT / "coursekit" / "lm" / "tiny")
# Every linear layer of a Llama-like model: adapters here train best for their size.
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class TrainingSettings:
    """How one adapter is trained.

    learning_rate: the peak of a linear schedule; warmup: share of the steps that climb to it;
    batch_size: rows a step; accumulation: steps summed before an update, whose rows several
    processes share out among them;
    lora_rank, lora_alpha: rank of the adapter and its scale (alpha / rank); beta: DPO's.
    """

    learning_rate: float
    epochs: float
    batch_size: int
    accumulation: int = 1
    warmup: float = 0.1
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = LINEAR_LAYERS
    beta: float = 0.1
    max_length: int = 512


@dataclass(frozen=True)
class Profile:
    """Everything that depends on the machine and the model's size.

    name: of the profile, and of the folder of its runs in `artifacts`.
    base_model: a folder (absolute) or a name on the hub; revision: what to load of the latter.
    dtype: of the weights (one of `DTYPES`); four_bit: load them in 4-bit NF4.
    full_instruction: put the task's long instruction, which says all that is asked for, into every
    prompt, the demonstrations' included: a real model has not been taught it by its corpus.
    max_new_tokens: room for a response. threads: CPU threads for torch; None: as torch chooses.
    """

    name: str
    base_model: str
    sft: TrainingSettings
    dpo: TrainingSettings
    revision: str | None = None
    dtype: str = "float32"
    four_bit: bool = False
    full_instruction: bool = False
    max_new_tokens: int = 120
    generation_batch: int = 64
    threads: int | None = None
    demonstrations: int = 1000
    preference_prompts: int = 250
    temperatures: tuple[float, ...] = (0.7, 1.0)
    samples_per_temperature: int = 2
    evaluation_prompts: int = 300
    artifacts: Path = field(default_factory=lambda: artifacts_folder())


def artifacts_folder() -> Path:
    """Where runs are kept: `COURSE_ARTIFACTS`, or `artifacts` beside the package's sources."""
    return folder_of("COURSE_ARTIFACTS", "artifacts")


def folder_of(variable: str, default: str) -> Path:
    """The folder that the environment variable names, absolute; `default` if it is not set.

    `~` is the home folder. A relative path counts from the folder the package lies in, and not from
    where a process happens to run: a command and a notebook mean the same folder.
    """
    return _place(os.environ.get(variable) or default)


def _place(path: str) -> Path:
    return ROOT / os.path.expanduser(path)


def _profiles() -> dict[str, Profile]:
    tiny = Profile(
        name="tiny",
        base_model=TINY_MODEL,
        sft=TrainingSettings(learning_rate=2e-3, epochs=3, batch_size=32),
        dpo=TrainingSettings(learning_rate=5e-4, epochs=2, batch_size=16),
        max_new_tokens=96,
        generation_batch=512,
        threads=2,
    )
    laptop = Profile(
        name="laptop",
        base_model="google/gemma-3-270m",
        sft=TrainingSettings(3e-4, epochs=1, batch_size=8),
        dpo=TrainingSettings(4e-5, epochs=2, batch_size=4, accumulation=2),
        max_new_tokens=96,
        generation_batch=50,
        demonstrations=400,
        preference_prompts=96,
        evaluation_prompts=100,
    )
    colab = Profile(
        name="colab",
        base_model="HuggingFaceTB/SmolLM2-360M-Instruct",
        sft=TrainingSettings(2e-4, epochs=2, batch_size=8, accumulation=2, max_length=1024),
        dpo=TrainingSettings(2e-5, epochs=2, batch_size=4, accumulation=4, max_length=1024),
        dtype="float16",
        four_bit=True,
        full_instruction=True,
        generation_batch=32,
    )
    gpu = replace(
        colab,
        name="gpu",
        base_model="Qwen/Qwen2.5-1.5B-Instruct",
        sft=replace(colab.sft, batch_size=16, accumulation=1),
        dpo=replace(colab.dpo, batch_size=16, accumulation=1),
        dtype="bfloat16",
        four_bit=False,
        generation_batch=128,
    )
    return {profile.name: profile for profile in (tiny, laptop, colab, gpu)}


def load_profile(name: str | Path | None = None) -> Profile:
    """The profile called `name`; without one, what `COURSE_PROFILE` says; without that, tiny.

    That is a shipped profile, or a TOML file (a path that ends in .toml) that changes one: see
    `_ProfileFile`. `COURSE_MODEL` and `COURSE_REVISION` then replace its base model: see
    `_with_model`. `name` may also be the name of the profile that these variables make: a new
    process, which inherits them, can be told by it which profile it works for.

    Raises ValueError for a name that is none and for what is wrong in a file, FileNotFoundError if
    the file or the model's folder is not there.
    """
    wanted, shipped = str(name or _setting("COURSE_PROFILE") or "tiny"), _profiles()
    if wanted.lower().endswith(".toml"):
        return _with_model(_ProfileFile.at(_place(wanted)).profile())
    if wanted in shipped:
        return _with_model(shipped[wanted])
    if name and (set_here := load_profile()).name == wanted:
        return set_here
    raise ValueError(
        f"unknown profile {wanted!r}: set COURSE_PROFILE to one of {', '.join(shipped)}, or to a "
        "file of yours that ends in .toml"
    )


def _setting(variable: str) -> str | None:
    """What the environment variable says; None if that is nothing."""
    return os.environ.get(variable, "").strip() or None


def _with_model(profile: Profile) -> Profile:
    """`profile` with the base model that `COURSE_MODEL` and `COURSE_REVISION` name.

    `COURSE_REVISION` alone is that of the profile's own hub model. With another model the profile
    has another name, so that two models never share a folder of runs; naming the model that it has
    anyway changes nothing.

    Raises FileNotFoundError for a folder that is not there, ValueError for a folder's revision.
    """
    model, revision = _setting("COURSE_MODEL"), _setting("COURSE_REVISION")
    base = _model(model, f"COURSE_MODEL={model}") if model else profile.base_model
    if revision and Path(base).is_absolute():
        raise ValueError(
            f"COURSE_REVISION={revision}, but the model is the folder {base}, and a folder has no "
            "revision: take COURSE_REVISION away, or set COURSE_MODEL to a name on the hub"
        )
    if base == profile.base_model and revision in (None, profile.revision):
        return profile
    name = f"{profile.name}-{_model_slug(base, revision)}"
    return replace(profile, name=name, base_model=base, revision=revision)


def _model(said: str, where: str) -> str:
    """The folder that `said` means, absolute and without links, or else `said`, a hub name.

    A relative path counts from the course's folder (see `folder_of`). A folder that is there goes
    before a hub name; what no hub name can be is a folder. `where` begins the message.

    Raises FileNotFoundError if it can only be a folder, and is not there.
    """
    place = _place(said)
    if place.is_dir():
        return str(place.resolve())
    if re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", said, re.ASCII):
        return said
    what = "is a file: name the folder it lies in" if place.is_file() else "is no folder"
    raise FileNotFoundError(
        f"{where}: {place} {what}. Correct the path (a relative one counts from {ROOT}), or name a "
        "model on the hub: owner/name; its revision has a setting of its own"
    )


def _model_slug(base: str, revision: str | None) -> str:
    """For the names of folders: the end of a model's name, and six digits for all of it."""
    import hashlib

    whole = f"{base}@{revision}" if revision else base
    return f"{_slug(Path(base).name) or 'model'}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def _slug(text: str) -> str:
    """`text` as part of a file's name on any system: at most 60 letters, digits, `_`, `-`, `.`."""
    return re.sub(r"[^\w.-]+", "-", text)[:60].strip(".-")


_MOST = 10**9  # more of anything is a slip, and some of it no float


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _is_whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value <= _MOST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= _MOST


def _is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(of, value))


def _is_own_name(value: Any) -> bool:
    """Whether it can name a folder that is not a shipped profile's, on any system."""
    return _is_text(value) and value == _slug(value) and value.lower() not in _profiles()


# What a field takes in a file, in words, and whether a value is that. By its annotation,
_BY_KIND: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("text in quotes", _is_text),
    "Path": ("a path in quotes", _is_text),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number, from 1 to a billion", _is_whole),
    "float": ("a number above 0, at most a billion", _is_number),
    "tuple[str, ...]": ("a list of texts", lambda value: _is_list(value, _is_text)),
    "tuple[float, ...]": ("a list of numbers above 0", lambda value: _is_list(value, _is_number)),
    "TrainingSettings": ("a table, one setting a line", lambda value: isinstance(value, dict)),
}
# or, where that says too little, by its name.
_BY_NAME: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "base": (
        "a shipped profile: tiny, laptop, colab or gpu",
        lambda value: value in list(_profiles()),
    ),
    "name": ("letters, digits, _, - and dots, but no shipped profile's name", _is_own_name),
    "dtype": (f"one of {', '.join(DTYPES)}", lambda value: value in DTYPES),
    "threads": ("a whole number, 0 for as torch chooses", lambda value: _is_whole(value, least=0)),
    "warmup": (
        "a share of the steps, from 0 to below 1",
        lambda value: type(value) in (int, float) and 0 <= value < 1,
    ),
}


@dataclass(frozen=True)
class _ProfileFile:
    """A profile of your own: what a TOML file changes in a shipped one.

    At the top any field of `Profile` and `base`, the profile to start from (tiny if it is not
    there); in the tables `sft` and `dpo` any field of `TrainingSettings`. `name` is the file's if
    it is not there. `threads = 0` stands for None. Relative paths count from the course's folder;
    `COURSE_ARTIFACTS` goes before `artifacts`.
    """

    path: Path
    text: str

    @classmethod
    def at(cls, path: Path) -> _ProfileFile:
        """Raises FileNotFoundError, or ValueError for a file in another encoding than UTF-8."""
        if not path.is_file():
            raise FileNotFoundError(
                f"no file {path}: correct COURSE_PROFILE (a relative path counts from {ROOT}), or "
                "take it away for the tiny profile"
            )
        content = path.read_bytes()
        try:
            return cls(path, content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n"))
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise ValueError(
                f"{path}, line {line}, is not text in UTF-8 (byte {error.start}): save it as UTF-8"
            ) from error

    def profile(self) -> Profile:
        """What the file says, on top of the profile it starts from.

        Raises ValueError for the first thing that is wrong, with its line and what is wanted, and
        FileNotFoundError for a model's folder that is not there.
        """
        said = self._checked(self._document(), Profile)
        base = _profiles()[said.pop("base", "tiny")]
        if "base_model" in said:
            said.setdefault("revision", None)  # the other model's says nothing about this one
        if "name" not in said:
            said["name"] = self._file_name()
        for table in said.keys() & {"sft", "dpo"}:
            said[table] = replace(getattr(base, table), **said[table])
        if _setting("COURSE_ARTIFACTS"):
            said.pop("artifacts", None)
        profile = replace(base, **said)
        if profile.revision and Path(profile.base_model).is_absolute():
            what = f"{profile.base_model} is a folder and has none: take the line away"
            raise self._error(["revision"], profile.revision, what)
        return profile

    def _file_name(self) -> str:
        name = _slug(self.path.stem) or "profile"
        if not _is_own_name(name):
            raise ValueError(
                f"{self.path} would share the name and the folder of runs of the shipped profile "
                f'{name.lower()}: write name = "my_{name}" at its top, or call the file otherwise'
            )
        return name

    def _document(self) -> dict[str, Any]:
        import tomllib

        from .files import shorten

        try:
            return tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:
            told = re.search(r"at line (\d+)", str(error))
            line = told[1] if told else self._line()
            what = re.sub(r" \(at .*\)$", "", str(error))
            raise ValueError(
                f"{self.path}, line {line}, is not TOML ({shorten(what, 80)}): write one key = "
                "value a line, each key once, text in quotes (a path in single ones), true and "
                "false in small letters"
            ) from error

    def _line(self, keys: Sequence[str] = ()) -> int:
        """Where the statement begins that says `keys`; without them, the one that is no TOML.

        What stands before a statement can be read without it, and part of a statement cannot.
        """
        import tomllib

        lines, begin = self.text.split("\n"), 1
        for end in range(1, len(lines) + 1):
            try:
                said = tomllib.loads("\n".join(lines[:end]))
            except (ValueError, RecursionError):
                continue
            if keys and _says(said, keys):
                break
            begin = end + 1
        return begin

    def _error(self, keys: Sequence[str], value: Any, what: str) -> ValueError:
        from .files import shorten

        said = f"{'.'.join(keys)} = {shorten(repr(value), 60)}"
        return ValueError(f"{self.path}, line {self._line(keys)}: {said}: {what}")

    def _checked(
        self, table: Mapping[str, Any], cls: type, above: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The fields of `cls` that `table`, below the keys `above`, gives: each as the field is."""
        known = {one.name: one.type.removesuffix(" | None") for one in fields(cls)}
        if cls is Profile:
            known = {"base": "str", **known}
        found = {}
        for key, value in table.items():
            keys = [*above, key]
            if key not in known:
                raise self._error(keys, value, f"no such key: {_nearest(key, known)}")
            words, fits = _BY_NAME.get(key) or _BY_KIND[known[key]]
            if not fits(value):
                raise self._error(keys, value, f"write {words}")
            found[key] = self._converted(keys, value)
        return found

    def _converted(self, keys: Sequence[str], value: Any) -> Any:
        """A value of TOML as its field has it."""
        if isinstance(value, dict):
            return self._checked(value, TrainingSettings, keys)
        if isinstance(value, list):
            return tuple(value)
        if keys == ["base_model"]:
            return _model(value, f"{self.path}, line {self._line(keys)}: base_model = {value!r}")
        if keys == ["artifacts"]:
            return _place(value)
        return None if keys == ["threads"] and value == 0 else value


def _says(document: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True


def _nearest(key: str, known: Mapping[str, str]) -> str:
    """Where else `key` belongs, or which of the `known` keys it is like, or all of them."""
    from difflib import get_close_matches

    if "sft" not in known and key in {"base", *(one.name for one in fields(Profile))}:
        return "it belongs to the top, above the first [table]"
    if "sft" in known and key in {one.name for one in fields(TrainingSettings)}:
        return "it belongs below [sft] or [dpo]"
    close = get_close_matches(key.lower().replace("-", "_"), known, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
