"""Predictions and what came of them, claims that are checked, questions whose answer folds away."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ...workspace import Workspace
from . import page

if TYPE_CHECKING:
    from IPython.display import HTML


class Prediction:
    """What a learner expects, before a cell shows it. Made by `predict`, looked at by `held`."""

    def __init__(self, question: str, options: Sequence[str], choice: str | None) -> None:
        self.question, self.options, self.choice = question, list(options), choice


def predict(question: str, options: Sequence[str], choice: str | None = None) -> Prediction:
    """Ask for a prediction: click an option, or, where widgets do not work, pass `choice`.

    Raises ValueError for a `choice` that is none of the options.
    """
    from ipywidgets import HTML, RadioButtons, VBox

    if choice is not None and choice not in options:
        raise ValueError(f"{choice!r} is none of the options: {', '.join(map(repr, options))}")
    prediction = Prediction(question, options, choice)
    buttons = RadioButtons(
        options=list(options), value=choice, layout={"width": "max-content"}, disabled=False
    )

    def chosen(change) -> None:
        prediction.choice = change["new"]

    buttons.observe(chosen, names="value")
    print(f"Predict: {question}")
    print(
        "  " + "   ".join(f"({letter}) {o}" for letter, o in zip("abcdef", options, strict=False))
    )
    page.show_widget(
        VBox([HTML("<b>Your prediction</b>"), buttons]),
        'To answer, run this cell and click, or add choice="..." to the call.',
    )
    return prediction


def held(prediction: Prediction, truth: str, evidence: str) -> None:
    """Say what came out, and whether the prediction held.

    `truth`: the option that this run shows, computed by the cell. Raises ValueError if it is none.
    """
    if truth not in prediction.options:
        raise ValueError(f"{truth!r} is none of the options: {', '.join(prediction.options)}")
    print(f"{prediction.question}\n→ {truth}: {evidence}")
    if prediction.choice is None:
        print("(You made no prediction.)")
    elif prediction.choice == truth:
        print("✓ Your prediction held.")
    else:
        print(f"✗ You predicted: {prediction.choice}. Why was it otherwise?")


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
