"""Candidates for preference pairs: several responses to each prompt, saved as they are made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..profile import Profile

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHUNK = 64  # prompts sampled, and saved, together


def sample_candidates(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    seed: int = 0,
    path: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Sample `samples_per_temperature` responses to each row at each of the profile's temperatures.

    With `path`, every finished chunk of rows is appended to that JSON Lines file at once. Killed at
    any moment and started again with the same arguments, the run goes on after the last whole
    chunk: the file ends up as if nothing had happened. A file of another run (another model, other
    rows, seed or settings) is not mixed in: it is kept under another name.

    Returns the rows with `candidates`: a list of `{"response", "temperature"}`.
    """
    from ..generation import generate

    plan = [t for t in profile.temperatures for _ in range(profile.samples_per_temperature)]
    run = _fingerprint(model, rows, plan, profile, seed)
    done = _whole_chunks(Path(path), run, len(rows)) if path else []
    for start in range(len(done), len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        responses = generate(
            model,
            tokenizer,
            [row["prompt"] for row in chunk for _ in plan],
            max_new_tokens=profile.max_new_tokens,
            temperature=plan * len(chunk),
            seed=seed * 1_000_003 + start,  # so that a chunk does not depend on those before it
            batch_size=profile.generation_batch,
            label=f"sampling for prompts {start + 1} to {start + len(chunk)} of {len(rows)}",
        )
        finished = [
            {
                **row,
                "candidates": [
                    {"response": response, "temperature": temperature}
                    for response, temperature in zip(
                        responses[index * len(plan) : (index + 1) * len(plan)], plan, strict=True
                    )
                ],
            }
            for index, row in enumerate(chunk)
        ]
        if path:
            _append(Path(path), run, finished)
        done += finished
    return done


def _fingerprint(
    model: PreTrainedModel,
    rows: Sequence[dict[str, Any]],
    plan: Sequence[float],
    profile: Profile,
    seed: int,
) -> str:
    """What must be the same for a saved chunk to belong to this run.

    Of the model, the sums of its weights to six digits: quick, and another training changes them.
    """
    weights = [f"{parameter.detach().float().sum().item():.6g}" for parameter in model.parameters()]
    prompts = [row["prompt"] for row in rows]
    parts = [weights, prompts, list(plan), profile.max_new_tokens, seed, CHUNK]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _append(path: Path, run: str, rows: Sequence[dict[str, Any]]) -> None:
    """Append `rows` and see that they are on the disk before anything else happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps({**row, "run": run}, ensure_ascii=False) + "\n" for row in rows)
    with path.open("ab") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def _whole_chunks(path: Path, run: str, total: int) -> list[dict[str, Any]]:
    """The rows in `path` that belong to whole chunks of `run`; what follows is cut off the file.

    A process that was killed may leave half a line, or a part of a chunk.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is half a line
    whole = len(lines) if len(lines) == total else len(lines) // CHUNK * CHUNK
    rows = [json.loads(line) for line in lines[:whole]]
    others = {row.pop("run", "unknown") for row in rows} - {run}
    if others:
        aside = path.with_name(f"{path.stem}-{min(others)}{path.suffix}")
        path.replace(aside)
        print(f"{path.name} holds candidates of another run: kept as {aside.name}")
        return []
    size = sum(len(line) + 1 for line in lines[:whole])
    if size < path.stat().st_size:
        os.truncate(path, size)
    return rows
