"""Weights on the disk: what a run saved is what is loaded, whole and finite, or the reader is told.

No code that comes with a model is run, and no pickle is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.quiet import quiet
from .trl_compat import scales

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WHOLE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
ADAPTER_WEIGHTS = "adapter_model.safetensors"
SUMS_FILE = "SHA256SUMS"  # beside the weights; `sha256sum -c SHA256SUMS` reads it too
IF_SHIPPED = (
    "If it is the shipped model, run `git checkout -- coursekit/lm/tiny`, or build it anew: "
    "`python -m coursekit model`."
)


def write_checksums(folder: str | Path) -> None:
    """Note the SHA-256 of every weights file in `folder`, beside them."""
    paths = sorted(Path(folder).glob("*.safetensors"))
    (Path(folder) / SUMS_FILE).write_text(
        "".join(f"{digest_of(path)}  {path.name}\n" for path in paths), encoding="utf-8"
    )


def check_checksums(folder: str | Path) -> None:
    """Raise ValueError if weights in `folder` are not those whose sums were noted there.

    Folders without a note pass: models from elsewhere have none.
    """
    note = Path(folder) / SUMS_FILE
    if not note.is_file():
        return
    for line in note.read_text(encoding="utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        path = Path(folder) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}, which {note} names: train it again or copy it anew. {IF_SHIPPED}"
            )
        if digest_of(path) != wanted:
            raise ValueError(
                f"{path} is damaged or was changed since it was saved (its SHA-256 is not the one "
                f"in {note.name}): train it again or copy it anew, or delete {note.name} if the "
                f"change was yours. {IF_SHIPPED}"
            )


def digest_of(path: Path) -> str:
    """SHA-256 of a file; read again only when its size or time has changed."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_whole(auto: Any, source: str | Path, **options: Any) -> PreTrainedModel:
    """`auto.from_pretrained(source)`, but for weights that `loading.load_model` refuses.

    auto: a class such as `AutoModelForCausalLM`; options: what else its `from_pretrained` takes.
    """
    check_checksums(source)
    with _weights_of(source):
        model, report = auto.from_pretrained(
            str(source),
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # told below, with the others
            output_loading_info=True,
            **options,
        )
    _refuse_other_tensors(
        source,
        missing=report["missing_keys"],
        unexpected=report["unexpected_keys"],
        misfits=[key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]],
    )
    _refuse_infinite(source, _floating(model))
    return model


def load_adapter(source: str | Path, base: PreTrainedModel, trainable: bool) -> PreTrainedModel:
    """The adapter in the folder `source` on its base, if it fits: see `loading.load_model`."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    path = Path(source) / ADAPTER_WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: the folder names an adapter and has no weights (a pickle, "
            "adapter_model.bin, is not read); train it again, or copy the folder anew"
        )
    check_checksums(source)
    with _weights_of(source):
        saved = load_file(path)
        model = PeftModel.from_pretrained(
            base,
            str(source),
            is_trainable=trainable,
            ignore_mismatched_sizes=True,  # told below, with the others
        )
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    _refuse_other_tensors(
        source,
        missing=expected.keys() - saved.keys(),
        unexpected=saved.keys() - expected.keys() - model.state_dict().keys(),
        misfits=[
            name
            for name in expected.keys() & saved.keys()
            if expected[name].shape != saved[name].shape
        ],
    )
    _refuse_infinite(source, saved.items())
    ups = [tensor for name, tensor in saved.items() if "lora_B" in name]
    if ups and not any(tensor.any() for tensor in ups):
        raise ValueError(
            f"the adapter in {source} changes nothing: every lora_B is zero, as before the first "
            "step. Train it again"
        )
    return model


@contextmanager
def _weights_of(source: str | Path) -> Iterator[None]:
    """Quiet; a file that is cut becomes a ValueError that says what to do."""
    from safetensors import SafetensorError

    try:
        with quiet():
            yield
    except SafetensorError as error:
        raise ValueError(
            f"the weights in {source} are damaged ({error}): delete the folder and train or "
            f"download it again. {IF_SHIPPED}"
        ) from error


def _refuse_other_tensors(
    source: str | Path,
    *,
    missing: Iterable[str],
    unexpected: Iterable[str],
    misfits: Iterable[str],
) -> None:
    kinds = {"missing": missing, "of no use": unexpected, "of another shape": misfits}
    found = [
        f"{len(names)} {kind} ({names[0]}{', ...' if names[1:] else ''})"
        for kind, names in ((kind, sorted(names)) for kind, names in kinds.items())
        if names
    ]
    if found:
        raise ValueError(
            f"the weights in {source} are not this model's: tensors {'; '.join(found)}. What is "
            "missing would be made up at random: copy or train the folder anew, and check that "
            f"config and weights belong together. {IF_SHIPPED}"
        )


def _refuse_infinite(source: str | Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    bad = [name for name, tensor in tensors if not tensor.isfinite().all()]
    if bad:
        raise ValueError(
            f"the weights in {source} are not finite ({len(bad)} tensors, {bad[0]} the first): "
            "training has diverged or the file is damaged; train with a lower learning rate, or "
            "copy it anew"
        )


def _floating(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The model's weights that are numbers; of 4-bit ones, the scales."""
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        for tensor in (weight, *scales(weight)):
            if tensor.is_floating_point():
                yield name, tensor
