"""All exercises of the course, and whose answer it is that solves one."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from .exercises import lab, session_a, session_b, session_c

SESSIONS = {
    "A": session_a.EXERCISES,
    "B": session_b.EXERCISES,
    "C": session_c.EXERCISES,
    "Lab": lab.EXERCISES,
}
EXERCISES = {name: each for session in SESSIONS.values() for name, each in session.items()}
OPTIONAL = SESSIONS["Lab"]  # who has solved all others has solved the course's
REQUIRED = {name: each for name, each in EXERCISES.items() if name not in OPTIONAL}


def counted(solved: Iterable[str], what: str) -> str:
    """How many of the sessions' exercises are `solved`, and how many of the lab's, if any is."""
    solved = set(solved)
    required = f"{len(solved & REQUIRED.keys())} of {len(REQUIRED)} {what}"
    return required + and_of_the_lab(len(solved & OPTIONAL.keys()), len(OPTIONAL))


def and_of_the_lab(done: int, there: int) -> str:
    """What follows a count: the lab is optional, so nobody hears that it is not done."""
    return f" and {done} of {there} of the lab" * bool(done)


def is_the_courses(name: str, code: str) -> bool:
    """Whether `code` defines the function as the printed solution does, but for layout, comments
    and annotations.
    """
    try:
        return _body(name, code) == _body(name, EXERCISES[name].code())
    except (SyntaxError, ValueError, StopIteration):  # cut off, or defined in another way
        return False


def _body(name: str, code: str) -> list[str]:
    """What the last function of that name does, a statement each, without its docstring."""
    defined = (node for node in reversed(ast.parse(code).body) if isinstance(node, ast.FunctionDef))
    function = next(node for node in defined if node.name == name)
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    return [ast.dump(statement) for statement in statements]
