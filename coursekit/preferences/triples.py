"""Triples: the rows that preference training reads, checked, split, saved and handed to TRL.

A triple is a plain dict `{"prompt", "chosen", "rejected"}`. Chosen and rejected are texts; the
prompt is a text too (one turn of the user), or a conversation: a list of messages `{"role",
"content"}` that ends with the user. What else a row has is provenance, see `pairs.to_triples`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import Counted, count_path, save_jsonl, shorten
from ..common.progress import progress
from ..common.prompts import as_messages, as_text, plain_prompt, plain_response, prompt_key

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow import Table

COLUMNS = ("prompt", "chosen", "rejected")
BATCH = 10_000  # rows that become columns at a time, so that no second copy of all is needed
ROLES = ("system", "user", "assistant")


def split_by_prompt(
    triples: Sequence[dict[str, Any]], validation_share: float = 0.1
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train and validation triples that share no prompt; the last prompts are held out."""
    keys = [prompt_key(triple["prompt"]) for triple in triples]
    prompts = list(dict.fromkeys(keys))
    held_out = set(prompts[len(prompts) - round(len(prompts) * validation_share) :])
    train = [triple for key, triple in zip(keys, triples, strict=True) if key not in held_out]
    return train, [triple for key, triple in zip(keys, triples, strict=True) if key in held_out]


def save_triples(triples: Iterable[dict[str, Any]], path: str | Path) -> Path:
    """`save_jsonl`, with the number of rows beside the file.

    So `load_triples` notices a file that was cut (a full disk, half a copy) at the end of a line,
    where every line that is left is whole.
    """
    triples = Counted(triples)
    path = save_jsonl(triples, path)
    count_path(path).write_text(f"{triples.n}\n", encoding="utf-8")
    return path


def check_count(path: Path, n: int) -> None:
    """Raise ValueError if the file `path` was saved with more rows than the `n` it has now."""
    count = count_path(path)
    saved = count.read_text(errors="replace", encoding="utf-8").strip() if count.is_file() else ""
    if saved.isdecimal() and int(saved[:18]) > n:
        raise ValueError(
            f"{path} has {n} rows, and {saved} were saved: it was cut. Copy or make it again; if "
            f"you took the rows out yourself, delete {count.name}"
        )


def save_dataset(triples: Sequence[dict[str, Any]], folder: str | Path) -> Path:
    """Save triples as a `datasets` folder (`Dataset.load_from_disk`), as conversations."""
    from ..common.quiet import quiet

    with quiet():
        to_trl(triples, chat=True).save_to_disk(str(folder))
    return Path(folder)


def check_triples(
    rows: Sequence[dict[str, Any]], source: str = "the triples", allow_empty: bool = False
) -> list[dict[str, Any]]:
    """Return `rows` if all are triples; else ValueError says which row and column, and the fix.

    allow_empty: let empty responses pass, for an audit that is to count them.
    """
    if not rows:
        raise ValueError(f"{source}: no rows, so there is nothing to train on")
    for number, row in enumerate(rows, start=1):
        check_triple(row, f"{source}, row {number}", allow_empty)
    return list(rows)


def check_triple(row: Any, where: str, allow_empty: bool = False) -> None:
    """Raise ValueError unless `row` is a triple; `where` begins the message."""
    if not isinstance(row, dict):
        raise ValueError(
            f"{where} is {type(row).__name__}, not an object with the columns {', '.join(COLUMNS)}"
        )
    for column in COLUMNS:
        if column not in row:
            raise ValueError(
                f"{where} has no column {column!r} (it has: "
                f"{shorten(', '.join(map(str, row)), 300)}): every triple needs "
                f"{', '.join(COLUMNS)}"
            )
    check_prompt(row["prompt"], where)
    for column in ("chosen", "rejected"):
        _check_text(row[column], where, column, allow_empty)


def check_prompt(prompt: Any, where: str) -> None:
    """Raise ValueError unless `prompt` is a text, or messages of which the user's is the last."""
    if not isinstance(prompt, list):
        _check_text(prompt, where, "prompt")
        return
    check_messages(prompt, where, "prompt")
    if prompt[-1]["role"] != "user":
        raise ValueError(
            f"{where}, column 'prompt' ends with a turn of {prompt[-1]['role']!r}: its last "
            "message must be the user's, which is to be answered; drop the row or mend it"
        )


def _check_text(value: Any, where: str, column: str, allow_empty: bool = False) -> None:
    if not isinstance(value, str) or not (value.strip() or allow_empty):
        raise ValueError(
            f"{where}, column {column!r} is {shown(value)}: it should be a text that is not "
            "empty; drop the row or mend it"
        )


def check_messages(messages: Any, where: str, column: str) -> None:
    """Raise ValueError unless `messages` are turns `{"role", "content"}`, at least one.

    Roles are those that every chat template knows: `system`, `user` and `assistant`.
    """
    for turn in messages or [None]:
        if not isinstance(turn, dict) or not all(
            isinstance(turn.get(key), str) for key in ("role", "content")
        ):
            raise ValueError(
                f"{where}, column {column!r} holds {shown(turn)} where a message should be: write "
                'each turn as {"role": "user" or "assistant", "content": "text"}'
            )
        if turn["role"] not in ROLES:
            raise ValueError(
                f"{where}, column {column!r} has a turn of {shown(turn['role'])}: rename the role "
                f"to one of {', '.join(ROLES)}, or drop the row"
            )


def shown(value: Any) -> str:
    """A value in an error message."""
    return shorten(repr(value), 60)


def to_trl(triples: Sequence[dict[str, Any]], chat: bool) -> Dataset:
    """The three columns as TRL's trainers read them.

    chat: as conversations, which get the tokenizer's chat template; without, as plain text (see
    `logprobs.plain_prompt`), to which TRL appends the end token.
    """
    from datasets import Dataset
    from pyarrow import Table, concat_tables

    if not triples:
        return Dataset.from_list([])
    row_of = partial(trl_row, chat=True) if chat else _plain_row
    with progress("to columns", len(triples), "rows", after=2) as advance:
        tables = []
        for start in range(0, len(triples), BATCH):
            rows = [row_of(row) for row in triples[start : start + BATCH]]
            tables.append(Table.from_pylist(rows))
            advance(len(rows))
    table = concat_tables(tables, promote_options="permissive")
    return Dataset(table, fingerprint=_fingerprint(table))


def _fingerprint(table: Table) -> str:
    """By what `datasets` and TRL tell these rows from others; their own way copies all of them."""
    from datasets.fingerprint import Hasher

    chunks = chain.from_iterable(column.chunks for column in table.columns)
    buffers = chain.from_iterable(chunk.buffers() for chunk in chunks)
    return Hasher.hash_bytes([str(table.schema).encode(), *filter(None, buffers)])


def _plain_row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "prompt": plain_prompt(row["prompt"]),
        **{name: plain_response(row[name]) for name in ("chosen", "rejected")},
    }


def sft_row(row: dict[str, Any], chat: bool) -> dict[str, Any]:
    """A demonstration `{"prompt", "response"}` as TRL's `SFTTrainer` reads it; see `to_trl`."""
    if not chat:
        return {
            "prompt": plain_prompt(row["prompt"]),
            "completion": plain_response(row["response"]),
        }
    return {
        "prompt": as_messages(row["prompt"]),
        "completion": [{"role": "assistant", "content": row["response"]}],
    }


def trl_row(row: dict[str, Any], chat: bool) -> dict[str, Any]:
    """A triple's three columns, as messages or as the texts that they are."""
    if not chat:
        return {**{name: row[name] for name in COLUMNS}, "prompt": as_text(row["prompt"])}
    return {
        "prompt": as_messages(row["prompt"]),
        **{name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")},
    }
