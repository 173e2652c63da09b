"""Loading models: the shipped tiny one, any folder, any name on the hub, adapters included.

What comes back is a plain transformers model (or a `PeftModel` around one) and its tokenizer.
"""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import shorten
from ..common.profile import TINY_MODEL, Profile, load_profile
from .trl_compat import adapter_on_hub, is_adapted, is_four_bit, keep_gradients
from .weights import IF_SHIPPED, WHOLE_WEIGHTS, load_adapter, load_whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHIPPED = "coursekit/lm/tiny"  # how adapters name the shipped model, wherever the course lies


def load_model(
    source: str | Path, profile: Profile | None = None, *, trainable: bool = False
) -> PreTrainedModel:
    """Load the model in the folder (or with the hub name) `source`, ready to generate.

    A folder with an adapter is loaded onto the model it was trained on, as that was, however many
    adapters deep: each but the last is merged (in 4-bit, where merging rounds, it stays on top
    of the base and may be the only one). `trainable` leaves the last adapter open for training.

    Raises FileNotFoundError if a folder lacks its weights or its base's, ValueError if they are
    damaged: cut, changed since they were saved, not finite, of other names or shapes than the
    model's, or an adapter that changes nothing.
    """
    profile = profile or load_profile()
    _prepare(profile)
    adapter = adapter_config(source)
    if adapter is None:
        return _load_plain(source, profile).eval()
    name = adapter["base_model_name_or_path"]
    _check_base(source, name, profile)
    base = load_model(name, profile)
    if is_adapted(base):
        base = merge_adapter(base)
    return load_adapter(source, base, trainable).eval()


def load_tokenizer(source: str | Path, profile: Profile | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `source`. A missing pad token becomes the end token.

    Raises FileNotFoundError if a folder has none, ValueError if it is damaged or has no end token.
    """
    from transformers import AutoTokenizer

    profile = profile or load_profile()
    _check_folder(source, ("tokenizer.json", "tokenizer.model", "vocab.json"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source), revision=_revision(source, profile), trust_remote_code=False
        )
    except Exception as error:  # a damaged file raises whatever its parser does
        if not Path(source).is_dir():
            raise
        raise ValueError(
            f"the tokenizer in {source} is damaged ({type(error).__name__}: "
            f"{shorten(str(error), 200)}): copy tokenizer.json and tokenizer_config.json anew from "
            f"its base model. {IF_SHIPPED}"
        ) from error
    if tokenizer.eos_token is None:
        raise ValueError(
            f"the tokenizer of {source} has no end token, so no response could ever end: set "
            "tokenizer.eos_token to the token that closes an answer and save the tokenizer again"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def adapter_config(source: str | Path) -> dict[str, Any] | None:
    """The adapter's configuration if `source` is a folder with an adapter, else None.

    Its `base_model_name_or_path` is the hub name or the folder as it is found from here; the file
    may name it from its own place (see `base_name`).

    Raises ValueError if the file is damaged, or if an adapter stands on itself.
    """
    config = _read_adapter_config(source)
    chain, link = [Path(source).resolve()], config
    while link:
        base = link["base_model_name_or_path"]
        if Path(base).resolve() in chain:
            raise ValueError(
                f"the adapter in {source} stands on itself: {Path(base)} is its base, and stands "
                "on it. Name the model it was trained on in its adapter_config.json"
            )
        chain.append(Path(base).resolve())
        link = _read_adapter_config(base)
    return config


def _read_adapter_config(source: str | Path) -> dict[str, Any] | None:
    path = Path(source) / "adapter_config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        base = config["base_model_name_or_path"]
        if not (isinstance(base, str) and base):
            raise ValueError(f"base_model_name_or_path is {base!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): it should be a JSON object that "
            "names the adapter's base model; train the adapter again, or copy the folder anew"
        ) from error
    if base == SHIPPED:
        base = TINY_MODEL
    elif base.startswith("."):
        base = os.path.abspath(Path(source) / base)
    return config | {"base_model_name_or_path": base}


def base_name(base: str | Path, folder: str | Path, artifacts: Path) -> str:
    """How the adapter in `folder` names its base, so that both may move.

    The shipped model by its name in the course; a base that lies in `artifacts` as the adapter
    does, by the way from one to the other; any other folder in full; a hub name as it is.
    """
    if not Path(base).is_dir():
        return str(base)
    path, own, shared = (Path(place).resolve() for place in (base, folder, artifacts))
    if path == Path(TINY_MODEL).resolve():
        return SHIPPED
    if path.is_relative_to(shared) and own.is_relative_to(shared):
        way = Path(os.path.relpath(path, own)).as_posix()
        return way if way.startswith(".") else f"./{way}"
    return str(path)


def merge_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The plain model whose weights include the adapter; `model` is used up.

    Raises ValueError for 4-bit weights: merging would round the adapter away in part.
    """
    if is_four_bit(model):
        raise ValueError(
            "an adapter cannot be merged into 4-bit weights without loss: load the base with "
            "four_bit=False to merge, or train DPO on the adapter itself"
        )
    return model.merge_and_unload()


def _prepare(profile: Profile) -> None:
    import torch

    if profile.threads:
        torch.set_num_threads(profile.threads)
    _settle_functions()
    if not torch.cuda.is_available():
        _keep_freed_memory()


# What torch hands to MKL's vector mathematics on an x86 CPU.
_VECTOR_FUNCTIONS = (
    "acos asin atan cos erf erfc erfinv exp expm1 log log10 log1p log2 sin sqrt tan tanh".split()
)


def _settle_functions() -> None:
    """Call each function once, for one number, and so in one thread.

    MKL 2024 chooses a function's implementation at the first call. If several threads make it at
    once, one of them may get that of low accuracy: a share of a model's rotary embeddings was off
    by 1e-4 in the first pass of every tenth process (github.com/pytorch/pytorch/issues/188792).
    """
    import torch

    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype)
        for name in _VECTOR_FUNCTIONS:
            getattr(torch, name)(number)


def _keep_freed_memory() -> None:
    """Let glibc keep what it frees for the next tensor; without glibc, nothing happens.

    Otherwise each step gives its large tensors back to the system and waits while the system clears
    the same pages again: a fifth of the time of a training step on two cores.
    """
    trim_threshold, mmap_threshold = -1, -3  # names of mallopt(3)
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
    except (AttributeError, OSError, TypeError):
        pass  # macOS, Windows, musl


def _check_base(source: str | Path, base: str, profile: Profile) -> None:
    """Raise if the base that the adapter in `source` names is not there, or must not be asked for.

    An adapter's file is no reason to ask the hub for a model: the profile names that.
    """
    if Path(base).is_dir() or base == profile.base_model:
        return
    if Path(base).is_absolute():
        raise FileNotFoundError(
            f"the adapter in {source} was trained on {base}, which is not there: put it back, or "
            "name its new place as base_model_name_or_path in the adapter's adapter_config.json"
        )
    raise ValueError(
        f"the adapter in {source} was trained on {base!r}, a name on the hub that the profile "
        f"{profile.name!r} does not name: to load it from there, set base_model={base!r} in the "
        "profile; or name a folder as base_model_name_or_path in adapter_config.json"
    )


def _load_plain(source: str | Path, profile: Profile) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    _check_folder(source, WHOLE_WEIGHTS)
    _refuse_hub_adapter(source, profile)
    dtype = getattr(torch, profile.dtype)
    options: dict[str, Any] = {"dtype": dtype, "revision": _revision(source, profile)}
    if profile.four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = load_whole(AutoModelForCausalLM, source, **options)
    if profile.four_bit:
        keep_gradients(model)
    elif torch.cuda.is_available():  # where 4-bit weights are already
        model = model.to("cuda")
    return model


def _refuse_hub_adapter(source: str | Path, profile: Profile) -> None:
    """Raise ValueError for an adapter on the hub: its file would choose a base to load from there.

    In a folder, an adapter has been met before.
    """
    if Path(source).is_dir():
        return
    if adapter_on_hub(str(source), _revision(source, profile)):
        raise ValueError(
            f"{source} on the hub is an adapter: download it into a folder (hf download {source} "
            "--local-dir FOLDER), look at the base it names, and give that folder"
        )


def _revision(source: str | Path, profile: Profile) -> str | None:
    return profile.revision if str(source) == profile.base_model else None


def _check_folder(source: str | Path, wanted: tuple[str, ...]) -> None:
    """Raise FileNotFoundError if `source` is (meant as) a folder and lacks all of `wanted`."""
    folder = Path(source)
    looks_local = folder.is_absolute() or str(source).startswith((".", "~"))
    if not folder.is_dir() and not looks_local:
        return  # a name on the hub
    if not any((folder / name).is_file() for name in wanted):
        raise FileNotFoundError(
            f"no {' or '.join(wanted)} in {folder}: give a folder that `save_pretrained` wrote or "
            f"a name on the hub. {IF_SHIPPED}"
        )
