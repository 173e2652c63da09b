"""What a cell said: its lines, its pictures, its error, whatever form the outputs have."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from nbformat import NotebookNode

from .numbers import is_numeric

_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")
_OBJECT = re.compile(r"<[\w. ]+(object|Styler|Axes|with \d+ Axes)>")
_UNSHOWN = "✗ This run does not show it: "  # how `claim` begins what does not hold


@dataclass(frozen=True)
class Line:
    """A line of text; `printed` by the cell, or displayed as a part of a table or page."""

    text: str
    printed: bool

    @property
    def measured(self) -> bool:
        """Whether it is a row of a table that holds mostly numbers, and not somebody's words."""
        cells = self.text.split(" | ")
        return len(cells) > 1 and 2 * sum(map(is_numeric, cells)) >= len(cells)


@dataclass
class Said:
    lines: list[Line] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    error: str = ""  # name and message, of whatever is no claim
    stopped: bool = False  # by an error or by a claim: what would come after it was not said


def said(cell: NotebookNode) -> Said:
    """Read the outputs of a code cell."""
    result = Said()
    for output in cell.outputs:
        if output.output_type == "stream":
            result.lines += [Line(line, True) for line in output.text.splitlines() if line.strip()]
        elif output.output_type == "error":
            _read_error(output, result)
        else:
            _read_data(output.data, result)
    return result


def _read_error(output: NotebookNode, result: Said) -> None:
    """An error; a claim that does not hold is one on the course's own run, and a ✗ elsewhere."""
    message = f"{output.ename}: {output.evalue}"
    claim = f"AssertionError: {_UNSHOWN.removeprefix('✗ ')}"
    result.stopped = True
    if message.startswith(claim):
        result.lines.append(Line(f"{_UNSHOWN}{message.removeprefix(claim)}", True))
    else:
        result.error = message


def _read_data(data: NotebookNode, result: Said) -> None:
    """The richest form in which something is displayed: page, then Markdown, then text."""
    if "image/png" in data:
        result.pictures.append(base64.b64decode(data["image/png"]))
    elif "text/html" in data:
        html = data["text/html"]
        result.pictures += [base64.b64decode(match[1]) for match in _PNG.finditer(html)]
        result.lines += [Line(text, False) for text in lines_of_html(html)]
    elif "text/markdown" in data:
        result.lines += [Line(text, False) for text in lines_of_markdown(data["text/markdown"])]
    elif not _OBJECT.fullmatch(text := data.get("text/plain", "")):
        result.lines += [Line(line, False) for line in text.splitlines() if line.strip()]


def lines_of_html(html: str) -> list[str]:
    """The text of a page or table, a line for each row or block."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    reader.end_line()
    return reader.lines


def lines_of_markdown(text: str) -> list[str]:
    """Lines of text, those of tables as `row_of_table` writes them."""
    lines, head = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            head = []
            lines += [line] if line.strip() else []
        elif not re.fullmatch(r"[|:\- ]+", line):
            lines.append(row_of_table(cells, head))
            head = head or cells
    return lines


def row_of_table(cells: list[str], head: list[str]) -> str:
    """The cells in a line; columns that hold an interval or an error are written as such.

    They are known by their name: "low" and "high" or "from" and "to", "... interval", "... se".
    """
    names = [name.replace("_", " ").split() for name in head]
    last = [name[-1].lower() if name else "" for name in names] + [""] * len(cells)
    parts: list[str] = []
    for index, cell in enumerate(cells):
        if last[index] in ("low", "from") and last[index + 1] in ("high", "to"):
            parts.append(f"[{cell}, {cells[index + 1]}]" if index + 1 < len(cells) else cell)
        elif index and last[index] in ("high", "to") and last[index - 1] in ("low", "from"):
            continue
        elif last[index] == "interval":
            parts.append(f"[{cell}]")
        elif index and last[index] == "se" and names[index][:-1] == names[index - 1]:
            parts[-1] += f" ± {cell}"
        else:
            parts.append(cell)
    return " | ".join(parts)


class _Reader(HTMLParser):
    """Gathers text by rows of tables and by blocks."""

    BLOCKS = frozenset("p div li br h1 h2 h3 h4 pre details summary table caption ul ol".split())
    UNREAD = frozenset(("style", "script"))

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._text = ""
        self._cells: list[str] | None = None  # of the row that is being read
        self._head: list[str] = []
        self._unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unread += tag in self.UNREAD
        if tag == "table":
            self._head = []
        if tag == "tr":
            self.end_line()
            self._cells = []
        elif tag in self.BLOCKS:
            self.end_line()

    def handle_endtag(self, tag: str) -> None:
        self._unread -= tag in self.UNREAD
        if tag in ("td", "th") and self._cells is not None:
            self._cells.append(" ".join(self._text.split()))
            self._text = ""
        elif tag == "tr" and self._cells is not None:
            cells, self._cells = self._cells, None
            self.lines.append(row_of_table(cells, self._head))
            self._head = self._head or cells
        elif tag in self.BLOCKS:
            self.end_line()

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self._text += data

    def end_line(self) -> None:
        """End a line; within a cell of a table, whatever blocks it has are one line."""
        if self._cells is not None:
            self._text += " "
        elif self._text.strip():
            self.lines.append(" ".join(self._text.split()))
            self._text = ""
        else:
            self._text = ""
