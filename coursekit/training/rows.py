"""The rows that a run trains on: what tells them from others, and whether they fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.made_from import fingerprint
from ..lm.logprobs import context_of, encode_whole
from ..preferences import COLUMNS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = Sequence[dict[str, Any]]

ASKED_FILE = "asked.jsonl"  # in an SFT run's: some of its prompts, for what is asked later
PROBES = 8  # rows on which the reference is checked


def asked_path(folder: str | Path) -> Path:
    """Where an SFT run notes some of its prompts."""
    return Path(folder) / ASKED_FILE


def rows_record(triples: Rows, validation: Rows | None) -> dict[str, Any]:
    """What a run's record says of its triples, and of those held out."""
    return {
        "rows": rows_fingerprint(triples),
        "n": len(triples),
        "validation": rows_fingerprint(validation) if validation else None,
    }


def rows_fingerprint(triples: Rows) -> str:
    """What tells triples from others: their prompts and responses, in order."""
    return fingerprint([[row[name] for name in COLUMNS] for row in triples])


def check_rows_fit(
    model: PreTrainedModel,
    tokenizer: Any,
    rows: Rows,
    sides: Sequence[str],
    max_length: int | None,
) -> None:
    """Raise ValueError if a response is too long with its prompt, in any row.

    A trainer would cut it unseen, and its end token with it; beyond the context it would train on
    positions that the model does not have. `sides`: the columns that hold responses.
    """
    limit = min((bound for bound in (max_length, context_of(model)) if bound), default=math.inf)
    prompts = [row["prompt"] for row in rows]
    over = [
        (number, side, len(ids))
        for side in sides
        for number, ids in enumerate(
            encode_whole(tokenizer, prompts, [row[side] for row in rows]), start=1
        )
        if len(ids) > limit
    ]
    if over:
        number, side, length = over[0]
        raise ValueError(
            f"row {number}, column {side!r}: {length} tokens with its prompt, where max_length is "
            f"{max_length} and the model's context {context_of(model)} ({len(over)} of "
            f"{len(sides) * len(rows)} responses are too long): the end would be cut unseen. Raise "
            "max_length (up to the context), or shorten or leave out the rows"
        )
