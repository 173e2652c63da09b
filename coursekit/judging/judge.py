"""The protocol: a judge sees one row (prompt and what is known of it) and two responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Winner = Literal["first", "second", "tie"]


@dataclass(frozen=True)
class Verdict:
    """Which response is better. `consistent`: the judge said the same with the order changed."""

    winner: Winner
    consistent: bool = True


class Judge(Protocol):
    """Anything with a name that can compare two responses to the same prompt."""

    name: str

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        """The better of two responses to `row["prompt"]`, shown in this order."""
        ...


def both_orders(judge: Judge, row: Mapping[str, Any], first: str, second: str) -> Verdict:
    """Ask `judge` in both orders. A winner must win in both; a contradiction is a tie."""
    if first == second:
        return Verdict("tie")
    there, back = judge.compare(row, first, second), judge.compare(row, second, first)
    mirrored: Winner = {"first": "second", "second": "first", "tie": "tie"}[back]
    if there == mirrored:
        return Verdict(there)
    return Verdict("tie", consistent=False)
