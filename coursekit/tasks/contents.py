"""The files of a task's folder, read as they are: each line that cannot be used is a `Problem`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ..common.files import json_value, read_text, shorten
from ..common.prompts import Prompt
from .metrics_file import MetricFunction, read_functions
from .problems import Problem
from .settings import FILE as SETTINGS
from .settings import Settings, line_of, read_settings, spoken

PROMPTS = ("prompts.jsonl", "prompts.csv", "prompts.txt")
RUBRIC, METRICS = "rubric.md", "metrics.py"
DEMONSTRATIONS, REFERENCES, PROBES = (
    "demonstrations.jsonl",
    "references.jsonl",
    "probes.jsonl",
)
FILES = (SETTINGS, *PROMPTS, RUBRIC, DEMONSTRATIONS, REFERENCES, PROBES, METRICS)
_ROLES = ("system", "user", "assistant")
_UTF8 = 'save it as UTF-8 in your editor; of spreadsheets choose "CSV UTF-8"'


@dataclass(frozen=True)
class Entry:
    """A line of one of the files: its prompt, what else it holds, and where it stands."""

    prompt: Prompt
    rest: dict[str, Any]
    file: Path
    line: int

    @property
    def key(self) -> str:
        return prompt_key(self.prompt)


def prompt_key(prompt: Prompt) -> str:
    """What makes two prompts the same: the words and turns, white space around them apart."""
    if isinstance(prompt, list) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]  # asked as a text is
    if isinstance(prompt, str):
        return prompt.strip()
    return json.dumps([[turn["role"], turn["content"].strip()] for turn in prompt])


@dataclass
class Contents:
    """A folder's files: `texts` by name, and what is in them. problems: all that is wrong."""

    folder: Path
    texts: dict[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    prompts: list[Entry] = field(default_factory=list)
    demonstrations: list[Entry] = field(default_factory=list)
    references: list[Entry] = field(default_factory=list)
    probes: list[Entry] = field(default_factory=list)
    functions: list[MetricFunction] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, file: str, line: int | None, what: str, remedy: str, severe: bool = True) -> None:
        self.problems.append(Problem(self.folder / file, line, what, remedy, severe))

    def wrong(self, file: str) -> bool:
        """Whether something is wrong with that file."""
        return any(problem.file.name == file for problem in self.problems)


def read_contents(folder: Path) -> Contents:
    """All that is in the folder. Never raises for what is wrong with it: see `Contents.problems`.

    A prompt that stands in a file twice is read once. One that is a demonstration too is no prompt.
    """
    contents = Contents(folder)
    present = [name for name in FILES if (folder / name).is_file()]
    if not present:
        what = "a folder without a task's files" if folder.is_dir() else "no such folder"
        contents.problems.append(Problem(folder, None, what, _make(folder)))
        return contents
    contents.texts = {name: _text(folder / name, contents.problems) for name in present}
    _check_present(contents, present)
    if SETTINGS in present and not contents.wrong(SETTINGS):
        text, path = contents.texts[SETTINGS], folder / SETTINGS
        contents.settings = read_settings(text, path, contents.problems)
    _read_entries(contents)
    if METRICS in present:
        contents.functions = read_functions(
            contents.texts[METRICS], folder / METRICS, contents.problems
        )
    _check_metric_names(contents)
    return contents


def _make(folder: Path) -> str:
    if folder.is_dir() and any(folder.iterdir()):
        return f"name the folder of a task, or make one: python -m coursekit new {folder}_task"
    return f"correct the path, or write a task there: python -m coursekit new {folder}"


def _text(path: Path, problems: list[Problem]) -> str:
    """The file's text with line ends as `\\n`; empty if it cannot be read."""
    try:
        return read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    except ValueError as error:
        cause = error.__cause__
        if isinstance(cause, UnicodeDecodeError):
            line = cause.object.count(b"\n", 0, cause.start) + 1
            what = f"not text in UTF-8 (byte {cause.object[cause.start]:#04x})"
            problems.append(Problem(path, line, what, _UTF8))
        else:
            what, _, remedy = str(error).removeprefix(f"{path} ").partition(": ")
            problems.append(Problem(path, None, what, remedy))
        return ""


def _check_present(contents: Contents, present: Sequence[str]) -> None:
    for name, what in ((SETTINGS, "title and description"), (RUBRIC, "what a good response is")):
        if name not in present:
            remedy = f"write {what} there; python -m coursekit new makes an example to copy"
            contents.add(name, None, "no such file", remedy)
    prompts = [name for name in PROMPTS if name in present]
    if not prompts:
        remedy = "write one prompt a line; or .csv with a column `prompt`, or .txt"
        contents.add(PROMPTS[0], None, "no such file", remedy)
    elif len(prompts) > 1:
        remedy = "keep one of them and take the others out of the folder"
        contents.add(prompts[1], None, f"prompts stand in {' and '.join(prompts)}", remedy)


def _read_entries(contents: Contents) -> None:
    known = [_entries(contents, name, (wanted,)) for name, wanted in _WANTED.items()]
    contents.demonstrations, contents.references, contents.probes = known
    prompts = next((name for name in PROMPTS if name in contents.texts), None)
    if prompts:
        found = _entries(contents, prompts)
        contents.prompts = _without(contents, found, contents.demonstrations)
        if not found and not contents.wrong(prompts):
            contents.add(prompts, None, "no prompt in it", "write one prompt a line")


# What a line holds beside the prompt: a text by this name.
_WANTED = {DEMONSTRATIONS: "response", REFERENCES: "reference", PROBES: "response"}


def _entries(contents: Contents, name: str, wanted: Sequence[str] = ()) -> list[Entry]:
    """The entries of a file, none where it is missing: each a prompt and the texts `wanted`."""
    lines = _LINES[Path(name).suffix](contents.texts.get(name, ""))
    return _once(contents, name, _parsed(contents, name, lines, wanted))


def _parsed(
    contents: Contents, name: str, lines: Iterator[tuple[int, Any]], wanted: Sequence[str]
) -> Iterator[Entry]:
    for line, row in lines:
        wrong = _wrong_row(row, wanted, empty=name == PROBES and _is_text_probe(row))
        if name == PROBES and wrong is None:
            wrong = _wrong_probe(row)
        if wrong:
            contents.add(name, line, *wrong)
            continue
        rest = {key: value for key, value in row.items() if key != "prompt"}
        yield Entry(row["prompt"], rest, contents.folder / name, line)


def _is_text_probe(row: Any) -> bool:
    return isinstance(row, dict) and row.get("kind") == "text"


def _once(contents: Contents, name: str, entries: Iterator[Entry]) -> list[Entry]:
    """The first entry for each prompt; texts that probe how well they are predicted may repeat."""
    first: dict[str, Entry] = {}
    for entry in entries:
        key = f"{entry.key}\n{entry.rest['response']}" if name == PROBES else entry.key
        if key in first:
            what = f"the prompt of line {first[key].line} again ({head(entry.prompt)})"
            remedy = "take one of them out; the first is used"
            contents.add(name, entry.line, what, remedy, severe=False)
        else:
            first[key] = entry
    return list(first.values())


def _without(
    contents: Contents, prompts: Sequence[Entry], demonstrations: Sequence[Entry]
) -> list[Entry]:
    """The prompts that are no demonstrations."""
    taken = {entry.key: entry for entry in demonstrations}
    for entry in prompts:
        if entry.key in taken:
            line = taken[entry.key].line
            what = f"the prompt of {DEMONSTRATIONS}, line {line} ({head(entry.prompt)})"
            remedy = "take one of them out; it is a demonstration and evaluates nothing"
            contents.add(entry.file.name, entry.line, what, remedy, severe=False)
    return [entry for entry in prompts if entry.key not in taken]


def head(prompt: Prompt) -> str:
    """The beginning of a prompt, for messages: of a conversation, of its last turn."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return repr(shorten(text.strip(), 60))


# The formats: each gives line and row, or in place of a row the problem's words and remedy.

Wrong = tuple[str, str]


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, json_value(line, "the line", "one object a line, double quotes")


def _text_lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, {"prompt": line.strip()}


def _csv_lines(text: str) -> Iterator[tuple[int, Any]]:
    """Rows by the names in the first line, with the line that each begins in."""
    csv.field_size_limit(2**31 - 1)
    lines = csv.reader(StringIO(text, newline=""), strict=True)
    names, begun = None, 1
    try:
        for cells in lines:
            line, begun = begun, lines.line_num + 1
            if cells and names is None:
                names = [name.strip() for name in cells]
                if names.count("prompt") != 1:
                    yield (
                        line,
                        ValueError(
                            f"{names.count('prompt')} columns named 'prompt' (there are: "
                            f"{shorten(', '.join(names), 100)}): name one in the first line, and "
                            "separate columns by commas"
                        ),
                    )
                    return
            elif any(cell.strip() for cell in cells):
                yield line, _csv_row(names, cells)
    except csv.Error as error:
        yield begun, ValueError(f"no table ({error}): {_QUOTES}")


_QUOTES = "put each text with commas, quotes or line breaks in double quotes, quotes doubled"


def _csv_row(names: Sequence[str], cells: Sequence[str]) -> dict[str, str] | ValueError:
    if len(names) != len(cells):
        return ValueError(f"{len(cells)} cells, and {len(names)} columns have names: {_QUOTES}")
    return dict(zip(names, cells, strict=True))


_LINES: dict[str, Callable[[str], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv_lines,
    ".txt": _text_lines,
}


# What a row must be. Each gives what is wrong and the remedy, or None.


def _wrong_row(row: Any, wanted: Sequence[str], empty: bool = False) -> Wrong | None:
    if isinstance(row, ValueError):
        what, _, remedy = str(row).rpartition(": ")
        return what, remedy
    example = "".join(f', "{name}": "..."' for name in wanted)
    if not isinstance(row, dict):
        return f"{row!r:.60} is no object", f'write {{"prompt": "..."{example}}}'
    for name in ("prompt", *wanted):
        if name not in row:
            return f"no {name!r} in it", f'write {{"prompt": "..."{example}}}'
    if isinstance(row["prompt"], list):
        wrong = _wrong_messages(row["prompt"])
        if wrong:
            return wrong
    for name in ("prompt", *wanted):
        value, may_be_empty = row[name], empty and name == "prompt"
        if name == "prompt" and isinstance(value, list):
            continue
        if not isinstance(value, str) or not (value.strip() or may_be_empty):
            return f"{name!r} is {value!r:.60}", "write a text that is not empty"
    return None


def _wrong_messages(messages: Sequence[Any]) -> Wrong | None:
    remedy = 'write each turn as {"role": "user", "content": "..."}, the last one the user\'s'
    for turn in messages:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
            return f"'prompt' has the turn {turn!r:.60}", remedy
        if turn.get("role") not in _ROLES:
            return f"'prompt' has the role {turn.get('role')!r:.60}", f"write one of {_ROLES}"
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        return "'prompt' is a conversation that does not end with words of the user", remedy
    return None


def _wrong_probe(row: dict[str, Any]) -> Wrong | None:
    if not isinstance(row["prompt"], str):
        return "'prompt' is a conversation", "write a text: probes are one question"
    if row.get("kind", "question") not in ("question", "text"):
        return f"'kind' is {row['kind']!r:.60}", 'write "question" or "text", or leave it out'
    return None


def _check_metric_names(contents: Contents) -> None:
    """Whether `task.toml` speaks of metrics that are there, and truth has bounds and direction."""
    known = [spoken(function.name) for function in contents.functions]
    known += ["length"] if "length" not in known else []
    if contents.wrong(METRICS) or contents.wrong(SETTINGS):
        return  # who cannot read the functions cannot say that one is missing
    text, said = contents.texts.get(SETTINGS, ""), contents.settings
    for name in said.truth:
        if name not in known:
            what = f"truth names {name!r}, which {METRICS} does not define"
            remedy = f"define it there or take it out; metrics are {', '.join(known)}"
            contents.add(SETTINGS, line_of(text, "truth"), what, remedy)
            continue
        given = said.metrics.get(name)
        bounded = given.bounds is not None and given.better is not None if given else True
        if not bounded or (name == "length" and given is None):
            what = f"the metric {name!r} tells what is right, without bounds or a better"
            remedy = 'give it bounds = [low, high] and better = "higher" or "lower"'
            contents.add(SETTINGS, line_of(text, "truth"), what, remedy)
    for name in said.metrics:
        if name not in known:
            line = line_of(text, "metrics", name) or line_of(
                text, "metrics", name.replace(" ", "_")
            )
            what = f"[metrics] names {name!r}, which {METRICS} does not define"
            remedy = f"define it there or take it out; metrics are {', '.join(known)}"
            contents.add(SETTINGS, line, what, remedy)
