"""Judges beside the truth: what each gets wrong, and what asking in both orders mends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...common.prompts import prompt_key
from .agreement import agreement
from .judge import POINTS, Judge, Verdict, Winner, ask_all, both_orders, winner_by

if TYPE_CHECKING:
    import pandas as pd


def compare_judges(
    items: Iterable[tuple[dict[str, Any], str, str]], judges: Sequence[Judge], truth: Judge
) -> pd.DataFrame:
    """One line a judge, on items (row, one response, another); `truth` decides what is right.

    Columns, as shares unless said otherwise:
        wrong, asked once: of the pairs that differ in truth, those where the first answer named the
            worse response.
        flipped: of all pairs, those where the answer changed with the order.
        kept: of all pairs, those with the same winner in both orders.
        invalid: of all pairs, those without a verdict (no answer that could be read).
        wrong, of those kept: of kept pairs that differ in truth.
        the longer won: of kept pairs of unequal length.
        win rate off by: how much higher the judge puts the first response's win rate than the truth
            does, a tie counting half, on all pairs that have a verdict; near 0 for errors that go
            both ways on even pairs.
        kappa: with the truth, on all pairs (first, second or tie, both orders), and its interval.

    Raises ValueError if no item differs in truth.
    """
    import pandas as pd

    items = list(items)
    right = [both_orders(truth, row, one, other).winner for row, one, other in items]
    differ = [label != "tie" for label in right]
    if not any(differ):
        raise ValueError("in truth all these pairs are ties: no judge can be wrong on them")
    lines = [
        {"judge": judge.name, **_beside_truth(items, ask_all(judge, items), right)}
        for judge in judges
    ]
    return pd.DataFrame(lines).set_index("judge")


def _beside_truth(
    items: Sequence[tuple[Any, str, str]], verdicts: Sequence[Verdict], right: Sequence[Winner]
) -> dict[str, float]:
    """What `compare_judges` tells of one judge."""
    once = [verdict.answers[0] if verdict.answers else "tie" for verdict in verdicts]
    given = [verdict.winner for verdict in verdicts]
    kept = [(i, winner) for i, winner in enumerate(given) if winner in ("first", "second")]
    lengths = [(len(one), len(other)) for _, one, other in items]
    longer = [
        (lengths[i][0] > lengths[i][1]) == (winner == "first")
        for i, winner in kept
        if lengths[i][0] != lengths[i][1]
    ]
    found = agreement(given, right, [prompt_key(row["prompt"]) for row, _, _ in items])
    return {
        "wrong, asked once": _share(_wrong(once, right)),
        "flipped": _share([not verdict.consistent for verdict in verdicts]),
        "kept": len(kept) / len(given),
        "invalid": _share([winner == "invalid" for winner in given]),
        "wrong, of those kept": _share(
            [winner != right[i] for i, winner in kept if right[i] != "tie"]
        ),
        "the longer won": _share(longer),
        "win rate off by": _points(given) - _points(right),
        "kappa": found.kappa,
        "low": found.low,
        "high": found.high,
    }


def calibration(
    items: Iterable[tuple[dict[str, Any], str, str]],
    judges: Sequence[Judge],
    truth: Any,
    edges: Sequence[float] = (0.0, 0.125, 0.3, 1.0),
) -> pd.DataFrame:
    """How often each judge is right, by how much the two responses differ in truth.

    A judge is of use where differences are large, and should call ties where there are none.

    Args:
        truth: a judge with `score`. edges: ends of the classes of |difference in score|; the first
            class holds the pairs without any difference.

    Returns a line a class: `difference` (its upper end), `pairs`, and for each judge the share of
    pairs whose verdict, both orders asked, is the true one; a tie where there is no difference.
    """
    import pandas as pd

    items = list(items)
    differences = [truth.score(row, one) - truth.score(row, other) for row, one, other in items]
    right = [winner_by(difference) for difference in differences]
    classes = [
        next(place for place, edge in enumerate(edges) if abs(difference) <= edge + 1e-9)
        for difference in differences
    ]
    table: dict[str, list[float]] = {
        "difference": list(edges),
        "pairs": [classes.count(place) for place in range(len(edges))],
    }
    for judge in judges:
        verdicts = ask_all(judge, items)
        hits = [given.winner == wanted for given, wanted in zip(verdicts, right, strict=True)]
        table[judge.name] = [
            _share([hit for hit, found in zip(hits, classes, strict=True) if found == place])
            for place in range(len(edges))
        ]
    return pd.DataFrame(table)


def _wrong(given: Sequence[str], right: Sequence[str]) -> list[bool]:
    """For each pair that differs in truth, whether the worse response was named."""
    return [
        answer not in (label, "tie", "invalid")
        for answer, label in zip(given, right, strict=True)
        if label != "tie"
    ]


def _points(winners: Sequence[str]) -> float:
    """The first response's win rate."""
    return _share([points for winner in winners if (points := POINTS[winner]) is not None])


def _share(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
