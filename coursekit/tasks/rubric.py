"""Rubrics as people write them: a markdown file with a clause under each second-level heading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# An ATX heading of level 1 or 2 (CommonMark 0.31, section 4.2).
_HEADING = re.compile(r" {0,3}(#{1,2})[ \t]+(?!#+[ \t]*$)(\S.*?)(?:[ \t]+#+)?[ \t]*")


@dataclass(frozen=True)
class Rubric:
    """A rubric: its title, what it is about, its clauses by name, and the whole text."""

    title: str
    about: str
    clauses: dict[str, str]
    text: str


def load_rubric(path: str | Path) -> Rubric:
    """Read a rubric: `# title`, what it is about, then `## clause` with its text, several times.

    The file is UTF-8, with a byte order mark or without. Inside a code fence nothing is a heading.

    Raises FileNotFoundError, or ValueError that says what the file lacks, in which line, and what
    to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no rubric at {path}: name a markdown file (COURSE_RUBRIC), or none for the task's"
        )
    lines = _decoded(path).split("\n")
    title, *clauses = _sections(lines, path.name)
    if not clauses:
        raise ValueError(f"{path.name} has no clause: write each under a heading `## name`")
    first_line: dict[str, int] = {}
    for line, name, text in clauses:
        where = f"{path.name}, line {line}: the clause {name!r}"
        if not text:
            raise ValueError(f"{where} says nothing: write below it what earns 1")
        if name in first_line:
            raise ValueError(f"{where} is there twice, first in line {first_line[name]}: rename it")
        first_line[name] = line
    whole = "\n".join(lines).strip()
    return Rubric(*title[1:], {name: text for _, name, text in clauses}, whole)


def _sections(lines: Sequence[str], name: str) -> list[tuple[int, str, str]]:
    """Line, heading and text of the title and of each clause."""
    found: list[tuple[int, str, list[str]]] = []
    for number, line, is_text in _with_fences(lines, name):
        heading = None if is_text else _HEADING.fullmatch(line)
        if heading and heading[1] == ("##" if found else "#"):
            found.append((number, heading[2], []))
        elif found:
            found[-1][2].append(line)
        elif line.strip():
            raise ValueError(
                f"{name}, line {number}: the rubric has no title: its first line must be `# title`,"
                f" and is {line.strip()!r:.60}"
            )
    if not found:
        raise ValueError(f"{name} is empty: a rubric has no title without a line `# title`")
    return [(line, heading, "\n".join(text).strip()) for line, heading, text in found]


def _decoded(path: Path) -> str:
    """The file's text, with line ends as `\\n`."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name}, line {line}: the byte {data[error.start]:#04x} is no UTF-8 (Latin-1, "
            "Windows-1252 or UTF-16?): save the file as UTF-8 in your editor"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _with_fences(lines: Sequence[str], name: str) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number, and whether it belongs to a code fence, where all is text.

    A fence ends with a line of the same sign, at least as long (CommonMark 0.31, section 4.5).
    """
    fence, begun = "", 0
    for number, line in enumerate(lines, 1):
        if not fence:
            opening = re.match(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})", line)
            fence, begun = (opening[1], number) if opening else ("", 0)
            yield number, line, bool(opening)
        else:
            yield number, line, True
            closing = re.fullmatch(r" {0,3}(`{3,}|~{3,})[ \t]*", line)
            if closing and closing[1][0] == fence[0] and len(closing[1]) >= len(fence):
                fence = ""
    if fence:
        raise ValueError(
            f"{name}, line {begun}: a code fence that does not end, so no heading after it counts: "
            f"close it with a line {fence}"
        )
