"""Responses to read: side by side with faults marked, token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ...tasks import Task
from . import page

if TYPE_CHECKING:
    from IPython.display import HTML
    from ipywidgets import Widget


def side_by_side(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    responses: Mapping[str, Sequence[str]],
    changes: bool = False,
) -> HTML:
    """A table with a line for each row: what it asks, then each model's response.

    Where the task knows the truth, a line of a response that has a fault is marked with ✗, and
    below each response stands its overall score.

    Args:
        rows: N rows of the task.
        responses: N responses under each model's name.
        changes: mark with + the lines that the model in the column before did not write.
    """
    from IPython.display import HTML

    lines = []
    for index, row in enumerate(rows):
        cells = [page.as_written(escape(task.shown(row)))]
        before: str | None = None
        for texts in responses.values():
            cells.append(_response(task, row, texts[index], before if changes else None))
            before = texts[index]
        lines.append(cells)
    table = page.beside_each_other((task.asked, *responses), lines)
    legend = [f"{page.fault('✗')} marks a fault"] * ("✗" in table)
    legend += [f"{page.changed('')} marks what the column before does not have"] * changes
    below = f'<p style="font-size:12px">{"; ".join(legend)}.</p>' if legend else ""
    return HTML(table + below)


def _response(task: Task, row: Mapping[str, Any], text: str, before: str | None) -> str:
    score = f"score {task.truth(row, text):.2f}" if task.knows_truth else ""
    return (
        f"{page.as_written(marked(task, row, text, before))}"
        f'<div style="margin-top:6px;font-size:12px">{score}</div>'
    )


def marked(task: Task, row: Mapping[str, Any], text: str, before: str | None = None) -> str:
    """The response's lines: faults marked, and with `before` those that it did not have."""
    faults = task.faults(row, text)
    known = set(text.split("\n") if before is None else before.split("\n"))
    lines = []
    for line in text.split("\n"):
        shown = page.fault(f"✗ {escape(line)}") if line in faults else escape(line)
        lines.append(shown if line in known else page.changed(shown))
    return "\n".join(lines)


def pager(
    task: Task, rows: Sequence[Mapping[str, Any]], responses: Mapping[str, Sequence[str]]
) -> Widget:
    """Page through `side_by_side`, one row at a time, changes set off. Needs a running kernel.

    Arrow keys move the slider when it has the focus. Returns the slider.
    """
    from IPython.display import clear_output, display
    from ipywidgets import IntSlider, Output, VBox

    slider = IntSlider(value=1, min=1, max=len(rows), description="prompt", continuous_update=False)
    panel = Output()

    def draw(_=None) -> None:
        at = slider.value - 1
        shown = {name: texts[at : at + 1] for name, texts in responses.items()}
        with panel:
            clear_output(wait=True)
            display(side_by_side(task, rows[at : at + 1], shown, changes=True))

    slider.observe(draw, names="value")
    draw()
    page.show_widget(VBox([slider, panel]), "Run this cell to page through the answers.")
    return slider


def token_strip(tokens: Sequence[str], logps: Sequence[float], skip: int = 0) -> HTML:
    """Tokens in a row, each on a colour that says how likely the model found it.

    Args:
        tokens: T texts.
        logps: T - 1 log-probabilities in nats: of each token but the first, given those before it.
        skip: the first `skip` tokens (the prompt) are grey, without a number: their probabilities
            do not count.
    """
    from IPython.display import HTML

    pieces = []
    for index, token in enumerate(tokens):
        shown = escape(token).replace("\n", "↵").replace(" ", "&nbsp;") or "∅"
        line_ends = "<br>" if "\n" in token and index >= skip else ""
        style = "padding:1px 2px;margin:1px;border-radius:3px;display:inline-block"
        if index < skip or index == 0:
            pieces.append(f'<span style="{style};color:#666">{shown}</span>')
            continue
        probability = math.exp(logps[index - 1])
        # From orange (unlikely) to white (certain): light throughout, so that black text reads.
        style += f";color:#000;background:rgba(230,159,0,{0.85 * (1 - probability):.2f})"
        title = f"p = {probability:.3f}, log p = {logps[index - 1]:.2f}"
        pieces.append(
            f'<span style="{style}" title="{title}">{shown}'
            f'<sub style="font-size:9px;color:#000">{probability:.2f}</sub></span>{line_ends}'
        )
    return HTML(
        '<div style="font:13px monospace;line-height:2;background:#fff;padding:8px">'
        + "".join(pieces)
        + "</div>"
        '<p style="font-size:12px">Grey: the prompt. The small number is each token\'s probability '
        "given all before it; the stronger the orange, the less likely.</p>"
    )
