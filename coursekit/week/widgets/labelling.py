"""Labelling pairs in a notebook, by keys or buttons."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from ...common.prompts import as_text
from . import page

if TYPE_CHECKING:
    from ipywidgets import Widget

    from ...evaluation.judges.person import Labelling, Shown

# Keys for who labels, and what they do.
_KEYS = {"1": "left", "2": "right", "3": "tie", "t": "tie", "s": "skip", "u": "undo"}
_BUTTONS = {"1": "1: left", "2": "2: right", "3": "3: tie", "s": "s: skip", "u": "u: undo"}


def label_pairs(work: Labelling, rubric: str = "") -> Widget:
    """Label pairs: two responses side by side, 1 or 2 for the better, 3 a tie, s skip, u undo.

    Plain ipywidgets, so that it works in JupyterLab, Colab and VS Code; without a mouse: type into
    the box, or go through the buttons with Tab. Every label is saved at once, so it may be left and
    called again at any time. Needs a running kernel. Returns the widget.

    rubric: markdown, to unfold beside the pairs.
    """
    from ipywidgets import HTML, Button, HBox, Text, VBox

    head, pair = HTML(), HTML()
    keys = Text(placeholder="1, 2, 3 (tie), s (skip), u (undo)", description="keys")
    buttons = {key: Button(description=name) for key, name in _BUTTONS.items()}

    def draw() -> None:
        head.value = f"<b>{work.done} of {len(work.items)} pairs labelled</b>, saved"
        pair.value = _pair(work.current)

    def press(typed: str) -> None:
        for key in typed:
            _act(work, key)
        draw()

    keys.observe(lambda change: press(_added(change)), names="value")
    for key, button in buttons.items():
        button.on_click(lambda _, key=key: press(key))
    draw()
    parts = [head, pair, keys, HBox(list(buttons.values()))]
    box = VBox(parts + ([HTML(_folded(rubric))] if rubric else []))
    page.show_widget(box, "Run this cell to label pairs.")
    return box


def _act(work: Labelling, key: str) -> None:
    """What a key stands for; other keys do nothing, nor does a label when all is labelled."""
    action = _KEYS.get(key.lower())
    if action == "undo":
        work.undo()
    elif action and work.current:
        work.label(action)


def _added(change: dict[str, Any]) -> str:
    """What was typed at the end of the box.

    The box keeps what was typed: emptied from here, it would race with who types on.
    """
    old, new = change["old"], change["new"]
    return new[len(old) :] if new.startswith(old) else ""


def _pair(shown: Shown | None) -> str:
    """The prompt and both responses beside each other, or thanks when no pair is left."""
    if shown is None:
        return "<p>✓ All pairs have a label. Thank you.</p>"
    texts = (as_text(shown.row["prompt"]), shown.left, shown.right)
    cells = [page.as_written(escape(text)) for text in texts]
    return page.beside_each_other(("prompt", "1", "2"), [cells])


def _folded(rubric: str) -> str:
    return f"<details><summary>The rubric</summary>{page.as_written(escape(rubric))}</details>"
