"""Loading models: the shipped tiny one, any folder, any name on the hub, adapters included.

What comes back is a plain transformers model (or a `PeftModel` around one) and its tokenizer.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..profile import Profile, load_profile
from ..quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")

_IF_SHIPPED = (
    "If it is the shipped model, run `git checkout -- coursekit/models/tiny`, or build it anew: "
    "`python -m coursekit model`."
)


def load_model(
    source: str | Path, profile: Profile | None = None, *, trainable: bool = False
) -> PreTrainedModel:
    """Load the model in the folder (or with the hub name) `source`, ready to generate.

    A folder with an adapter is loaded onto the model it was trained on, as that was, however many
    adapters deep: each but the last is merged (in 4-bit, where merging rounds, it stays on top
    of the base and may be the only one). `trainable` leaves the last adapter open for training.

    Raises FileNotFoundError if a folder lacks its weights, ValueError if they are damaged.
    """
    from safetensors import SafetensorError

    profile = profile or load_profile()
    _prepare(profile)
    adapter = adapter_config(source)
    base = load_model(adapter["base_model_name_or_path"], profile) if adapter else None
    try:
        with quiet():
            if base is None:
                return _load_plain(source, profile).eval()
            from peft import PeftModel

            if hasattr(base, "peft_config"):
                base = merge_adapter(base)
            return PeftModel.from_pretrained(base, str(source), is_trainable=trainable).eval()
    except SafetensorError as error:
        raise ValueError(
            f"the weights in {source} are damaged ({error}): delete the folder and train or "
            f"download it again. {_IF_SHIPPED}"
        ) from error


def load_tokenizer(source: str | Path, profile: Profile | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `source`. A missing pad token becomes the end token.

    Raises ValueError if there is no end token.
    """
    from transformers import AutoTokenizer

    profile = profile or load_profile()
    _check_folder(source, ("tokenizer.json", "tokenizer.model", "vocab.json"))
    tokenizer = AutoTokenizer.from_pretrained(str(source), revision=_revision(source, profile))
    if tokenizer.eos_token is None:
        raise ValueError(
            f"the tokenizer of {source} has no end token, so no response could ever end: set "
            "tokenizer.eos_token to the token that closes an answer and save the tokenizer again"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def adapter_config(source: str | Path) -> dict[str, Any] | None:
    """The adapter's configuration if `source` is a folder with an adapter, else None."""
    path = Path(source) / "adapter_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def merge_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The plain model whose weights include the adapter; `model` is used up.

    Raises ValueError for 4-bit weights: merging would round the adapter away in part.
    """
    if getattr(model, "is_loaded_in_4bit", False):
        raise ValueError(
            "an adapter cannot be merged into 4-bit weights without loss: load the base with "
            "four_bit=False to merge, or train DPO on the adapter itself"
        )
    return model.merge_and_unload()


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """An independent copy of a plain model, in evaluation mode, without gradients.

    `copy.deepcopy` will not do: a trainer leaves a `forward` behind in the instance, bound to the
    original, so the copy would compute with the weights of the model it was copied from.
    """
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(device=model.device, dtype=model.dtype).eval().requires_grad_(False)


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


def _load_plain(source: str | Path, profile: Profile) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    _check_folder(source, _WEIGHTS)
    dtype = getattr(torch, profile.dtype)
    options: dict[str, Any] = {"dtype": dtype, "revision": _revision(source, profile)}
    if profile.four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(str(source), use_safetensors=True, **options)
    if profile.four_bit:
        # On some CPUs bitsandbytes repacks weights at the first pass in evaluation mode, for
        # a kernel without gradients: training after an evaluation would silently lose most of them.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    elif torch.cuda.is_available():  # where 4-bit weights are already
        model = model.to("cuda")
    return model


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
            f"a name on the hub. {_IF_SHIPPED}"
        )
