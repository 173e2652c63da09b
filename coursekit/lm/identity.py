"""What tells one model from another: the contents of its files, not its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..common.made_from import RECORD
from ..common.profile import Profile
from .loading import adapter_config
from .weights import digest_of

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


def _commit(name: str, revision: str | None) -> str:
    """The commit of a hub model: from the local cache if it is there, else what was asked for."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    # .../snapshots/<commit>/config.json
    return Path(found).parent.name if isinstance(found, str) else str(revision)
