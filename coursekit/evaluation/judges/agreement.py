"""How far two judges agree beyond chance: Cohen's kappa with an interval."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...common.statistics import bootstrap

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Agreement:
    """Two raters on the same N items.

    observed: share of items on which they agree; expected: the share that two raters with these
    habits would reach by chance; kappa: (observed - expected) / (1 - expected), 1 for full
    agreement, 0 for chance, nan where each gave one and the same label throughout (chance alone
    explains everything); low, high: its 95 % interval; table: counts, first rater's labels down,
    second's across.
    """

    observed: float
    expected: float
    kappa: float
    low: float
    high: float
    table: pd.DataFrame

    def __str__(self) -> str:
        return (
            f"agreement {self.observed:.1%} (by chance {self.expected:.1%}), "
            f"kappa {self.kappa:.2f} [{self.low:.2f}, {self.high:.2f}]"
        )


def agreement(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    groups: Sequence[Hashable] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Cohen's kappa (1960, doi:10.1177/001316446002000104) of two raters' labels.

    The interval is a percentile bootstrap: over the items, or over `groups`, what each item belongs
    to (its prompt), as items of a group are drawn together. Draws in which both raters gave one and
    the same label throughout have no kappa and are left out.

    Raises ValueError for no items, or different numbers of labels or groups.
    """
    import pandas as pd

    if len(first) != len(second) or not len(first) or len(groups or first) != len(first):
        raise ValueError(
            f"{len(first)} labels and {len(second)}: agreement needs two labels of each item"
            + (f", and its group (there are {len(groups)})" if groups else "")
        )
    labels = sorted(set(first) | set(second), key=str)
    place = {label: number for number, label in enumerate(labels)}
    shape = len(labels), len(labels)
    cells = [
        place[one] * len(labels) + place[other] for one, other in zip(first, second, strict=True)
    ]
    table = _counts(cells, [0] * len(cells), shape)[0]

    def kappas(tables: np.ndarray) -> np.ndarray:
        return _kappa(*_shares(tables.reshape(-1, *shape)))

    if groups:
        each = _counts(cells, groups, shape).reshape(-1, table.size)  # (G, L * L)
        ends = bootstrap(lambda taken: kappas(taken @ each), len(each), draws=draws, seed=seed)
    else:
        ends = bootstrap(kappas, table.ravel(), draws=draws, seed=seed)
    observed, expected = _shares(table)
    kappa = _kappa(observed, expected)
    named = pd.DataFrame(table.astype(int), index=labels, columns=labels)
    return Agreement(float(observed), float(expected), float(kappa), *ends, table=named)


def _counts(cells: Sequence[int], groups: Sequence[Hashable], shape: tuple[int, int]) -> np.ndarray:
    """Each group's count table (G, L, L), from the cell of the table that every item lies in."""
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    counts = np.zeros((len(number), shape[0] * shape[1]))
    np.add.at(counts, ([number[group] for group in groups], cells), 1)
    return counts.reshape(-1, *shape)


def _kappa(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Agreement beyond chance; NaN where chance alone explains everything."""
    return (observed - expected) / np.where(expected < 1, 1 - expected, np.nan)


def _shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observed agreement and that expected by chance, of count tables (..., L, L)."""
    share = counts / counts.sum((-2, -1), keepdims=True)
    observed = np.trace(share, axis1=-2, axis2=-1)
    expected = (share.sum(-1) * share.sum(-2)).sum(-1)
    return observed, expected
