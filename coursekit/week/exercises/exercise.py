"""One exercise: what the learner is asked, and how the answer is judged.

The learner writes a function. `check` runs it on test inputs beside the course's own; where they
differ it looks whether a *known mistake* gives the learner's numbers, and if so says which. The
notebook goes on in any case: `check` returns the learner's function if it is right and the course's
own if not, so that later cells can use it.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import HTML
    from torch import Tensor


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give: a function that makes it, and what to tell them."""

    answer: Callable[..., Any]
    message: str


@dataclass(frozen=True)
class Outcome:
    """What `check` found: `correct`, `wrong` or `not attempted`, and a sentence."""

    state: str
    message: str


@dataclass(frozen=True)
class Exercise:
    """An exercise whose answer is a function.

    title, task: what is asked, in plain text; difficulty, importance: 1 to 5; minutes: to plan
    with; hint: a nudge; solution: the course's own answer, shown from its source; cases: argument
    tuples on which both are run; mistakes: wrong answers to recognise; compare_gradients: the
    answer's gradient counts as well as its value.
    """

    title: str
    task: str
    difficulty: int
    importance: int
    minutes: int
    hint: str
    solution: Callable[..., Any]
    cases: Sequence[tuple[Any, ...]]
    mistakes: Sequence[Mistake]
    compare_gradients: bool = False

    def card(self) -> HTML:
        """The task with its difficulty, importance and minutes; hint and solution fold away."""
        from IPython.display import HTML

        source = textwrap.dedent(inspect.getsource(self.solution))
        task = re.sub(r"\*(\w[\w ]*)\*", r"<em>\1</em>", escape(self.task))
        dots = {n: "●" * n + "○" * (5 - n) for n in range(6)}
        folded = "".join(
            f'<details style="margin-top:4px"><summary>{name}</summary>{content}</details>'
            for name, content in (
                ("Hint", f"<p>{escape(self.hint)}</p>"),
                (
                    "Solution",
                    f'<pre style="text-align:left;white-space:pre-wrap">{escape(source)}</pre>',
                ),
            )
        )
        return HTML(
            '<div style="border-left:4px solid #0072B2;padding:4px 14px;max-width:760px">'
            f"<b>Exercise · {escape(self.title)}</b>"
            f'<p style="margin:6px 0">{task}</p>'
            f'<div style="font-size:12px">difficulty {dots[self.difficulty]} &nbsp; importance '
            f"{dots[self.importance]} &nbsp; about {self.minutes} minutes</div>{folded}</div>"
        )

    def check(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        """Print the outcome; return `answer` if it is correct, else the course's own function."""
        outcome = self.judge(answer)
        mark = {"correct": "✓", "wrong": "✗", "not attempted": "…"}[outcome.state]
        print(f"{mark} {self.title}: {outcome.message}")
        return answer if outcome.state == "correct" else self.solution

    def judge(self, answer: Callable[..., Any]) -> Outcome:
        """The outcome of `answer`, without printing."""
        for arguments in self.cases:
            try:
                given = self._results(answer, arguments)
            except NotImplementedError:
                return Outcome(
                    "not attempted",
                    "not attempted yet. The notebook goes on with the course's own function.",
                )
            except Exception as error:  # whatever a learner's code may raise
                return Outcome("wrong", f"it raises {type(error).__name__}: {error}")
            expected = self._results(self.solution, arguments)
            problem = _difference(given, expected)
            if problem:
                return Outcome("wrong", self._explain(answer, problem))
        return Outcome("correct", "correct.")

    def _explain(self, answer: Callable[..., Any], problem: str) -> str:
        """The message of the mistake that gives the same numbers on every case, or `problem`."""
        for mistake in self.mistakes:
            try:
                alike = all(
                    not _difference(
                        self._results(answer, arguments), self._results(mistake.answer, arguments)
                    )
                    for arguments in self.cases
                )
            except Exception:  # the answer may fail on a later case: then it is not this mistake
                alike = False
            if alike:
                return mistake.message
        return problem

    def _results(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
        """What `function` returns for fresh copies of `arguments`; its gradients too if asked."""
        import torch

        fresh = [
            value.clone().requires_grad_(self.compare_gradients and value.is_floating_point())
            if isinstance(value, torch.Tensor)
            else value
            for value in arguments
        ]
        result = function(*fresh)
        outcome = [result]
        if self.compare_gradients and isinstance(result, torch.Tensor) and result.requires_grad:
            inputs = [value for value in fresh if getattr(value, "requires_grad", False)]
            outcome += torch.autograd.grad(result.sum(), inputs, allow_unused=True)
        return outcome


def _difference(given: list[Any], expected: list[Any]) -> str:
    """What is wrong with `given`, or an empty text."""
    import torch

    value, wanted = given[0], expected[0]
    if value is None:
        return "it returns None: is the `return` missing?"
    try:
        value, wanted = (torch.as_tensor(item, dtype=torch.float64) for item in (value, wanted))
    except (TypeError, ValueError, RuntimeError):
        return f"it returns {type(value).__name__}, not numbers"
    if value.shape != wanted.shape:
        return f"it returns shape {tuple(value.shape)}, expected {tuple(wanted.shape)}"
    if not torch.allclose(value, wanted, rtol=1e-5, atol=1e-7, equal_nan=True):
        return f"expected {_short(wanted)}, got {_short(value)}."
    if len(given) != len(expected):
        return "the value is right, but no gradient flows through it."
    for one, other in zip(given[1:], expected[1:], strict=True):
        if (one is None) != (other is None):
            return "the value is right, but a gradient flows where none should, or the reverse."
        if one is not None and not torch.allclose(one, other, rtol=1e-5, atol=1e-7, equal_nan=True):
            return "the value is right, its gradient is not."
    return ""


def _short(values: Tensor) -> str:
    numbers = [f"{value:.4g}" for value in values.detach().flatten()[:4].tolist()]
    more = ", …" if values.numel() > 4 else ""
    return numbers[0] if values.dim() == 0 else f"[{', '.join(numbers)}{more}]"
