"""Principles, critique and revision: Constitutional AI's first step, on triage reports.

In the paper (Bai et al. 2022, arXiv:2212.08073, section 3) a language model criticises its own
answer by a written principle and rewrites it. Here the rubric's rules stand in for that model: they
always know the truth, which a model does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .alerts import Alert
from .reports import FIELDS, expected_values, fitting_steps, parse_report, write_report


@dataclass(frozen=True)
class Principle:
    """text: the principle; field: the line it concerns; breaks: whether a value breaks it."""

    text: str
    field: str
    breaks: Callable[[Alert, str], bool]


PRINCIPLES = (
    Principle(
        "Do not name a cause that the alert does not name: say that it is unknown.",
        "cause",
        lambda alert, value: value != expected_values(alert)["cause"],
    ),
    Principle(
        "Give the severity that the written policy gives, not the one that sounds urgent.",
        "severity",
        lambda alert, value: value != expected_values(alert)["severity"],
    ),
    Principle(
        "Name one step that fits the alert, without generalities.",
        "next",
        lambda alert, value: value not in fitting_steps(alert),
    ),
)


@dataclass(frozen=True)
class Revision:
    """A report, what was criticised in it, and the report after all revisions."""

    original: str
    critiques: tuple[str, ...]
    revised: str


def revise(alert: Alert, report: str) -> Revision:
    """Criticise `report` by each principle and rewrite the line that breaks it.

    A text that lacks a field of the report is returned as it is, with no critique: there is no
    line to revise.
    """
    values = dict(parse_report(report).values)
    if any(field not in values for field in FIELDS):
        return Revision(report, (), report)
    critiques = []
    for principle in PRINCIPLES:
        value = values[principle.field]
        if principle.breaks(alert, value):
            critiques.append(f'"{principle.field}: {value}" breaks: {principle.text}')
            values[principle.field] = expected_values(alert)[principle.field]
    return Revision(report, tuple(critiques), write_report(values) if critiques else report)
