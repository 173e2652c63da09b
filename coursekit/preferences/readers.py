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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby, islice, product
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..common.files import Counted, json_value, lines_of, rows_of, shorten
from ..common.progress import progress, told
from ..common.prompts import Message, Prompt, as_messages, as_text, prompt_key
from .similar import normalised
from .triples import (
    COLUMNS,
    check_count,
    check_messages,
    check_prompt,
    check_triple,
    check_triples,
    count_path,
    save_triples,
    shown,
    trl_row,
)

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
Advance = Callable[..., None]
# How many there are, of what; and what gives the rows one by one, telling how far it has come.
Source = tuple[int, str, Callable[[Advance], Iterator[Any]]]
BATCH = 1000  # rows, of formats that hold columns

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
        total, unit, rows = _saved_dataset(path)
    elif path.is_file():
        total, unit, rows = _file(path)
    elif _looks_like_hub(str(source)):
        total, unit, rows = _from_hub(str(source), split, revision)
    else:
        raise FileNotFoundError(f"no file {path}: make triples first, or correct the path")
    with progress(f"reading {path.name}", total, unit, after=2) as advance:
        rows = Counted(rows(advance))
        try:
            triples = parse_rows(rows, str(source), allow_empty=allow_empty, skip_bad=skip_bad)
        except ValueError:
            # Of a file that was cut, the last row says something else.
            if path.is_file() and not rows.broken:
                check_count(path, rows.count_all())
            raise
        if path.is_file():
            check_count(path, rows.count_all())
    return triples


def parse_rows(
    rows: Iterable[Any],
    source: str = "the rows",
    *,
    allow_empty: bool = False,
    skip_bad: bool = False,
) -> list[Row]:
    """Triples from rows of any of the layouts above; all must have the layout of the first.

    Raises ValueError as `load_triples` does.
    """
    reader, number = None, 0
    read, bad = [], []
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        try:
            if isinstance(row, ValueError):  # what the file's own reader found
                raise row
            if not isinstance(row, dict):
                raise ValueError(
                    f"{where} is {type(row).__name__}, not an object with columns: write each row "
                    f"as one of {LAYOUTS}"
                )
            reader = reader or _layout_of(row, where)
            parsed = reader(row, where)
            if reader is not _thumb:
                check_triple(parsed, where, allow_empty)
            _check_answers(parsed, where)
            read.append(parsed)
        except ValueError as error:
            if not skip_bad:
                raise ValueError(f"{error}; or leave such rows out: skip_bad=True") from error
            bad.append(str(error))
    if not number:
        raise ValueError(f"{source}: no rows, so there is nothing to train on")
    if not read:
        raise ValueError(f"{source}: none of the {number} rows can be read. The first: {bad[0]}")
    if bad:
        print(f"{len(bad)} of {number} rows left out. The first: {bad[0]}")
    return check_triples(_pair_thumbs(read, source), source, True) if reader is _thumb else read


def _layout_of(row: Row, where: str) -> Callable[[Row, str], Row]:
    """The reader for rows with the columns of `row`."""
    paired = {"chosen", "rejected"} <= row.keys()
    if {"prompt", "completion", "label"} <= row.keys() and not paired:
        return _thumb
    if not paired:
        missing = [name for name in ("chosen", "rejected") if name not in row]
        raise ValueError(
            f"{where} has no column {missing[0]!r} (it has: {_names(row)}): rename "
            f"its columns to one of {LAYOUTS}"
        )
    if isinstance(row["chosen"], list):
        return _conversation
    if _are_transcripts([row["chosen"], row["rejected"]], row.get("prompt")):
        return _transcript
    if "prompt" in row:
        return _plain
    if "instruction" in row:
        return _instruction
    if isinstance(row["chosen"], str) and _TURN.match(row["chosen"]):
        return _transcript
    raise ValueError(
        f"{where} has no column 'prompt' (it has: {_names(row)}), and 'chosen' is no "
        f'transcript that begins with "Human:": rename its columns to one of {LAYOUTS}'
    )


def _names(row: Row) -> str:
    return shorten(", ".join(map(str, row)), 300)


# The layouts. Each takes a row and says where it stands, for errors.


def _plain(row: Row, where: str) -> Row:
    """TRL's plain rows are triples already; a mixture with other layouts is an error."""
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
    it repeats a turn of the user and gives way.
    """
    ends: dict[str, list[Row]] = {}
    for column in ("chosen", "rejected"):
        messages = row.get(column)
        if not isinstance(messages, list):
            raise ValueError(
                f"{where}, column {column!r} is {type(messages).__name__} where row 1 has a list "
                'of messages: write [{"role": "assistant", "content": "text"}]'
            )
        ends[column] = _answered(messages, where, column)
    before = {column: messages[:-1] for column, messages in ends.items()}
    if before["chosen"] != before["rejected"]:
        raise ValueError(
            f"{where}, column 'rejected' answers another conversation than 'chosen': all turns "
            "but the last must be the same; drop the row"
        )
    shared = _joined(row.get("prompt"), before["chosen"], where, "chosen")
    if not shared:
        raise ValueError(
            f"{where} has no prompt: neither a column 'prompt' nor turns before the answer in "
            "'chosen'; add the user's turn"
        )
    return {
        **{name: value for name, value in row.items() if name != "messages"},
        "prompt": _as_prompt(shared),
        **{column: messages[-1]["content"] for column, messages in ends.items()},
    }


def _answered(messages: list[Row], where: str, column: str) -> list[Message]:
    """`messages`, checked to end with the assistant's answer, without what else their turns say."""
    check_messages(messages, where, column)
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            f"{where}, column {column!r} ends with a turn of {messages[-1]['role']!r}: its "
            "last message must be the assistant's answer"
        )
    return _bare(messages)


def _bare(messages: list[Row]) -> list[Message]:
    return [{key: turn[key] for key in ("role", "content")} for turn in messages]


def _joined(prompt: Any, turns: list[Message], where: str, column: str) -> list[Message]:
    """The conversation before the answer: what `prompt` says and the `turns` before it in `column`.

    The turns repeat the prompt, or go on from it with a turn of the assistant, or there are none.
    """
    if prompt is None or prompt == "":
        return turns
    if isinstance(prompt, list):
        check_messages(prompt, where, "prompt")
    elif not isinstance(prompt, str):
        raise ValueError(
            f"{where}, column 'prompt' is {shown(prompt)}: it should be a text or messages"
        )
    if _repeats(turns, prompt):
        return turns
    if turns and turns[0]["role"] != "assistant":
        raise ValueError(
            f"{where}, column 'prompt' is not the conversation that {column!r} answers: write the "
            "same in both, or leave the column out"
        )
    return _bare(as_messages(prompt)) + turns


def _repeats(turns: list[Message], prompt: Any) -> bool:
    """Whether a conversation has `prompt` in it: its messages, or as a text a turn of the user."""
    if isinstance(prompt, list):
        messages = _bare(prompt)
        return messages in (turns[: len(messages)], turns[-len(messages) :])
    given = f" {normalised(str(prompt))} "
    asked = [f" {normalised(turn['content'])} " for turn in turns if turn["role"] == "user"]
    return any(one in given or given in one for one in asked)


def _as_prompt(turns: list[Message]) -> Prompt:
    """A single turn of the user is a text."""
    return turns[0]["content"] if [turn["role"] for turn in turns] == ["user"] else turns


_TURN = re.compile(r"\s*(Human|Assistant):")
_DIALOGUE = re.compile(r"\s*Human:.*\n\n\s*Assistant:", re.DOTALL)
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _are_transcripts(texts: Sequence[Any], prompt: Any) -> bool:
    """Whether the texts are whole dialogues, from the user's first turn on.

    One that `prompt` asked to be written has no blank line before it, and repeats no prompt.
    """
    if not all(isinstance(text, str) and _DIALOGUE.match(text) for text in texts):
        return False
    if not prompt or all(text.startswith("\n\n") for text in texts):
        return True
    return isinstance(prompt, str) and _repeats(_turns(texts[0], "", ""), prompt)


def _check_answers(row: Row, where: str) -> None:
    """Raise ValueError if the responses of what was read are whole transcripts."""
    columns = ("chosen", "rejected") if "chosen" in row else ("completion",)
    if _are_transcripts([row[column] for column in columns], row["prompt"]):
        raise ValueError(
            f"{where}, column {columns[0]!r} is a transcript of the whole dialogue where the "
            "answer alone should be: leave the turns before it to the prompt"
        )


def _transcript(row: Row, where: str) -> Row:
    """hh-rlhf: two transcripts of one dialogue that differ in the last answer."""
    parsed = {column: _turns(row.get(column), where, column) for column in ("chosen", "rejected")}
    return _conversation({**row, **parsed}, where)


def _turns(text: Any, where: str, column: str) -> list[Message]:
    """The messages of a transcript, divided at the lines that begin with a speaker.

    A speaker who goes on with another such line is still in the same turn.
    """
    if not isinstance(text, str) or not _TURN.match(text):
        raise ValueError(
            f'{where}, column {column!r} is no transcript: it should begin with "\\n\\nHuman: "'
        )
    parts = re.split(r"(?:^|\n\n)\s*(Human|Assistant):", text)[1:]
    said = zip(parts[::2], parts[1::2], strict=True)
    return [
        {"role": _ROLES[speaker], "content": "\n\n".join(part.strip() for _, part in turn).strip()}
        for speaker, turn in groupby(said, key=itemgetter(0))
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
                f"{where} has no column {column!r} (it has: {_names(row)}): rows with thumbs "
                "need prompt, completion, label"
            )
    label = row["label"].strip().lower() if isinstance(row["label"], str) else row["label"]
    if not isinstance(label, (str, bool, int)) or label not in _THUMBS:
        raise ValueError(
            f"{where}, column 'label' is {shown(row['label'])}: it should be true for a thumb up, "
            "false for a thumb down"
        )
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(completion, list):
        messages = _answered(completion, where, "completion")
        prompt = _joined(prompt, messages[:-1], where, "completion")
        completion = messages[-1]["content"]
    if not isinstance(completion, str) or not completion.strip():
        raise ValueError(
            f"{where}, column 'completion' is {shown(completion)}: it should be a text that is not "
            "empty; drop the row or mend it"
        )
    check_prompt(prompt, where)
    prompt = _as_prompt(_bare(prompt)) if isinstance(prompt, list) else prompt
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


def _file(path: Path) -> Source:
    """Its rows, and in place of lines that are no rows the errors that say why."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    if not any(line.strip() for line in lines_of(path)):
        raise ValueError(f"{path} is empty: it should hold one triple a line")
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(partial(file.read, 2**20), b""))
    if suffix in (".csv", ".tsv"):
        return lines, "lines", partial(_csv, path, "\t" if suffix == ".tsv" else ",")
    return lines, "lines", partial(_json, path, lines)


def _json(path: Path, lines: int, advance: Advance) -> Iterator[Any]:
    rows = rows_of(path)
    first = list(islice(rows, 2))
    if len(first) == 1 and isinstance(first[0], dict) and _holds_rows(first[0]):
        raise ValueError(
            f"{path} holds one object ({_names(first[0])}), not rows: save the list of rows alone"
        )
    read = Counted(chain(first, rows))
    yield from told(read, advance)
    advance(max(0, lines - read.n))  # blank ones, and those of a list that is written on several


def _holds_rows(found: Row) -> bool:
    """Whether an object is no row, but has rows under some name."""
    lists = [value for value in found.values() if isinstance(value, list)]
    return not found.keys() & {*COLUMNS, "completion"} and any(lists)


def _parquet(path: Path) -> Source:
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # whatever a damaged file makes of the library
        raise _unreadable(path, "a Parquet file", error) from error
    _check_names(file.schema_arrow.names, path)

    def rows(advance: Advance) -> Iterator[Row]:
        try:
            for batch in file.iter_batches(BATCH):
                yield from batch.to_pylist()
                advance(len(batch))
        except Exception as error:
            raise _unreadable(path, "a Parquet file", error) from error

    return file.metadata.num_rows, "rows", rows


def _csv(path: Path, delimiter: str, advance: Advance) -> Iterator[Any]:
    """Rows by the names in the first line. Cells that hold messages as JSON are read as such."""
    csv.field_size_limit(sys.maxsize)
    lines = csv.reader(lines_of(path, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    number = read = 0
    try:
        for cells in filter(None, lines):
            advance(lines.line_num - read)
            read = lines.line_num
            if names:
                number += 1
                yield _csv_row(names, cells, f"{path}, row {number}")
            else:
                names = list(map(sys.intern, cells))
                _check_names(names, path)
        advance(lines.line_num - read)
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {lines.line_num}, is no table ({error}): put each text with commas, "
            "quotes or line breaks in double quotes, quotes inside doubled"
        ) from error


def _csv_row(names: Sequence[str], cells: Sequence[str], where: str) -> Row | ValueError:
    if len(cells) != len(names):
        return ValueError(
            f"{where} has {len(cells)} cells, the first line names {len(names)} columns "
            f"({shorten(', '.join(names), 300)}): put texts with commas or line breaks in double "
            "quotes"
        )
    row = {}
    for name, value in zip(names, cells, strict=True):
        if _MESSAGES.match(value):
            place = f"{where}, column {shorten(name, 60)!r}, which looks like messages,"
            value = json_value(value, place, "write it with json.dumps and a CSV library")
            if isinstance(value, ValueError):
                return value
        row[name] = value
    return row


# As json.dumps writes them, or, not to be read as a text, as Python prints them.
_MESSAGES = re.compile(r"""\[\{(?:"|'(?:role|content)':)""")


def _check_names(names: Sequence[str], path: Path) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(
                f"{path} has {times} columns with the name {shorten(name, 60)!r}, and only one of "
                "them can be meant: rename or delete the others"
            )


def _saved_dataset(folder: Path) -> Source:
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(folder))
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} is a folder but not one that `datasets` saved: name the file in it"
        ) from error
    except Exception as error:
        raise _unreadable(folder, "a folder that `datasets` saved", error) from error
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"{folder} holds several splits ({', '.join(dataset)}): name the folder of one"
        )

    def rows(advance: Advance) -> Iterator[Row]:
        try:
            dataset.data.validate(full=True)  # else a damaged length is read past the file: a crash
            yield from _rows_of_dataset(dataset, advance)
        except Exception as error:
            raise _unreadable(folder, "a folder that `datasets` saved", error) from error

    return len(dataset), "rows", rows


def _rows_of_dataset(dataset: Dataset, advance: Advance) -> Iterator[Row]:
    for batch in dataset.iter(BATCH):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))
            advance()


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    said = shorten(str(error), 200)
    return ValueError(
        f"{path} cannot be read as {what} ({type(error).__name__}: {said}): it is damaged or half "
        "written; save it again, or copy it anew from where it came"
    )


def _looks_like_hub(source: str) -> bool:
    """`owner/name` without the ending of a file."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", source)) and not re.search(
        r"\.(jsonl?|csv|tsv|parquet)$", source
    )


def _from_hub(name: str, split: str, revision: str | None) -> Source:
    from datasets import load_dataset

    if revision is None:
        raise ValueError(
            f"{name} is no file here, so it would come from the hub, and a dataset there can "
            "change: pass revision= with a commit of its page (Files and versions, History)"
        )
    try:
        dataset = load_dataset(name, split=split, revision=revision)
    except (ConnectionError, OSError) as error:
        raise ConnectionError(
            f"cannot load {name} from the hub ({type(error).__name__}): without a network, "
            "download it where there is one and pass the file's path"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{name}, split {split!r}, revision {revision!r}: {error}. See its page for what it has"
        ) from error
    return len(dataset), "rows", partial(_rows_of_dataset, dataset)


# Writers.


def write_triples(
    triples: Iterable[Row],
    path: str | Path,
    layout: Literal["plain", "conversational", "thumbs"] = "plain",
) -> Path:
    """Write triples in a layout that TRL's trainers read: JSON Lines, or CSV by the path's ending.

    plain: texts, for models without a chat template; conversational: messages, which get the
    template; thumbs: `prompt`, `completion`, `label`, two rows a triple, for `KTOTrainer`. Beside
    the file stands how many rows it has (`save_triples`).

    Raises ValueError for another layout, or for rows that are no triples.
    """
    rows = check_triples(list(triples))
    if layout not in ("plain", "conversational", "thumbs"):
        raise ValueError(f"unknown layout {layout!r}: plain, conversational or thumbs")
    path, chat = Path(path), layout == "conversational"
    with progress(f"writing {path.name}", len(rows), "rows", after=2) as advance:
        given = told(rows, advance)
        out = _unpaired(given) if layout == "thumbs" else (trl_row(row, chat) for row in given)
        return _save_csv(out, path) if path.suffix.lower() == ".csv" else save_triples(out, path)


def _save_csv(out: Iterator[Row], path: Path) -> Path:
    """Rows as a table, with their number beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".csv.part")
    with part.open("w", encoding="utf-8", newline="") as file:
        first = next(out)
        writer = csv.DictWriter(file, fieldnames=list(first))
        writer.writeheader()
        out = Counted(chain([first], out))
        writer.writerows(
            {
                name: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
                for name, value in row.items()
            }
            for row in out
        )
    count_path(path).unlink(missing_ok=True)
    part.replace(path)
    count_path(path).write_text(f"{out.n}\n", encoding="utf-8")
    return path


def _unpaired(rows: Iterable[Row]) -> Iterator[Row]:
    """Each response of each prompt once, with its thumb."""
    seen = set()
    for row in rows:
        for side, label in (("chosen", True), ("rejected", False)):
            entry = {"prompt": as_text(row["prompt"]), "completion": row[side], "label": label}
            key = tuple(entry.values())
            if key not in seen:
                seen.add(key)
                yield entry
