"""What may be wrong with a task's folder: file, line, what, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

_SHOWN = 5  # of problems that differ in little but the line


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. severe: the task cannot be used so; else it can, at a cost."""

    file: Path
    line: int | None
    what: str
    remedy: str
    severe: bool = True

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}" if self.line else str(self.file)
        return f"{where}: {self.what}: {self.remedy}"


class TaskError(ValueError):
    """A severe problem, raised. problem: the problem itself."""

    def __init__(self, problem: Problem, others: str = "") -> None:
        super().__init__(f"{problem}{others}")
        self.problem = problem


def refuse(problems: Sequence[Problem], folder: Path) -> None:
    """Raise TaskError for the first severe problem, if there is one."""
    severe = [problem for problem in problems if problem.severe]
    if not severe:
        return
    others = f" ({len(severe) - 1} more: python -m coursekit check {folder})"
    raise TaskError(severe[0], others if severe[1:] else "")


def report(problems: Sequence[Problem]) -> str:
    """The problems as lines of text, the severe ones first; of many alike, a few and how many."""
    if not problems:
        return "nothing wrong"
    lines, alike = [], Counter((problem.file, problem.remedy) for problem in problems)
    listed: Counter = Counter()
    for problem in sorted(problems, key=lambda problem: not problem.severe):
        kind = (problem.file, problem.remedy)
        listed[kind] += 1
        if listed[kind] <= _SHOWN:
            lines.append(f"{'error  ' if problem.severe else 'warning'}  {problem}")
        elif listed[kind] == _SHOWN + 1:
            lines.append(f"         and {alike[kind] - _SHOWN} more like the last")
    severe = sum(problem.severe for problem in problems)
    lines.append(f"{_counted(severe, 'error')}, {_counted(len(problems) - severe, 'warning')}")
    return "\n".join(lines)


def nearest(word: str, known: Iterable[str]) -> str:
    """`known` as a list to choose from, with the word most like `word` first, if one is."""
    known = list(known)
    close = get_close_matches(word, known, n=1)
    names = ", ".join(known)
    return f"did you mean {close[0]!r}? Known are {names}" if close else f"known are {names}"


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
