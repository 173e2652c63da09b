"""An exercise of a notebook in the form of nbgrader: an answer cell, and one that tests it.

Metadata: nbgrader's schema, version 3, https://nbgrader.readthedocs.io.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from textwrap import indent

import nbformat
from nbformat import NotebookNode

_CHECK = re.compile(r"^(\w+) = exercises\.(\w+)\.check\(\1\)$", re.MULTILINE)
_NEEDS = re.compile(r"(?:%%needs.*\n)?")  # what a task must have for both cells to run
_STUB = re.compile(r"^( +)raise NotImplementedError$", re.MULTILINE)


def for_nbgrader(cell: NotebookNode) -> Iterator[NotebookNode]:
    """The cells that take the place of `cell`: the two of its exercise, or itself.

    The answer cell holds the solution, in a region that nbgrader replaces by its own stub: without
    one it would replace the whole cell, and the learner would miss what the function is called and
    takes. A point for each degree of difficulty.
    """
    found = _CHECK.search(cell.source) if cell.cell_type == "code" else None
    if not found:
        yield cell
        return
    name, exercise = found.groups()
    needs = _NEEDS.match(cell.source)
    tests = (
        f"{needs[0]}handed_in = {name}\n"
        f"{name} = exercises.{exercise}.check(handed_in)\n"
        "### BEGIN HIDDEN TESTS\n"
        f"outcome = exercises.{exercise}.judge(handed_in, seed=1)\n"
        "assert outcome.state == 'correct', outcome.message\n"
        "### END HIDDEN TESTS"
    )
    answer = _with_solution(cell.source[: found.start()].rstrip(), exercise)
    for role, text in (("answer", answer), ("tests", tests)):
        part = nbformat.v4.new_code_cell(text)
        part.metadata["nbgrader"] = {
            "schema_version": 3,
            "grade_id": f"{role}-{exercise}",
            "grade": role == "tests",
            "solution": role == "answer",
            "locked": role == "tests",
            "task": False,
            "cell_type": "code",
            **({"points": _points(exercise)} if role == "tests" else {}),
        }
        yield part


def _with_solution(stub: str, exercise: str) -> str:
    """The stub with the course's own answer where it raises."""
    region = f"### BEGIN SOLUTION\n{_body(exercise)}\n### END SOLUTION"
    return _STUB.sub(lambda found: indent(region, found[1]), stub, count=1)


def _body(exercise: str) -> str:
    """What the printed solution does, without its head: the imports it needs, then its body."""
    from .solved import EXERCISES

    code = EXERCISES[exercise].code()
    *imports, function = ast.parse(code).body
    first = function.body[bool(ast.get_docstring(function))]
    lines = code.splitlines()[first.lineno - 1 :]
    return "\n".join([*map(ast.unparse, imports), *(line[4:] for line in lines)])


def _points(exercise: str) -> int:
    from .solved import EXERCISES

    return EXERCISES[exercise].difficulty
