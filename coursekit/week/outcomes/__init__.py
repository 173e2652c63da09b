"""What the sessions' results show: which option of a prediction came out, which claims hold.

A cell measures; a function here takes what was measured and gives an `Outcome` for `held`, or the
`Claim`s for `claims`. So a cell is the lesson, and where the lines are drawn is here, and tested.
"""

from __future__ import annotations

from typing import NamedTuple

from ...common.statistics import Estimate


class Outcome(NamedTuple):
    """Which option of a prediction came out, by its letter, and what shows it."""

    option: str
    evidence: str


class Claim(NamedTuple):
    """A sentence about a run, and whether the run bears it out."""

    holds: bool
    sentence: str


def by_interval(found: Estimate, above: str, below: str, neither: str, at: float = 0.0) -> str:
    """The option for an interval that lies `above` the value `at`, `below` it, or on both sides."""
    return above if found.low > at else below if found.high < at else neither


def with_interval(found: Estimate, form: str) -> str:
    """An estimate as "value (low to high)", each number in the format `form`."""
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"
