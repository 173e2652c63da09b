"""The failure gallery's page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from .page import as_table, as_written
from .responses import marked

if TYPE_CHECKING:
    from IPython.display import HTML

    from ..gallery import Recorded


def exhibits(cases: Mapping[str, Recorded], row: Mapping[str, Any], place: int) -> HTML:
    """Recorded runs under each other: curves, an answer, scores; what is wrong folds away.

    Args:
        cases: runs with `end`, by the letter to call them. row: the recorded task's row whose
            answer is shown. place: of that row among those whose answers were recorded.
    """
    from IPython.display import HTML

    return HTML("".join(_exhibit(letter, run, row, place) for letter, run in cases.items()))


def _exhibit(letter: str, run: Recorded, row: Mapping[str, Any], place: int) -> str:
    from ...training import red_flags
    from ..figures.results import plot_exhibit
    from ..gallery import RECORDED_TASK

    end, letter = run.end, escape(letter)
    scores = as_table(
        [
            (
                escape(metric),
                *(
                    f"{end.scores[model][metric]:.{0 if metric == 'length' else 2}f}"
                    for model in ("SFT", "this run")
                ),
            )
            for metric in end.scores["SFT"]
        ],
        ("", "SFT", "this run"),
    )
    won, low, high = end.win_rate
    raised = [flag for flag in red_flags(run.metrics, run.beta) if not flag.harmless]
    named = "; ".join(f"{flag.name} since step {flag.since} ({flag.certainty})" for flag in raised)
    part = "flex:1 1 230px;max-width:360px"
    return (
        '<div style="border-top:2px solid #8888;padding:6px 0;max-width:1000px">'
        f"<b>Run {letter}</b><br>{plot_exhibit(run.metrics).to_html()}"
        '<div style="display:flex;gap:24px;flex-wrap:wrap;align-items:flex-start">'
        f'<div style="{part}">{as_written(escape(RECORDED_TASK.shown(row)))}</div>'
        f'<div style="{part}">'
        f"{as_written(marked(RECORDED_TASK, row, end.answers['this run'][place]))}</div>"
        f"<div>{scores}<p style='font-size:12px'>wins over SFT: {won:.0%} ({low:.0%} to {high:.0%})"
        f"</p></div></div><details style='margin:6px 0'><summary>What is wrong with run {letter}?"
        f'</summary><p style="margin:4px 18px"><b>{escape(run.condition.name)}.</b> '
        f"{_emphasised(run.condition.story)}<br><i>Red flags: {escape(named or 'none')}.</i></p>"
        "</details></div>"
    )


def _emphasised(text: str) -> str:
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", escape(text))
