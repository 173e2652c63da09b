"""Predictions and what came of them, claims that are checked, questions whose answer folds away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING

from ...workspace import Workspace
from ..diary import Predicted, diary
from . import page

if TYPE_CHECKING:
    from IPython.display import HTML
    from ipywidgets import Widget


_LETTERS = "abcdefgh"  # of a prediction's options


class Prediction:
    """What a learner expects, before a cell shows it. Made by `predict`, looked at by `held`.

    The choice is kept in the diary, with what came out; `late` is a choice made when that had been
    shown.
    """

    def __init__(self, question: str, options: Sequence[str], choice: str | None = None) -> None:
        self.question, self.options = question, list(options)
        kept = diary().prediction(question)
        if kept.choice not in self.options:  # the question has changed since
            kept = Predicted(question, truth=kept.truth)
        self.seen, self.late = kept.truth is not None, kept.late
        self.choice, self.truth, self.evidence = kept.choice, None, ""
        self._redraw: list[Callable[[], None]] = []
        diary().add("asked", question)
        if choice is not None:
            self.choose(choice)

    @property
    def is_closed(self) -> bool:
        """Whether the choice stands: it was made, and what came out has been shown."""
        return self.seen and self.choice is not None

    def choose(self, choice: str) -> None:
        """Take a choice, keep it, and let what shows it be redrawn."""
        self.late = self.late if self.choice else self.seen
        self.choice = choice
        diary().add("choice", self.question, choice=choice)
        self.redraw()

    def come_out(self, truth: str, evidence: str) -> None:
        """Take what this run shows, and let what shows it be redrawn."""
        self.truth, self.evidence, self.seen = truth, evidence, True
        diary().add("outcome", self.question, truth=truth)
        self.redraw()

    def on_change(self, redraw: Callable[[], None]) -> None:
        """Call `redraw` whenever there is a choice or a result."""
        self._redraw.append(redraw)

    def redraw(self) -> None:
        for redraw in self._redraw:
            redraw()

    @property
    def verdict(self) -> str:
        """Whether it held, in a sentence; before the result, what to do for it."""
        if self.choice is None:
            return "" if self.truth is None else "(You made no prediction.)"
        if self.truth is None:
            return f"Kept: {self.choice}. Run on: the cell with the result says whether it holds."
        after = " (You chose when it had been shown.)" * self.late
        if self.choice == self.truth:
            return f"✓ Your prediction held.{after}"
        return f"✗ You predicted: {self.choice}. Why was it otherwise?{after}"


def predict(question: str, options: Sequence[str], choice: str | None = None) -> Prediction:
    """Ask for a prediction: click an option, or, where widgets do not work, pass `choice`.

    A choice of an earlier day is there again; once its result has been shown it stands.

    Args:
        choice: an option, or its letter.

    Raises ValueError for a `choice` that is none of the options.
    """
    choice = _option(choice, options) if choice is not None else None
    if choice is not None and choice not in options:
        raise ValueError(f"{choice!r} is none of the options: {', '.join(map(repr, options))}")
    prediction = Prediction(question, options, choice)
    print(f"Predict: {question}")
    print(
        "  "
        + "   ".join(
            f"({letter}) {option}" for letter, option in zip(_LETTERS, options, strict=False)
        )
    )
    print('  Click, or add choice="a" (or another letter) to the call and run this cell again.')
    with suppress(ImportError):  # ipywidgets is not everywhere
        page.show_widget(_buttons(prediction), "(No buttons here: add choice=... to the call.)")
    return prediction


def _option(said: str, options: Sequence[str]) -> str:
    """What was said, in full: an option itself, or else the one that has this letter."""
    return said if said in options else dict(zip(_LETTERS, options, strict=False)).get(said, said)


def _buttons(prediction: Prediction) -> Widget:
    from ipywidgets import HTML, RadioButtons, VBox

    buttons = RadioButtons(
        options=prediction.options, value=prediction.choice, layout={"width": "max-content"}
    )
    verdict = HTML()

    def draw() -> None:
        buttons.disabled = prediction.is_closed
        verdict.value = escape(prediction.verdict)

    buttons.observe(lambda change: prediction.choose(change["new"]), names="value")
    prediction.on_change(draw)
    draw()
    return VBox([HTML("<b>Your prediction</b>"), buttons, verdict])


def held(prediction: Prediction, truth: str, evidence: str) -> None:
    """Say what came out, and whether the prediction held; a click that comes later is heeded too.

    `truth`: the option that this run shows, or its letter. Raises ValueError if it is none.
    """
    truth = _option(truth, prediction.options)
    if truth not in prediction.options:
        raise ValueError(f"{truth!r} is none of the options: {', '.join(prediction.options)}")
    prediction.come_out(truth, evidence)
    replace_text = page.show_text(_result(prediction))
    prediction.on_change(lambda: replace_text(_result(prediction)))


def _result(prediction: Prediction) -> str:
    return (
        f"{prediction.question}\n→ {prediction.truth}: {prediction.evidence}\n{prediction.verdict}"
    )


def quiz(questions: Sequence[tuple[str, str]]) -> HTML:
    """Questions whose answers fold away."""
    from IPython.display import HTML

    return HTML(
        "".join(
            f'<details style="margin:6px 0"><summary>{escape(question)}</summary>'
            f'<p style="margin:4px 18px">{escape(answer)}</p></details>'
            for question, answer in questions
        )
    )


def claim(holds: bool, sentence: str) -> None:
    """State a result of this run and check it.

    What does not hold is a finding, and is shown as one; but on the course's own run, where it was
    seen to hold (`is_the_courses_own`), it is a fault, and raises AssertionError.
    """
    if holds:
        print(f"✓ {sentence}")
    elif Workspace().is_the_courses_own:
        raise AssertionError(f"This run does not show it: {sentence}")
    else:
        print(f"✗ This run does not show it: {sentence}")


def claims(found: Iterable[tuple[bool, str]]) -> None:
    """Several of them, as `claim` one by one."""
    for holds, sentence in found:
        claim(holds, sentence)
