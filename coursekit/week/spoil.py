"""Preference data spoilt on purpose, to see whether an audit finds what is wrong with them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def spoil(triples: Sequence[Row], evaluation: Sequence[Any], n: int, seed: int = 0) -> list[Row]:
    """A copy of `triples` with four faults, each in `n` rows; they may fall on the same row.

    Pairs of twice the same text, prompts taken from the `evaluation` (in capitals), swapped labels
    (their scores stay), and `n` rows doubled at the end.
    """
    rng = random.Random(seed)
    rows = [dict(row) for row in triples]
    for row in rng.sample(rows, n):
        row["rejected"] = row["chosen"]
    for row in rng.sample(rows, n):
        row["prompt"] = rng.choice(evaluation).upper()
    for row in rng.sample(rows, n):
        for name in ("", "_score"):
            if f"chosen{name}" in row:
                chosen, rejected = f"chosen{name}", f"rejected{name}"
                row[chosen], row[rejected] = row[rejected], row[chosen]
    return rows + rows[:n]
