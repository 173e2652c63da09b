"""What a notebook shows: reports side by side with their faults marked, and tables with units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .triage import Alert, report_faults, score_report

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from pandas.io.formats.style import Styler

_CELL = "vertical-align:top;text-align:left;padding:6px 12px;border:1px solid #8884"
_TEXT = (
    "white-space:pre-wrap;word-break:normal;margin:0;font-size:12px;line-height:1.5;text-align:left"
)
_FAULT = "color:#D55E00;font-weight:bold"


def side_by_side(rows: Sequence[Mapping[str, Any]], responses: Mapping[str, Sequence[str]]) -> HTML:
    """A table with a line for each row: its alert, then each model's response.

    A line of a report that the rubric objects to is marked with ✗ and coloured; below each report
    stands its overall score.

    Args:
        rows: N rows with `alert`.
        responses: N responses under each model's name.
    """
    from IPython.display import HTML

    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in ("alert", *responses))
    body = []
    for index, row in enumerate(rows):
        alert = Alert(**row["alert"])
        cells = [f'<td style="{_CELL}"><pre style="{_TEXT}">{escape(alert.text)}</pre></td>']
        for texts in responses.values():
            score = score_report(alert, texts[index]).overall
            cells.append(
                f'<td style="{_CELL}"><pre style="{_TEXT}">{_marked(alert, texts[index])}</pre>'
                f'<div style="margin-top:6px;font-size:12px">score {score:.2f}</div></td>'
            )
        body.append(f"<tr>{''.join(cells)}</tr>")
    return HTML(
        f'<table style="border-collapse:collapse"><tr>{head}</tr>{"".join(body)}</table>'
        f'<p style="font-size:12px"><span style="{_FAULT}">✗</span> marks what the rubric objects '
        "to.</p>"
    )


def _marked(alert: Alert, text: str) -> str:
    faults = report_faults(alert, text)
    lines = []
    for line in text.split("\n"):
        if line in faults:
            lines.append(f'<span style="{_FAULT}">✗ {escape(line)}</span>')
        else:
            lines.append(escape(line))
    return "\n".join(lines)


def comparison(table: pd.DataFrame) -> Styler:
    """`evaluation.comparison_table` for reading: two digits, the interval in one column.

    A difference whose interval leaves out zero is bold.
    """
    shown = table.drop(columns=["low", "high"]).rename_axis(None)
    shown["95 % interval"] = [
        f"{low:+.2f} to {high:+.2f}" for low, high in zip(table["low"], table["high"], strict=True)
    ]
    clear = (table["low"] > 0) | (table["high"] < 0)
    return (
        shown.style.format(precision=2)
        .format("{:+.2f}", subset=["difference"])
        .apply(
            lambda column: ["font-weight:bold" if is_clear else "" for is_clear in clear],
            subset=["difference", "95 % interval"],
        )
    )


def claim(holds: bool, sentence: str) -> None:
    """State a result of this run and check it: prints the sentence, or raises AssertionError."""
    if not holds:
        raise AssertionError(f"This run does not show it: {sentence}")
    print(f"✓ {sentence}")
