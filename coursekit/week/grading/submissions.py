"""What learners handed in, read and not run: answers, predictions and texts, by learner.

Each folder in the folder of submissions is a learner's, with notebooks, an artifacts folder or both
anywhere in it; a notebook that lies beside them is a learner's too. Of a notebook the cells are
read as code: an answer is what its check is called with, and the imports, functions and values
that it rests on; nothing else in the notebook is run.
"""

from __future__ import annotations

import ast
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from ..deliverables import REFLECTED, TEMPLATES
from ..desk import MARK, is_touched
from ..diary import DIARY, Diary, Predicted
from ..sources import sources
from .sandbox import Program

LARGEST = 50_000_000  # bytes of a file; a longer one is not read
NOTES = (*(f"{kind}.md" for kind in TEMPLATES), REFLECTED)
_SHOWN = re.compile(
    r"^(.+)\n→ (.+?): .*?\n(?:✓ Your prediction held|✗ You predicted: (.+?)\.)", re.DOTALL
)


@dataclass
class HandedIn:
    """What one learner handed in.

    answers: by exercise; predictions: by question; texts: to be read by a person, by file;
    problems: files that could not be read, and why.
    """

    learner: str
    answers: dict[str, Program] = field(default_factory=dict)
    predictions: dict[str, Predicted] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_submissions(folder: Path, exercises: Iterable[str]) -> list[HandedIn]:
    """A learner's each, in the order of their names.

    Raises ValueError where there is no folder, or nothing in it that could be a submission.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: name the one that holds a folder for each learner")
    names = list(exercises)
    found = [
        _read_learner(path, names)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or path.suffix == ".ipynb")
    ]
    if not found:
        raise ValueError(f"{folder} holds neither folders of learners nor notebooks")
    return found


def _read_learner(path: Path, exercises: Sequence[str]) -> HandedIn:
    handed_in = HandedIn(path.stem if path.suffix == ".ipynb" else path.name)
    for file in _files(path):
        where = file.relative_to(path.parent).as_posix()
        try:
            if file.stat().st_size > LARGEST:
                raise ValueError(f"larger than {LARGEST // 10**6} MB")
            _read_file(file, where, handed_in, exercises)
        except Exception as error:  # of files that others made anything may be wrong
            handed_in.problems.append(f"{where} cannot be read: {error}"[:300])
    return handed_in


def _files(path: Path) -> Iterator[Path]:
    """Regular files at or below `path`, no links: diaries first, since a notebook says more."""
    found = [path] if path.is_file() else []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name) for name in names]
    kept = [file for file in found if file.is_file() and not file.is_symlink()]
    yield from sorted(kept, key=lambda file: (file.name != DIARY, file))


def _read_file(file: Path, where: str, to: HandedIn, exercises: Sequence[str]) -> None:
    if file.name == DIARY:
        diary = Diary(file.parent)
        to.predictions |= diary.predictions()
        for name, attempt in diary.attempts().items():
            if name in exercises and attempt.code:
                code = statements_of(textwrap.dedent(attempt.code))
                names = [one.name for one in code if isinstance(one, ast.FunctionDef)] or [name]
                if answer := program(names[-1], [*_courses_own(name), *code]):
                    to.answers[name] = answer
    elif file.name in NOTES:
        to.texts[where] = file.read_text(encoding="utf-8", errors="replace")
    elif file.suffix == ".ipynb" and not file.name.endswith("-checkpoint.ipynb"):
        _read_notebook(nbformat.read(file, as_version=4), where, to, exercises)


def _read_notebook(
    notebook: NotebookNode, where: str, to: HandedIn, exercises: Sequence[str]
) -> None:
    statements: list[ast.stmt] = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            try:
                statements += statements_of(cell.source)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                to.problems.append(f"{where}, cell {number} is no Python: {error}"[:300])
    for name in exercises:
        answer = answer_in(name, statements)
        if answer and not (name in to.answers and _is_stub(answer)):
            to.answers[name] = answer
    to.predictions |= {
        each.question: each
        for each in _predictions_in(notebook)
        if each.question not in to.predictions
    }
    if MARK in notebook.metadata:
        own = [c.source for c in notebook.cells if c.cell_type == "markdown" and is_touched(c)]
        to.texts |= {where: "\n\n".join(own)} if own else {}


def _predictions_in(notebook: NotebookNode) -> Iterator[Predicted]:
    """What the saved outputs say of predictions: for those whose diary was not handed in."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if found := _SHOWN.search(str(text)):
                question, truth, other = found.groups()
                yield Predicted(question, other or truth, truth)


# Code: read, and cut down to what an answer rests on.


def statements_of(source: str) -> list[ast.stmt]:
    """The statements of a cell, without IPython's commands. Raises SyntaxError."""
    try:
        return ast.parse(source).body
    except SyntaxError:  # a command may be all that a block has
        return ast.parse(re.sub(r"^(\s*)[%!?].*", r"\1pass", source, flags=re.MULTILINE)).body


@cache
def _courses_own(exercise: str) -> tuple[ast.stmt, ...]:
    """Imports of the notebook that asks for the exercise."""
    for path in sources():
        if f"exercises.{exercise}.check(" in path.read_text(encoding="utf-8"):
            cells = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
            every = [statement for cell in cells for statement in statements_of(cell)]
            return tuple(one for one in every if isinstance(one, (ast.Import, ast.ImportFrom)))
    return ()


def answer_in(exercise: str, statements: Sequence[ast.stmt]) -> Program | None:
    """The answer in a notebook's statements: what the last check was called with, or None.

    Where a check is called more than once, the last call with an answer counts that is no stub.
    """
    asked = [
        (place, call.args[0].id)
        for place, statement in enumerate(statements)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) == f"exercises.{exercise}.check"
        and call.args
        and isinstance(call.args[0], ast.Name)
    ]
    programs = [program(name, statements[:place]) for place, name in asked]
    if not programs:
        programs = [program(exercise, statements)]
    found = [one for one in programs if one is not None]
    return next((one for one in reversed(found) if not _is_stub(one)), found[-1] if found else None)


def program(name: str, statements: Sequence[ast.stmt]) -> Program | None:
    """The code that `name` rests on, or None where nothing defines it.

    Of each name that is needed the last statement that binds it, and so on; statements that call
    the course's exercises are left out.
    """
    binding: dict[str, int] = {}
    for place, statement in enumerate(statements):
        if not _names_exercises(statement):
            binding |= dict.fromkeys(_bound(statement), place)
    if name not in binding:
        return None
    needed, open_names = set(), {name}
    while open_names:
        place = binding.get(open_names.pop())
        if place is not None and place not in needed:
            needed.add(place)
            open_names |= {
                node.id for node in ast.walk(statements[place]) if isinstance(node, ast.Name)
            }
    return Program(name, "\n\n".join(ast.unparse(statements[place]) for place in sorted(needed)))


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module binds, by import, definition or assignment."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name.split(".")[0]) for alias in statement.names}
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        named = (node for target in targets for node in ast.walk(target))
        return {node.id for node in named if isinstance(node, ast.Name)}
    return set()


def _names_exercises(statement: ast.stmt) -> bool:
    """Whether it is a call of a check, say; an import under that name is left out with it."""
    if isinstance(statement, ast.Assign):
        return any(
            isinstance(node, ast.Name) and node.id == "exercises" for node in ast.walk(statement)
        )
    return isinstance(statement, ast.ImportFrom) and "exercises" in _bound(statement)


def _is_stub(answer: Program) -> bool:
    """Whether the function does nothing but raise NotImplementedError (nbgrader's: with `()`)."""
    for node in ast.parse(answer.code).body:
        if isinstance(node, ast.FunctionDef) and node.name == answer.name:
            first = node.body[1:] if ast.get_docstring(node) else node.body
            return bool(first) and ast.unparse(first[0]).rstrip("()") == "raise NotImplementedError"
    return False
