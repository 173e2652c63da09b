"""One exercise: what the learner is asked, and how the answer is judged.

The learner writes a function. `check` runs it on test inputs beside the course's own; where they
differ it looks whether a *known mistake* gives the learner's numbers, and if so says which. The
notebook goes on in any case: `check` returns the learner's function if it is right and the course's
own if not, so that later cells can use it.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from ..diary import keep_answer
from .answers import Answer, answer_of, difference, shown
from .diagnosis import Mistake, general_mistake, ignored_arguments, known_mistake
from .draw import Draw

if TYPE_CHECKING:
    from IPython.display import HTML
    from IPython.utils.capture import CapturedIO

GOES_ON = "The notebook goes on with the course's own function."


@dataclass(frozen=True)
class Outcome:
    """What `check` found.

    state: `correct`, `wrong` or `not attempted`; message: what is wrong, in a sentence; evidence:
    the input that shows it, a line each; printed: what the function printed on that input.
    """

    state: str
    message: str
    evidence: tuple[str, ...] = ()
    printed: CapturedIO | None = None


@dataclass(frozen=True)
class Exercise:
    """An exercise whose answer is a function; made by `@exercise(...)` above the course's own.

    solution: the course's own answer, shown from its source; title, task: what is asked, in plain
    text; difficulty, importance: 1 to 5; minutes: to plan with; hint: a nudge, code in backticks;
    cases: draws the inputs, tuples of arguments, on which both are run (the first one small and
    readable); mistakes: wrong answers to recognise; gradients: arguments with respect to which the
    answer's gradient has to be right as well as its value.
    """

    solution: Callable[..., Any]
    title: str
    task: str
    difficulty: int
    importance: int
    minutes: int
    hint: str
    cases: Callable[[Draw], Sequence[tuple[Any, ...]]]
    mistakes: Sequence[Mistake]
    gradients: tuple[str, ...] = ()

    def card(self, solution: bool = True) -> HTML:
        """The task with its difficulty, importance and minutes; hint and solution fold away.

        solution: False leaves the solution out.
        """
        from IPython.display import HTML

        dots = {n: "●" * n + "○" * (5 - n) for n in range(6)}
        code = f'<pre style="text-align:left;white-space:pre-wrap">{escape(self.code())}</pre>'
        folded = "".join(
            f'<details style="margin-top:4px"><summary>{name}</summary>{content}</details>'
            for name, content in (
                ("Hint", f"<p>{_as_html(self.hint)}</p>"),
                *[("Solution", code)] * solution,
            )
        )
        return HTML(
            '<div style="border-left:4px solid #0072B2;padding:4px 14px;max-width:760px">'
            f"<b>Exercise · {escape(self.title)}</b>"
            f'<p style="margin:6px 0">{_as_html(self.task)}</p>'
            f'<div style="font-size:12px">difficulty {dots[self.difficulty]} &nbsp; importance '
            f"{dots[self.importance]} &nbsp; about {self.minutes} minutes</div>{folded}</div>"
        )

    def code(self) -> str:
        """The solution as it can be pasted over the stub: the function, after what it imports."""
        source = inspect.getsource(sys.modules[self.solution.__module__])
        statements = ast.parse(source).body
        name = self.solution.__name__
        function = next(node for node in statements if getattr(node, "name", None) == name)
        lines = source.splitlines()[function.lineno - 1 : function.end_lineno]
        function.decorator_list = []  # what the exercise itself needs
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        imports = [
            ast.unparse(type(node)(**{**vars(node), "names": [alias]}))
            for node in statements
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
            if (alias.asname or alias.name) in names
        ]
        return "\n".join([*imports, *["", ""] * bool(imports), *lines])

    def check(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        """Print the outcome; return `answer` if it is correct, else the course's own function.

        What was found is kept in the learner's diary.
        """
        outcome = self.judge(answer)
        mark = {"correct": "✓", "wrong": "✗", "not attempted": "…"}[outcome.state]
        print(f"{mark} {self.title}: {outcome.message}")
        for line in outcome.evidence:
            print(f"    {line}")
        if outcome.printed and (outcome.printed.stdout or outcome.printed.outputs):
            print("    It printed there:" if outcome.evidence else "    On one input it printed:")
            outcome.printed.show()
        if outcome.state == "wrong":
            print(f"    {GOES_ON}")
        keep_answer(self.solution.__name__, answer, outcome.state)
        return answer if outcome.state == "correct" else self.solution

    def judge(self, answer: Callable[..., Any], seed: int = 0) -> Outcome:
        """The outcome of `answer` on the inputs drawn with `seed`, without printing."""
        cases = self.inputs(seed)
        given = [self._ask(answer, case) for case in cases]
        if any(isinstance(each.error, NotImplementedError) for each in given):
            return Outcome("not attempted", f"not attempted yet. {GOES_ON}")
        wanted = [self._ask(self.solution, case) for case in cases]
        for case, ours, right in zip(cases, given, wanted, strict=True):
            if problem := difference(ours, right):
                name = self._name(answer, cases, given, wanted)
                evidence = [f"{argument} = {shown(value)}" for argument, value in case.items()]
                evidence += [problem] * bool(name)
                return Outcome("wrong", name or problem, tuple(evidence), ours.printed)
        return Outcome("correct", "correct.", printed=given[0].printed)

    def _name(
        self,
        answer: Callable[..., Any],
        cases: Sequence[Mapping[str, Any]],
        given: Sequence[Answer],
        wanted: Sequence[Answer],
    ) -> str:
        """The name of what went wrong, or an empty text."""
        ask, ask_right = partial(self._ask, answer), partial(self._ask, self.solution)
        return (
            known_mistake(
                self.mistakes, given, wanted, lambda known: [self._ask(known, c) for c in cases]
            )
            or ignored_arguments(cases, given, wanted, ask, ask_right)
            or general_mistake(given, wanted)
        )

    def inputs(self, seed: int = 0) -> list[dict[str, Any]]:
        """The inputs drawn with `seed`, each by the names of the arguments."""
        names = inspect.signature(self.solution).parameters
        return [dict(zip(names, case, strict=True)) for case in self.cases(Draw(seed))]

    def _ask(self, function: Callable[..., Any], case: Mapping[str, Any]) -> Answer:
        return answer_of(function, case, self.gradients)


def exercise(**settings: Any) -> Callable[[Callable[..., Any]], Exercise]:
    """Makes an `Exercise` of the function below it, the course's own answer."""
    return lambda solution: Exercise(solution, **settings)


def _as_html(text: str) -> str:
    """Plain text with `code` and *emphasis*."""
    parts = re.split(r"`([^`]+)`", escape(text))
    parts[::2] = [re.sub(r"\*(\w[\w ]*)\*", r"<em>\1</em>", part) for part in parts[::2]]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)
