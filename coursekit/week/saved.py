"""What is saved of an executed notebook: the same, whenever and wherever it ran.

Whoever runs a cell sees how long it took, and where in memory an object lies. Saved, that would
make every run another file; so it is left out here, in one place, and nowhere else.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

# What differs between two runs of the same, and what stands in its place.
_VARIES = (
    # The end of a progress line, and of lines that say what something took.
    (re.compile(r"( in| took) [\d,]+(\.\d+)? s$", re.MULTILINE), r"\1 … s"),
    (re.compile(r"\b[\d.]+ GiB free\b"), "… GiB free"),
    (re.compile(r" at 0x[0-9a-fA-F]+"), ""),
    # Of the clone that the notebooks are executed in; by then a notebook before has changed it.
    (re.compile(r"\bcommit [0-9a-f]{7,40}\b"), "commit …"),
    (re.compile(r"^ *\(changes that are not committed are not part of it\)\n", re.MULTILINE), ""),
)
_CODE = re.compile(r"(^(?:> ?)*```.*?^(?:> ?)*```)", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^((?:> ?)*)(#+)(?= )", re.MULTILINE)
_STYLED = re.compile(r"\bT_[0-9a-f]{5}(?![0-9a-zA-Z])")  # the name that pandas draws for a table


def tidy(notebook: NotebookNode) -> None:
    """Remove what needs a live kernel (views of widgets) and nbclient's record of times.

    A text that a cell displays has its headings below those of the section that it is shown in.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)
            if "text/markdown" in data:
                data["text/markdown"] = _below_a_section(data["text/markdown"])


def _below_a_section(text: str) -> str:
    """Markdown whose first heading is one of the third level, and the others as far below it."""
    parts = _CODE.split(text)  # every other one is code, whose comments are no headings
    found = [match[2] for part in parts[::2] for match in _HEADING.finditer(part)]
    deeper = "#" * (3 - min(map(len, found), default=3))
    parts[::2] = [_HEADING.sub(rf"\g<1>{deeper}\g<2>", part) for part in parts[::2]]
    return "".join(parts)


def title_of(notebook: NotebookNode) -> str:
    """The text of its first heading, or nothing."""
    for cell in notebook.cells:
        found = re.search(r"^# (.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and found:
            return found[1].strip()
    return ""


def settle(notebook: NotebookNode, artifacts: Path | None = None) -> None:
    """Make `notebook`, in place, what any other run of the same cells would have made it.

    Ids follow from the cells, seconds and addresses are left out, tables are numbered, and what was
    printed in one go is one output, however many messages brought it.

    artifacts: the folder of this run, for which a text then says "artifacts".
    """
    tidy(notebook)
    notebook.metadata.get("language_info", {}).pop("version", None)
    notebook.metadata["title"] = title_of(notebook)  # for who makes a page of it
    for cell, name in zip(notebook.cells, cell_ids(notebook.cells), strict=True):
        cell.id = name
    tables: dict[str, str] = {}
    for cell in notebook.cells:
        CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
        for output in cell.get("outputs", []):
            _settle_output(output, tables, str(artifacts) if artifacts else "")


def _settle_output(output: NotebookNode, tables: dict[str, str], artifacts: str) -> None:
    def settled(text: str) -> str:
        for pattern, instead in _VARIES:
            text = pattern.sub(instead, text)
        return text.replace(artifacts, "artifacts") if artifacts else text

    if "text" in output:
        output.text = settled(output.text)
    data = output.get("data", {})
    for kind in ("text/plain", "text/markdown", "text/html"):
        if kind in data:
            data[kind] = settled(data[kind])
    if "text/html" in data:
        data["text/html"] = _STYLED.sub(
            lambda match: tables.setdefault(match[0], f"T_{len(tables):05d}"), data["text/html"]
        )


def cell_ids(cells: Sequence[NotebookNode]) -> list[str]:
    """A name for each cell that follows from its text; equal cells are numbered.

    So an edit changes the id of one cell, and to run it changes none.
    """
    seen: Counter[str] = Counter()
    names = []
    for cell in cells:
        text = f"{cell.cell_type}\n{cell.source.strip()}"
        seen[text] += 1
        names.append(hashlib.sha256(f"{text}\n{seen[text]}".encode()).hexdigest()[:8])
    return names
