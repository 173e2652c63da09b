"""Designs beside each other: what each made of the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .auditing import audit

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[dict[str, Any]]


def design_table(made: Mapping[str, tuple[Rows, Rows]], prompts: int) -> pd.DataFrame:
    """A line for each design, from its triples and judged pairs on so many prompts.

    Columns: `triples`, `triples a prompt`; `ties`, the share of the pairs; `mean margin, points` of
    chosen over rejected (missing where nobody gave points); `the longer won`, a share; `between its
    sources`, what the audit finds there.
    """
    import pandas as pd

    return pd.DataFrame({name: _line(*rows, prompts) for name, rows in made.items()}).T


def _line(triples: Rows, pairs: Rows, prompts: int) -> dict[str, Any]:
    ties = sum(pair["winner"] == "tie" for pair in pairs) / len(pairs)
    if not triples:
        return {"triples": 0, "triples a prompt": 0.0, "ties": ties}
    found = audit(triples, pairs=pairs)
    longer = found.shares.get("the longer won")
    return {
        "triples": len(triples),
        "triples a prompt": len(triples) / prompts,
        "ties": ties,
        "mean margin, points": sum(found.margins) / len(found.margins) if found.margins else None,
        "the longer won": longer.value if longer else None,
        "between its sources": found["source confound"].found.split(";")[0],
    }
