"""The failure gallery's page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from ...common.hypertext import unbroken
from .page import as_table, as_written, beside_each_other
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
    from ..figures.results import plot_exhibit
    from ..gallery import RECORDED_TASK

    answer = marked(RECORDED_TASK, row, run.end.answers["this run"][place])
    texts = beside_each_other(
        (RECORDED_TASK.asked, "its answer"),
        [(as_written(escape(RECORDED_TASK.shown(row))), as_written(answer))],
        width=760,
    )
    won, low, high = run.end.win_rate
    wins = unbroken(f"wins over SFT: {won:.0%} ({low:.0%} to {high:.0%})")
    letter = escape(letter)
    return (
        '<div style="border-top:2px solid #8888;padding:6px 0;max-width:1000px">'
        f"<b>Run {letter}</b><br>{plot_exhibit(run.metrics).to_html()}{texts}{_scores(run)}"
        f'<p style="font-size:12px">{wins}</p>'
        f'<details style="margin:6px 0"><summary>What is wrong with run {letter}?</summary>'
        f"{_wrong(run)}</details></div>"
    )


def _scores(run: Recorded) -> str:
    models = ("SFT", "this run")
    metrics = list(run.end.scores["SFT"])
    lines = [
        (
            model,
            *(
                f"{run.end.scores[model][metric]:.{0 if metric == 'length' else 2}f}"
                for metric in metrics
            ),
        )
        for model in models
    ]
    return as_table(lines, ("", *metrics))


def _wrong(run: Recorded) -> str:
    from ...training import red_flags

    raised = [flag for flag in red_flags(run.metrics, run.beta) if not flag.harmless]
    named = "; ".join(f"{flag.name} since step {flag.since} ({flag.certainty})" for flag in raised)
    return (
        f'<p style="margin:4px 18px"><b>{escape(run.condition.name)}.</b> '
        f"{_emphasised(run.condition.story)}<br><i>Red flags: {escape(named or 'none')}.</i></p>"
    )


def _emphasised(text: str) -> str:
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", escape(text))
