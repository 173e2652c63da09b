"""Preference triples: sampled, judged, saved as they are made, read back with every row checked.

A triple is a plain dict `{"prompt", "chosen", "rejected"}` of texts, with provenance beside it:
`alert` (the facts, for the rubric), `judge`, `chosen_temperature`, `rejected_temperature`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..judging import Judge, both_orders
from ..profile import Profile
from ..triage import INSTRUCTION, INSTRUCTION_IN_FULL, build_prompt, sample_alerts

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("prompt", "chosen", "rejected")


def alert_rows(pool: str, n: int, profile: Profile, seed: int = 0) -> list[dict[str, Any]]:
    """`n` rows `{"prompt", "alert"}` about alerts of `pool`, asked as the profile asks."""
    instruction = INSTRUCTION_IN_FULL if profile.full_instruction else INSTRUCTION
    return [
        {"prompt": build_prompt(alert, instruction), "alert": alert.to_dict()}
        for alert in sample_alerts(pool, n, seed)
    ]


def judge_candidates(
    rows: Iterable[dict[str, Any]], judge: Judge, pairs_per_prompt: int = 3
) -> list[dict[str, Any]]:
    """Triples from rows with candidates: every pair that `judge` separates, in both orders.

    A tie makes no triple. At most `pairs_per_prompt` triples a prompt, so that no prompt
    dominates; no response pair twice.
    """
    triples: list[dict[str, Any]] = []
    for row in rows:
        taken: set[tuple[str, str]] = set()
        for one, other in combinations(row["candidates"], 2):
            verdict = both_orders(judge, row, one["response"], other["response"])
            if verdict.winner == "tie":
                continue
            chosen, rejected = (one, other) if verdict.winner == "first" else (other, one)
            texts = chosen["response"], rejected["response"]
            if texts in taken or len(taken) == pairs_per_prompt:
                continue
            taken.add(texts)
            triples.append(
                {
                    "prompt": row["prompt"],
                    "chosen": texts[0],
                    "rejected": texts[1],
                    "chosen_temperature": chosen["temperature"],
                    "rejected_temperature": rejected["temperature"],
                    "judge": judge.name,
                    "alert": row["alert"],
                }
            )
    return triples


def split_by_prompt(
    triples: Sequence[dict[str, Any]], validation_share: float = 0.1
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train and validation triples that share no prompt; the last prompts are held out."""
    prompts = list(dict.fromkeys(triple["prompt"] for triple in triples))
    held_out = set(prompts[len(prompts) - round(len(prompts) * validation_share) :])
    train = [triple for triple in triples if triple["prompt"] not in held_out]
    return train, [triple for triple in triples if triple["prompt"] in held_out]


def save_jsonl(rows: Iterable[dict[str, Any]], path: str | Path) -> Path:
    """Write one JSON object a line; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".part")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(path)
    return path


def save_dataset(triples: Sequence[dict[str, Any]], folder: str | Path) -> Path:
    """Save triples as a `datasets` folder (`Dataset.load_from_disk`), as conversations."""
    from ..quiet import quiet

    with quiet():
        to_trl(triples, chat=True).save_to_disk(str(folder))
    return Path(folder)


def load_triples(path: str | Path) -> list[dict[str, Any]]:
    """Read triples from a JSON Lines file, or from a JSON file with a list of rows.

    Rows of instruction data (`instruction` and `input` in place of `prompt`) are read as well.
    Raises FileNotFoundError, or ValueError with the row, the column and the fix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: make triples first, or correct the path")
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise ValueError(f"{path} is empty: it should hold one triple a line")
    rows = json.loads(text) if text.startswith("[") else _json_lines(text, path)
    return check_triples([_with_prompt(row) for row in rows], source=str(path))


def _json_lines(text: str, path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number} is not JSON ({error.msg} at column {error.colno}): one "
                "JSON object a line, double quotes, no trailing comma"
            ) from error
    return rows


def _with_prompt(row: Any) -> Any:
    """Rows of instruction data get a `prompt`: the instruction and, below it, its input."""
    if not isinstance(row, dict) or "prompt" in row or "instruction" not in row:
        return row
    parts = [part for part in (row["instruction"], row.get("input")) if part]
    return {**row, "prompt": "\n\n".join(parts)}


def check_triples(
    rows: Sequence[dict[str, Any]], source: str = "the triples"
) -> list[dict[str, Any]]:
    """Return `rows` if all are triples of non-empty texts; else ValueError says which is not."""
    if not rows:
        raise ValueError(f"{source}: no rows, so there is nothing to train on")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(
                f"{source}, row {number} is {type(row).__name__}, not an object with the columns "
                f"{', '.join(COLUMNS)}"
            )
        for column in COLUMNS:
            if column not in row:
                raise ValueError(
                    f"{source}, row {number} has no column {column!r} (it has: {', '.join(row)}): "
                    f"every triple needs {', '.join(COLUMNS)}"
                )
            if not isinstance(row[column], str) or not row[column].strip():
                raise ValueError(
                    f"{source}, row {number}, column {column!r} is {row[column]!r}: it should be a "
                    "text that is not empty"
                )
    return list(rows)


def to_trl(triples: Sequence[dict[str, Any]], chat: bool) -> Dataset:
    """The three columns as TRL's trainers read them.

    chat: as conversations, which get the tokenizer's chat template; without, as plain text, to
    which TRL appends the end token.
    """
    from datasets import Dataset

    if not chat:
        return Dataset.from_list([{name: row[name] for name in COLUMNS} for row in triples])
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return Dataset.from_list(
        [
            {name: [{"role": role, "content": row[name]}] for name, role in roles.items()}
            for row in triples
        ]
    )
