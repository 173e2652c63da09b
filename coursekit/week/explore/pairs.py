"""The judged pairs: what was chosen, by whom and why, where it went, and what the audit says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...common.prompts import as_text
from ...preferences import Audit
from ...tasks import Task
from .kept_verdicts import Memory

Rows = Sequence[Mapping[str, Any]]
Score = float | None


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt, and what was said of them.

    number: from 1, as they were judged. state: where it went: `train`, `validation`, or why nowhere
    (`tie`, `invalid`: then chosen and rejected are the first and the second). reasons: the judge's.
    consistent: it said the same in both orders. scores: its points, None where it gives none.
    flags: the checks of the audit that it fails. faults: of either, the lines that have one.
    """

    number: int
    prompt: str
    chosen: str
    rejected: str
    state: Literal["train", "validation", "tie", "invalid"]
    judge: str = ""
    reasons: tuple[str, ...] = ()
    consistent: bool = True
    scores: tuple[Score, Score] = (None, None)
    flags: tuple[str, ...] = ()
    faults: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    @property
    def is_triple(self) -> bool:
        return self.state in ("train", "validation")

    @property
    def is_longer(self) -> bool:
        """Whether the chosen response is the longer one."""
        return self.is_triple and len(self.chosen) > len(self.rejected)

    @property
    def is_telling(self) -> bool:
        """Whether a person should see it, if only few can be shown."""
        return bool(self.flags) or not self.consistent


def pairs_of(
    task: Task, judged: Rows, triples: Rows, train: Rows, audit: Audit | None, memory: Memory
) -> list[Pair]:
    """All judged pairs in their order; without any, the triples themselves.

    judged: as from `judge_pairs`. triples: those that they give, in their order. train: those of
    them that are trained on. audit: of `train`.
    """
    flags = dict(zip(map(id, train), flags_of(audit, train), strict=True))
    places = [
        ("train", flags[id(row)]) if id(row) in flags else ("validation", ()) for row in triples
    ]
    if judged:
        return list(_judged(task, judged, iter(places), memory))
    return [
        Pair(
            number,
            as_text(row["prompt"]),
            row["chosen"],
            row["rejected"],
            state,
            str(row.get("judge", "")),
            flags=found,
        )
        for number, (row, (state, found)) in enumerate(zip(triples, places, strict=True), start=1)
    ]


def flags_of(audit: Audit | None, triples: Rows) -> list[tuple[str, ...]]:
    """Of each of the audited triples, the checks that it fails."""
    flags: dict[int, list[str]] = defaultdict(list)
    for finding in audit.findings if audit else ():
        for row in finding.rows:
            flags[row].append(finding.check)
    return [tuple(flags[row]) for row in range(len(triples))]


def _judged(
    task: Task,
    judged: Rows,
    places: Iterator[tuple[str, tuple[str, ...]]],
    memory: Memory,
) -> Iterator[Pair]:
    """places: where each triple that the pairs give went, and its flags, in their order."""
    for number, pair in enumerate(judged, start=1):
        order = ("second", "first") if pair["winner"] == "second" else ("first", "second")
        texts = [pair[side]["response"] for side in order]
        is_triple = pair["winner"] in ("first", "second")
        state, flags = next(places) if is_triple else (pair["winner"], ())
        yield Pair(
            number,
            task.shown(pair),
            *texts,
            state,
            pair["judge"],
            memory.said(pair, *texts).reasons,
            pair["consistent"],
            tuple(pair[side].get("score") for side in order),
            flags,
            tuple(frozenset(task.faults(pair, text)) for text in texts),
        )
