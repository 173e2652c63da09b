"""The learner's desk: working copies of the notebooks, which are the learner's alone.

`python -m coursekit student [FOLDER]` writes them (to `work`, which git ignores) without outputs,
so that no answer stands under its question, and not paired with the sources, which no learner
writes to. Called again with a newer course it brings the copies up to date and keeps what the
learner has written: each cell records what the course had in it, so a cell that differs is the
learner's. `python -m coursekit lab` does the same and opens JupyterLab.
"""

from __future__ import annotations

import argparse
import copy
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from .. import __version__
from ..common.made_from import fingerprint, set_aside
from ..common.profile import ROOT
from .assignment import for_nbgrader
from .sources import NOTEBOOKS, notebook_in, sources

WORK = "work"
MARK = "coursekit"  # in the metadata of a copy and of its cells: what they were made from

_CARD = re.compile(r"^(exercises\.\w+\.card)\(\)$", re.MULTILINE)


@dataclass(frozen=True)
class Form:
    """How a copy is made. solutions: whether cards show them; nbgrader: with its answer and test
    cells.
    """

    solutions: bool = True
    nbgrader: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m coursekit student", description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(ROOT / WORK))
    parser.add_argument("--no-solutions", action="store_true", help="cards without solutions")
    parser.add_argument(
        "--nbgrader",
        action="store_true",
        help="as the source of an nbgrader assignment: answer and test cells, hidden tests",
    )
    options = parser.parse_args()
    asked = options.no_solutions or options.nbgrader
    form = Form(not options.no_solutions, options.nbgrader) if asked else None
    try:
        make_copies(Path(options.folder), form)
    except (ValueError, OSError) as error:
        sys.exit(f"No copy was made: {error}")


def make_copies(folder: Path, form: Form | None = None) -> list[Path]:
    """A working copy of each notebook in `folder`, made or brought up to date; says what was done.

    form: None keeps that of a copy which is there. Raises ValueError if `folder` is among the
    sources.
    """
    if folder.resolve().is_relative_to(NOTEBOOKS):
        raise ValueError(f"{folder} holds the course's own notebooks: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for source in sources(NOTEBOOKS):
        path = notebook_in(folder, source, NOTEBOOKS)
        path.parent.mkdir(exist_ok=True)
        print(f"{path.name}: {_bring_up_to_date(path, source, form)}")
        copies.append(path)
    for page in NOTEBOOKS.glob("*.md"):  # what the notebooks link to
        shutil.copyfile(page, folder / page.name)
    return copies


def as_copy(source: Path, form: Form) -> NotebookNode:
    """The working copy of a percent-format `source`: no outputs, no pairing, marked cells."""
    notebook = jupytext.read(source)
    if not form.solutions:
        for cell in notebook.cells:
            cell.source = _CARD.sub(r"\1(solution=False)", cell.source)
    if form.nbgrader:
        notebook.cells = [part for cell in notebook.cells for part in for_nbgrader(cell)]
    for cell in notebook.cells:
        cell.metadata[MARK] = {"made_from": fingerprint(cell.source)}
    mark = {"course": __version__, "made_from": _made_from(notebook.cells), "form": asdict(form)}
    kernel = notebook.metadata["kernelspec"]
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, MARK: mark})
    return _with_ids(notebook)


def _made_from(cells: Iterable[NotebookNode]) -> str:
    return fingerprint([cell.metadata[MARK]["made_from"] for cell in cells])


def _with_ids(notebook: NotebookNode) -> NotebookNode:
    """The notebook with ids that follow from its cells, so that making it twice gives the same."""
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        seen[cell.source] += 1
        cell.id = fingerprint(cell.cell_type, cell.source, seen[cell.source])
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # the first that has ids
    return notebook


# A copy that is there already.


def _bring_up_to_date(path: Path, source: Path, form: Form | None) -> str:
    """Write the copy at `path`, with what the learner has in it; returns what was done."""
    if not path.is_file():
        _write(as_copy(source, form or Form()), path)
        return "made"
    try:
        old = nbformat.read(path, as_version=4)
        mark = old.metadata[MARK]
        new = as_copy(source, form or Form(**mark["form"]))
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.reader.NotJSONError):
        set_aside(path, "nothing in it says which cells are the course's and which are yours")
        _write(as_copy(source, form or Form()), path)
        return "made"
    if mark["made_from"] == new.metadata[MARK]["made_from"]:
        return "as you left it"
    merged, both = merge(old, new)
    if both:
        set_aside(path, f"the course has changed {both} of the cells that you have written in")
    _write(merged, path)
    return "brought up to date, with all that you have written" + (
        "; where both have changed a cell, yours stands below the course's" if both else ""
    )


def _write(notebook: NotebookNode, path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_name(f"{path.name}.part")
    nbformat.write(notebook, partial)
    partial.replace(path)


def merge(old: NotebookNode, new: NotebookNode) -> tuple[NotebookNode, int]:
    """The new course with the learner's cells, and how many stand beside the course's new version.

    A cell that the course has not changed stays as it is in `old`, outputs included. Where it has,
    its new cells come first, and after them what the learner had changed there. Cells that the
    learner has added stay behind the cell that they stood behind.
    """
    course, added = _course_cells(old.cells)
    ours = [cell.metadata[MARK]["made_from"] for cell in course]
    theirs = [cell.metadata[MARK]["made_from"] for cell in new.cells]
    cells, both = list(added[-1]), 0
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    for what, start, end, new_start, new_end in matcher.get_opcodes():
        if what != "equal":
            cells += new.cells[new_start:new_end]
        for index in range(start, end):
            if what == "equal":
                cells.append(course[index])
            elif is_touched(course[index]):
                cells.append(_as_their_own(course[index]))
                both += 1
            cells += added[index]
    merged = copy.deepcopy(new)
    merged.cells = [copy.deepcopy(cell) for cell in cells]
    return _with_ids(merged), both


def _as_their_own(cell: NotebookNode) -> NotebookNode:
    """A cell that the course has left to the learner: from now on it is none of the course's."""
    own = copy.deepcopy(cell)
    del own.metadata[MARK]
    return own


def _course_cells(
    cells: Iterable[NotebookNode],
) -> tuple[list[NotebookNode], dict[int, list[NotebookNode]]]:
    """The cells that came with the course, and those added behind each; -1: before them all."""
    course: list[NotebookNode] = []
    added: dict[int, list[NotebookNode]] = {-1: []}
    for cell in cells:
        if "made_from" in cell.metadata.get(MARK, {}):
            course.append(cell)
            added[len(course) - 1] = []
        else:
            added[len(course) - 1].append(cell)
    return course, added


def is_touched(cell: NotebookNode) -> bool:
    """Whether the learner has written in this cell: their own ones, and changed ones."""
    return cell.metadata.get(MARK, {}).get("made_from") != fingerprint(cell.source)


def open_lab() -> None:
    """Make the copies, and become JupyterLab on the course's folder, with the first one open.

    The whole folder is served, so that links from a copy reach notes, triples and the glossary.
    """
    from jupyterlab.labapp import main as jupyterlab

    from .reading import LAB_OPTIONS

    first = make_copies(ROOT / WORK)[0]
    address = f"/lab/tree/{first.relative_to(ROOT).as_posix()}"
    own = [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url={address}"]
    sys.exit(jupyterlab([*own, *LAB_OPTIONS, *sys.argv[2:]]))


if __name__ == "__main__":
    open_lab() if sys.argv[1:2] == ["--lab"] else main()
