"""Readers for the preference data that people have, and writers for the formats that TRL reads.

Every reader gives triples. A file is recognised by its columns, so nobody has to say what it is:

| layout | columns |
|---|---|
| TRL, plain | `prompt`, `chosen`, `rejected`: texts |
| TRL, conversational | the same as lists of messages; the prompt may be missing |
| UltraFeedback, binarized | a text `prompt`, conversations in `chosen` and `rejected`, scores |
| hh-rlhf | transcripts in `chosen` and `rejected`: "\\n\\nHuman: ...\\n\\nAssistant: ..." |
| instruction data | `instruction`, `input` (may be missing), `chosen`, `rejected` |
| thumbs (KTO) | `prompt`, `completion`, `label` (true or false) |

They come as JSON Lines, JSON, CSV or Parquet, as a folder that `datasets` saved, or from the hub.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ..logprobs import as_messages, as_text
from .triples import check_messages, check_triple, check_triples, prompt_key, save_jsonl, trl_row

Row = dict[str, Any]

LAYOUTS = (
    "prompt, chosen, rejected (texts or lists of messages); chosen, rejected (conversations or "
    "hh-rlhf transcripts); instruction, input, chosen, rejected; prompt, completion, label"
)


def load_triples(
    source: str | Path,
    *,
    split: str = "train",
    revision: str | None = None,
    allow_empty: bool = False,
    skip_bad: bool = False,
) -> list[Row]:
    """Triples from a file, a folder that `datasets` saved, or a dataset on the hub.

    Columns that are not the layout's own are kept as they are.

    Args:
        source: a path, or a name on the hub (`owner/name`) if no such path exists.
        split: of a hub dataset.
        revision: of a hub dataset, and needed there: data that can change is no data to cite.
        allow_empty: let empty responses pass, for an audit that is to count them.
        skip_bad: leave out rows that cannot be read, and say how many, instead of raising.

    Raises:
        FileNotFoundError: no such file. ConnectionError: the hub does not answer.
        ValueError: names file, row and column of what is wrong, and the fix.
    """
    path = Path(source)
    if path.is_dir():
        rows = _saved_dataset(path)
    elif path.is_file():
        rows = _file(path)
    elif _looks_like_hub(str(source)):
        rows = _from_hub(str(source), split, revision)
    else:
        raise FileNotFoundError(f"no file {path}: make triples first, or correct the path")
    return parse_rows(rows, str(source), allow_empty=allow_empty, skip_bad=skip_bad)


def parse_rows(
    rows: Sequence[Any],
    source: str = "the rows",
    *,
    allow_empty: bool = False,
    skip_bad: bool = False,
) -> list[Row]:
    """Triples from rows of any of the layouts above; all must have the layout of the first.

    Raises ValueError as `load_triples` does.
    """
    if not rows:
        raise ValueError(f"{source}: no rows, so there is nothing to train on")
    reader = None
    read, bad = [], []
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        try:
            if not isinstance(row, dict):
                raise ValueError(
                    f"{where} is {type(row).__name__}, not an object with columns: write each row "
                    f"as one of {LAYOUTS}"
                )
            reader = reader or _layout_of(row, where)
            parsed = reader(row, where)
            if reader is not _thumb:
                check_triple(parsed, where, allow_empty)
            read.append(parsed)
        except ValueError as error:
            if not skip_bad:
                raise
            bad.append(str(error))
    if bad:
        print(f"{len(bad)} of {len(rows)} rows left out. The first: {bad[0]}")
    return check_triples(_pair_thumbs(read, source) if reader is _thumb else read, source, True)


def _layout_of(row: Row, where: str) -> Callable[[Row, str], Row]:
    """The reader for rows with the columns of `row`."""
    if {"prompt", "completion", "label"} <= row.keys():
        return _thumb
    if not {"chosen", "rejected"} <= row.keys():
        missing = [name for name in ("chosen", "rejected") if name not in row]
        raise ValueError(
            f"{where} has no column {missing[0]!r} (it has: {', '.join(row)}): rename "
            f"its columns to one of {LAYOUTS}"
        )
    if isinstance(row["chosen"], list):
        return _conversation
    if "prompt" in row:
        return _plain
    if "instruction" in row:
        return _instruction
    if isinstance(row["chosen"], str) and _TURN.match(row["chosen"]):
        return _transcript
    raise ValueError(
        f"{where} has no column 'prompt' (it has: {', '.join(row)}), and 'chosen' is no "
        f'transcript that begins with "Human:": rename its columns to one of {LAYOUTS}'
    )


# The layouts. Each takes a row and says where it stands, for errors.


def _plain(row: Row, where: str) -> Row:
    """TRL's plain rows are triples already; a mixture of texts and messages is an error."""
    for column in ("chosen", "rejected"):
        if isinstance(row.get(column), list):
            raise ValueError(
                f"{where}, column {column!r} is a list of messages where the rows before have "
                "texts: write all rows the same way"
            )
    return row


def _conversation(row: Row, where: str) -> Row:
    """Messages: `chosen` and `rejected` hold the answer's turn alone, or the whole conversation.

    With the whole conversation the prompt is what both share; UltraFeedback's text `prompt` beside
    it repeats the user's first turn and gives way.
    """
    ends: dict[str, list[Row]] = {}
    for column in ("chosen", "rejected"):
        messages = row.get(column)
        if not isinstance(messages, list):
            raise ValueError(
                f"{where}, column {column!r} is {type(messages).__name__} where row 1 has a list "
                'of messages: write [{"role": "assistant", "content": "text"}]'
            )
        check_messages(messages, where, column)
        if messages[-1]["role"] != "assistant":
            raise ValueError(
                f"{where}, column {column!r} ends with a turn of {messages[-1]['role']!r}: its "
                "last message must be the assistant's answer"
            )
        ends[column] = messages
    before = {column: messages[:-1] for column, messages in ends.items()}
    if before["chosen"] != before["rejected"]:
        raise ValueError(
            f"{where}, column 'rejected' answers another conversation than 'chosen': all turns "
            "but the last must be the same; drop the row"
        )
    given = row.get("prompt")
    shared = [{key: turn[key] for key in ("role", "content")} for turn in before["chosen"]]
    if isinstance(given, list):
        check_messages(given, where, "prompt")
        shared = given + shared if shared[: len(given)] != given else shared
    elif not shared and isinstance(given, str):
        shared = as_messages(given)
    if not shared:
        raise ValueError(
            f"{where} has no prompt: neither a column 'prompt' nor turns before the answer in "
            "'chosen'; add the user's turn"
        )
    alone = len(shared) == 1 and shared[0]["role"] == "user"
    return {
        **{name: value for name, value in row.items() if name != "messages"},
        "prompt": shared[0]["content"] if alone else shared,
        **{column: messages[-1]["content"] for column, messages in ends.items()},
    }


_TURN = re.compile(r"\s*(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _transcript(row: Row, where: str) -> Row:
    """hh-rlhf: two transcripts of one dialogue that differ in the last answer."""
    parsed = {column: _turns(row.get(column), where, column) for column in ("chosen", "rejected")}
    return _conversation({**row, **parsed}, where)


def _turns(text: Any, where: str, column: str) -> list[Row]:
    """The messages of a transcript, divided at the lines that begin with a speaker."""
    if not isinstance(text, str) or not _TURN.match(text):
        raise ValueError(
            f'{where}, column {column!r} is no transcript: it should begin with "\\n\\nHuman: "'
        )
    parts = re.split(r"(?:^|\n\n)\s*(Human|Assistant):", text)[1:]
    return [
        {"role": _ROLES[speaker], "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _instruction(row: Row, where: str) -> Row:
    """Instruction data: the prompt is the instruction and, below it, its input if there is one."""
    for column in ("instruction", "input"):
        if not isinstance(row.get(column) or "", str):
            raise ValueError(
                f"{where}, column {column!r} is {type(row[column]).__name__}: it should be a text"
            )
    if not row.get("instruction"):
        raise ValueError(
            f"{where}, column 'instruction' is empty: say what is asked, or drop the row"
        )
    parts = [part for part in (row["instruction"], row.get("input")) if part]
    return {**row, "prompt": "\n\n".join(parts)}


# 1 and 0 are equal to True and False; CSV has words.
_THUMBS = {True: True, False: False, "true": True, "1": True, "false": False, "0": False}


def _thumb(row: Row, where: str) -> Row:
    """One response with a thumb: `prompt`, `completion`, and a `label` that is true or false."""
    for column in ("prompt", "completion", "label"):
        if column not in row:
            raise ValueError(
                f"{where} has no column {column!r} (it has: {', '.join(row)}): rows with thumbs "
                "need prompt, completion, label"
            )
    label = row["label"].strip().lower() if isinstance(row["label"], str) else row["label"]
    if not isinstance(label, (str, bool, int)) or label not in _THUMBS:
        raise ValueError(
            f"{where}, column 'label' is {row['label']!r}: it should be true for a thumb up, false "
            "for a thumb down"
        )
    completion = row["completion"]
    if isinstance(completion, list):
        check_messages(completion, where, "completion")
        completion = completion[-1]["content"]
    if not isinstance(completion, str) or not completion.strip():
        raise ValueError(
            f"{where}, column 'completion' is {completion!r}: it should be a text that is not "
            "empty; drop the row or mend it"
        )
    prompt = row["prompt"]
    if isinstance(prompt, list):
        check_messages(prompt, where, "prompt")
        if len(prompt) == 1 and prompt[0]["role"] == "user":
            prompt = prompt[0]["content"]
    return {"prompt": prompt, "completion": completion, "label": _THUMBS[label]}


def _pair_thumbs(rows: Sequence[Row], source: str) -> list[Row]:
    """Each liked answer to a prompt against each disliked one.

    DPO needs pairs: a prompt with only one kind of thumb gives none, and is left out with a note.
    """
    found: dict[Any, dict[bool, list[str]]] = defaultdict(lambda: {True: [], False: []})
    prompts = {}
    for row in rows:
        key = prompt_key(row["prompt"])
        prompts[key] = row["prompt"]
        found[key][row["label"]].append(row["completion"])
    triples = [
        {"prompt": prompts[key], "chosen": liked, "rejected": disliked}
        for key, thumbs in found.items()
        for liked, disliked in product(thumbs[True], thumbs[False])
    ]
    if not triples:
        raise ValueError(
            f"{source}, column 'label': no prompt has both a thumb up and a thumb down, so no pair "
            "can be made: train on these rows with KTO, which needs no pairs"
        )
    single = sum(not (thumbs[True] and thumbs[False]) for thumbs in found.values())
    if single:
        print(f"{single} of {len(found)} prompts have thumbs of one kind only: no pair from them")
    return triples


# Where rows come from.


def _file(path: Path) -> list[Any]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pandas as pd

        return _plain_values(pd.read_parquet(path).to_dict("records"))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8 (byte {error.start}): save it as UTF-8; of spreadsheets "
            'choose "CSV UTF-8"'
        ) from error
    if not text.strip():
        raise ValueError(f"{path} is empty: it should hold one triple a line")
    if suffix in (".csv", ".tsv"):
        return _csv(text, path, "\t" if suffix == ".tsv" else ",")
    if text.lstrip().startswith("[") or suffix == ".json":
        return _json_list(text, path)
    return _json_lines(text, path)


def _csv(text: str, path: Path, delimiter: str) -> list[Row]:
    """Rows by the names in the first line. Cells that hold messages as JSON are read as such."""
    csv.field_size_limit(sys.maxsize)
    lines = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    names = next(lines)
    rows = []
    for number, cells in enumerate(lines, start=1):
        if not cells:
            continue
        if len(cells) != len(names):
            raise ValueError(
                f"{path}, row {number} has {len(cells)} cells, the first line names {len(names)} "
                f"columns ({', '.join(names)}): put texts with commas or line breaks in double "
                "quotes"
            )
        rows.append(
            {
                name: _cell(value, path, number, name)
                for name, value in zip(names, cells, strict=True)
            }
        )
    return rows


def _cell(value: str, path: Path, number: int, name: str) -> Any:
    if not value.startswith('[{"'):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, row {number}, column {name!r} looks like messages but is not JSON "
            f"({error.msg}): write it with a CSV library, which doubles the quotes inside"
        ) from error


def _json_list(text: str, path: Path) -> list[Any]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _json_lines(text, path)  # JSON Lines by another name
        row = max(1, text.count('"chosen"', 0, error.pos))
        raise ValueError(
            f"{path}, near row {row}, is not JSON ({error.msg} at line {error.lineno}, column "
            f"{error.colno}): double quotes, no trailing comma, the list closed by ]"
        ) from error
    if isinstance(rows, dict) and "chosen" not in rows and "completion" not in rows:
        raise ValueError(
            f"{path} holds one object ({', '.join(list(rows)[:5])}), not rows: save the list of "
            "rows alone"
        )
    return rows if isinstance(rows, list) else [rows]


def _json_lines(text: str, path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number} is not JSON ({error.msg} at column {error.colno}): one "
                "JSON object a line, double quotes, no trailing comma"
            ) from error
    return rows


def _saved_dataset(folder: Path) -> list[Row]:
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(folder))
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is a folder but not one that `datasets` saved: name the file in it"
        ) from error
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"{folder} holds several splits ({', '.join(dataset)}): name the folder of one"
        )
    return list(dataset)


def _looks_like_hub(source: str) -> bool:
    """`owner/name` without the ending of a file."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", source)) and not re.search(
        r"\.(jsonl?|csv|tsv|parquet)$", source
    )


def _from_hub(name: str, split: str, revision: str | None) -> list[Row]:
    from datasets import load_dataset

    if revision is None:
        raise ValueError(
            f"{name} is no file here, so it would come from the hub, and a dataset there can "
            "change: pass revision= with a commit of its page (Files and versions, History)"
        )
    try:
        return list(load_dataset(name, split=split, revision=revision))
    except (ConnectionError, OSError) as error:
        raise ConnectionError(
            f"cannot load {name} from the hub ({type(error).__name__}): without a network, "
            "download it where there is one and pass the file's path"
        ) from error


def _plain_values(value: Any) -> Any:
    """Lists and dicts in place of the arrays that Parquet gives."""
    if isinstance(value, dict):
        return {key: _plain_values(item) for key, item in value.items()}
    if isinstance(value, list) or type(value).__module__ == "numpy":
        items = value.tolist() if hasattr(value, "tolist") else value
        return [_plain_values(item) for item in items] if isinstance(items, list) else items
    return value


# Writers.


def write_triples(
    triples: Iterable[Row],
    path: str | Path,
    layout: Literal["plain", "conversational", "thumbs"] = "plain",
) -> Path:
    """Write triples in a layout that TRL's trainers read: JSON Lines, or CSV by the path's ending.

    plain: texts, for models without a chat template; conversational: messages, which get the
    template; thumbs: `prompt`, `completion`, `label`, two rows a triple, for `KTOTrainer`.

    Raises ValueError for another layout, or for rows that are no triples.
    """
    rows = check_triples(list(triples))
    if layout == "thumbs":
        out = _unpaired(rows)
    elif layout in ("plain", "conversational"):
        out = [trl_row(row, chat=layout == "conversational") for row in rows]
    else:
        raise ValueError(f"unknown layout {layout!r}: plain, conversational or thumbs")
    path = Path(path)
    if path.suffix.lower() != ".csv":
        return save_jsonl(out, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".csv.part")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(out[0]))
        writer.writeheader()
        writer.writerows(
            {
                name: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
                for name, value in row.items()
            }
            for row in out
        )
    partial.replace(path)
    return path


def _unpaired(rows: Sequence[Row]) -> list[Row]:
    """Each response of each prompt once, with its thumb."""
    seen = set()
    out = []
    for row in rows:
        for side, label in (("chosen", True), ("rejected", False)):
            entry = {"prompt": as_text(row["prompt"]), "completion": row[side], "label": label}
            key = tuple(entry.values())
            if key not in seen:
                seen.add(key)
                out.append(entry)
    return out
