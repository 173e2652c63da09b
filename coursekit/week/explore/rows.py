"""Rows of the page's tables: an evaluation prompt, a pair; what can be filtered; samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .answers import BASELINE, CANDIDATE, Answered
from .differences import set_off
from .gather import Glance, Sample
from .pairs import Pair

Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Kind:
    """A table of rows of one kind. name: for screen readers. legend: HTML. file: where all lie.

    head: of a glance, the names of the columns. line: of a glance and a row, its HTML. filters: by
    their names in the page, the words and the test.
    """

    name: str
    legend: str
    file: str
    head: Callable[[Glance], Sequence[str]]
    line: Callable[[Glance, Any], str]
    filters: Mapping[str, tuple[str, Test]]


def _line(kind: Mapping[str, tuple[str, Test]], row: Any, first: str, cells: Sequence[str]) -> str:
    names = "".join(f" is-{name}" for name, (_, holds) in kind.items() if holds(row))
    first = f'<td data-order="{row.number}"><span class="number">{row.number}</span> {first}</td>'
    return f'<tr class="row{names}">{first}{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _text(html: str, below: str = "") -> str:
    return f"<pre>{html}</pre>" + (f'<p class="small">{below}</p>' if below else "")


def _flags(flags: Sequence[str]) -> str:
    return "".join(f'<p class="small flag">⚑ {escape(flag)}</p>' for flag in flags)


def _reasons(reasons: Sequence[str], names: tuple[str, str]) -> str:
    """Of one that was asked in both orders, with the name of what was shown first."""
    if len(reasons) == len(names):
        reasons = [f"{name} first: {text}" for name, text in zip(names, reasons, strict=True)]
    return "".join(f'<p class="small">{escape(reason)}</p>' for reason in reasons)


# Answers.

_MARKS = {"won": "✓ won", "tied": "= tied", "lost": "✗ lost"}


def _answer(glance: Glance, row: Answered) -> str:
    first = (
        f'<span class="{row.outcome.replace(" ", "-")}">'
        f"{escape(_MARKS.get(row.outcome, row.outcome))}</span>"
        f"{_reasons(row.said.reasons, (CANDIDATE, BASELINE))}{_flags(row.flags)}"
    )
    others = {CANDIDATE: row.answers[BASELINE], BASELINE: row.answers[CANDIDATE]}
    cells = [f"<pre>{set_off(row.prompt)}</pre>"]
    for name in glance.models:
        text = row.answers.get(name)
        if text is None:
            cells.append("<i>no answer kept</i>")
            continue
        shown = set_off(text, others.get(name), row.faults[name])
        cells.append(_text(shown, _scores(glance, row.scores[name], text)))
    return _line(_OF_ANSWERS, row, first, cells)


def _scores(glance: Glance, scores: Mapping[str, float], text: str) -> str:
    """The metrics that tell what is right, where there are any; else all; and the length."""
    truths = {metric.name for metric in glance.workspace.task.metrics if metric.kind == "truth"}
    wanted = truths | {"overall"} if truths else set(scores) - {"length"}
    told = [f"{escape(name)} {value:.2g}" for name, value in scores.items() if name in wanted]
    if "overall" in scores:
        told.insert(0, f"<b>{told.pop()}</b>")  # last, as `Task.score` has it
    return " · ".join([*told, f"{len(text):,} characters"])


_OF_ANSWERS: dict[str, tuple[str, Test]] = {
    "lost": (f"lost to {BASELINE}", lambda row: row.outcome == "lost"),
    "tied": ("tied", lambda row: row.outcome == "tied"),
    "longer": (f"longer than {BASELINE}'s", lambda row: row.is_longer),
    "flagged": ("flagged", lambda row: bool(row.flags)),
}
ANSWERS = Kind(
    "Evaluation prompts with the answers of each model",
    f"What {CANDIDATE} and {BASELINE} say differently is <ins>underlined</ins>; a line with a "
    'fault is <span class="fault">✗ marked</span>, where the task knows.',
    "the folder answers, beside this run",
    lambda glance: ["verdict", glance.workspace.task.asked, *glance.models],
    _answer,
    _OF_ANSWERS,
)


# Pairs.

_STATES = {"train": "training", "validation": "held out", "tie": "= tie", "invalid": "no verdict"}


def _pair(glance: Glance, row: Pair) -> str:
    said = "" if row.consistent else '<p class="small flag">said otherwise in the other order</p>'
    judge = f'<p class="small">{escape(row.judge)}:</p>' if row.judge and row.reasons else ""
    reasons = _reasons(row.reasons, ("chosen", "rejected"))
    first = f"{_STATES[row.state]}{judge}{reasons}{said}{_flags(row.flags)}"
    cells = [f"<pre>{set_off(row.prompt)}</pre>"]
    texts = row.chosen, row.rejected
    for text, other, score, faults in zip(texts, texts[::-1], row.scores, row.faults, strict=True):
        points = "" if score is None else f"score {score:.2g} · "
        cells.append(_text(set_off(text, other, faults), f"{points}{len(text):,} characters"))
    return _line(_OF_PAIRS, row, first, cells)


_OF_PAIRS: dict[str, tuple[str, Test]] = {
    "flagged": ("flagged by the audit", lambda row: bool(row.flags)),
    "longer": ("the longer was chosen", lambda row: row.is_longer),
    "tied": ("no winner", lambda row: not row.is_triple),
    "contradicted": ("said otherwise in the other order", lambda row: not row.consistent),
}
PAIRS = Kind(
    "Preference pairs with what the judge said",
    "What one response has and the other has not is <ins>underlined</ins>. Of a pair without a "
    "winner the first response stands under chosen.",
    "pairs.jsonl",
    lambda glance: ["used for", glance.workspace.task.asked, "chosen", "rejected"],
    _pair,
    _OF_PAIRS,
)


# Samples.


def samples_table(samples: Sequence[Sample]) -> str:
    """A line a prompt, a column a step; underlined is what was not said at the step before."""
    steps = sorted({step for sample in samples for step in sample.answers})
    names = ["prompt", *(f"step {step}" for step in steps)]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    lines = []
    for number, sample in enumerate(samples, start=1):
        asked = set_off(sample.asked) if sample.asked else f"prompt {number}, not kept by this run"
        cells, before = [f"<pre>{asked}</pre>"], None
        for step in steps:
            text = sample.answers.get(step, "")
            cells.append(f"<pre>{set_off(text, before)}</pre>")
            before = text
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        "<p>Sampled at temperature 1. <ins>Underlined</ins> is what was not said at the step "
        'before.</p><div class="scroll"><table class="steps" aria-label="Samples by step"><thead>'
        f"<tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
