"""Is an answer right? Judged here, from the numbers that came back from behind the fence."""

from __future__ import annotations

import ast
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..exercises import Exercise
from ..exercises.answers import Answer, answer_of, difference, shown
from ..exercises.diagnosis import general_mistake, known_mistake
from ..solved import EXERCISES, is_the_courses
from .sandbox import Limits, Program, run

VISIBLE = 0  # the seed of the notebook's own check

# Names that no answer needs: somebody should look.
_UNUSUAL = frozenset(
    "os sys io subprocess socket ctypes gc inspect builtins importlib shutil pathlib exec eval "
    "open urllib http requests resource globals setattr __import__ "
    "__globals__ __subclasses__ __builtins__ solution exercises".split()
)


@dataclass(frozen=True)
class Grade:
    """What became of one answer.

    state: `correct`, `wrong`, `not attempted` or `missing` (no answer there); visible: whether it
    passes the notebook's own check; hidden, of: how many hidden checks it passes, and of how many;
    message, evidence: what is wrong, and the input that shows it; remarks: what a person should
    look at; code: what was run; printed: what it printed; seconds: that it took.
    """

    exercise: str
    state: str
    visible: bool = False
    hidden: int = 0
    of: int = 0
    message: str = ""
    evidence: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    code: str = ""
    printed: str = ""
    seconds: float = 0.0


def grade(name: str, program: Program | None, seeds: Sequence[int], limits: Limits) -> Grade:
    """The grade of an answer: on the notebook's own inputs, and on those of each seed.

    All inputs are asked in one process, so they share its limits.
    """
    exercise = EXERCISES[name]
    if program is None:
        return Grade(name, "missing", of=len(seeds), message="no such function was handed in.")
    about = partial(Grade, name, of=len(seeds), code=program.code, remarks=remarks(name, program))
    drawn = [exercise.inputs(seed) for seed in (VISIBLE, *seeds)]
    cases = [case for some in drawn for case in some]
    start = time.monotonic()
    given = run(program, cases, exercise.gradients, limits)
    seconds = time.monotonic() - start
    if isinstance(given, str):
        return about("wrong", message=given, seconds=seconds)
    if isinstance(given[0].error, NotImplementedError):
        return about("not attempted", remarks=(), seconds=seconds)
    found, place = [], 0
    for some in drawn:
        found.append(_judged(exercise, some, given[place : place + len(some)]))
        place += len(some)
    passed = [not message for message, _ in found]
    message, evidence = next((each for each in found if each[0]), ("", ()))
    if passed[0] and message:
        message = f"right on the inputs of the notebook's check, not on hidden ones: {message}"
    return about(
        "correct" if all(passed) else "wrong",
        visible=passed[0],
        hidden=sum(passed[1:]),
        message=message,
        evidence=evidence,
        printed=given[0].printed.stdout if given[0].printed else "",
        seconds=seconds,
    )


def _judged(
    exercise: Exercise, cases: Sequence[dict], given: Sequence[Answer]
) -> tuple[str, tuple[str, ...]]:
    """What is wrong and the input that shows it; two empties where all is right."""

    def ask(function, case) -> Answer:
        return answer_of(function, case, exercise.gradients)

    wanted = [ask(exercise.solution, case) for case in cases]
    for case, ours, right in zip(cases, given, wanted, strict=True):
        if problem := difference(ours, right):
            named = known_mistake(
                exercise.mistakes, given, wanted, lambda known: [ask(known, c) for c in cases]
            ) or general_mistake(given, wanted)
            evidence = [f"{argument} = {shown(value)}" for argument, value in case.items()]
            return named or problem, (*evidence, *[problem] * bool(named))
    return "", ()


def remarks(name: str, program: Program) -> tuple[str, ...]:
    """What a person should look at, in sentences."""
    tree = ast.parse(program.code)
    names = {
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, (ast.Name, ast.Attribute))
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            names |= {part for name in named for part in name.split(".")}
    found = []
    if is_the_courses(name, program.code):
        found.append("this is the solution that the course prints")
    if unusual := sorted(names & _UNUSUAL):
        found.append(f"it names what no answer needs: {', '.join(unusual)}")
    return tuple(found)
