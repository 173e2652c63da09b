"""What tells one model from another: the contents of its files, not its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.made_from import RECORD, fingerprint
from ..common.profile import Profile
from .loading import adapter_config
from .weights import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Whatever decides what a model answers; notes, histories and checkpoints do not.
_KINDS = (".safetensors", ".json", ".jinja", ".model", ".txt")


def model_identity(source: str | Path, profile: Profile) -> str:
    """Sixteen hexadecimal digits for the model in the folder (or with the hub name) `source`.

    Of a folder every weight, configuration and tokenizer file counts, and so does the base model of
    an adapter, however many adapters deep; of a hub name, the commit that is in the local cache.
    The number format of the weights counts too: it changes what is sampled.
    """
    parts = [profile.dtype, str(profile.four_bit)]
    folder = Path(source)
    if folder.is_dir():
        parts += [
            f"{path.name} {digest_of(path)}"
            for path in sorted(folder.iterdir())
            if path.is_file() and path.suffix in _KINDS and path.name != RECORD
        ]
        if adapter := adapter_config(source):
            parts.append(model_identity(adapter["base_model_name_or_path"], profile))
    else:
        revision = profile.revision if str(source) == profile.base_model else None
        parts += [str(source), _commit(str(source), revision)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def loaded_identity(model: PreTrainedModel) -> str:
    """Sixteen hexadecimal digits for a model in memory: its weights, and how they are used.

    Wherever it came from. Reads every weight once: as long as saving the model takes.
    """
    import torch

    config = json.loads(model.config.to_json_string(use_diff=False))
    for name in ("_name_or_path", "architectures", "dtype", "transformers_version"):
        config.pop(name, None)  # where it lay, who wrote it, and what the weights say anyway
    digest = hashlib.sha256(fingerprint(config).encode())
    for name, adapter in getattr(model, "peft_config", {}).items():
        digest.update(f"{name} {adapter.lora_alpha} {adapter.r} {adapter.use_rslora}".encode())
    for name, weights in sorted(model.state_dict().items()):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _commit(name: str, revision: str | None) -> str:
    """The commit of a hub model: from the local cache if it is there, else what was asked for."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    # .../snapshots/<commit>/config.json
    return Path(found).parent.name if isinstance(found, str) else str(revision)
