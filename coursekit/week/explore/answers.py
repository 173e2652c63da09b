"""The evaluation, prompt by prompt: every model's answer, its scores, and which was preferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...preferences import audit
from ...tasks import Task
from .kept_verdicts import Memory, Said
from .pairs import flags_of

CANDIDATE, BASELINE = "SFT+DPO", "SFT"
_OUTCOMES = {"first": "won", "tie": "tied", "second": "lost", "invalid": "no verdict"}
OUTCOMES = (*_OUTCOMES.values(), "not judged")
# Of what the audit looks for, that which says something of an answer by itself.
_OF_ANSWERS = ("empty responses", "truncated responses", "lopsided lengths")


@dataclass(frozen=True)
class Answered:
    """One evaluation prompt. scores: by model, then by metric. said: `first` where the candidate
    won against the baseline. faults: of each model, the lines that have one.
    """

    number: int
    prompt: str
    answers: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]]
    said: Said
    flags: tuple[str, ...]
    faults: Mapping[str, frozenset[str]]

    @property
    def outcome(self) -> str:
        """What became of the candidate: won, tied, lost, or not judged."""
        return _OUTCOMES.get(self.said.winner, "not judged")

    @property
    def is_longer(self) -> bool:
        """Whether the candidate's answer is longer than the baseline's."""
        return len(self.answers[CANDIDATE]) > len(self.answers[BASELINE])

    @property
    def is_telling(self) -> bool:
        """Whether a person should see it, if only few can be shown."""
        return bool(self.flags) or self.outcome == "lost"


def answers_of(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    kept: Mapping[str, Sequence[str | None]],
    memory: Memory,
) -> list[Answered]:
    """The rows to which candidate and baseline have answered, with the answers that are kept.

    They are audited as pairs are, for cut and empty ones.
    """
    places = [
        place
        for place in range(len(rows))
        if None not in (kept[CANDIDATE][place], kept[BASELINE][place])
    ]
    sides = (("chosen", CANDIDATE), ("rejected", BASELINE))
    pairs = [
        {"prompt": rows[place]["prompt"], **{side: kept[name][place] for side, name in sides}}
        for place in places
    ]
    flags = flags_of(audit(pairs) if pairs else None, pairs)
    found = []
    for place, pair, checks in zip(places, pairs, flags, strict=True):
        row = rows[place]
        answers = {name: texts[place] for name, texts in kept.items() if texts[place] is not None}
        found.append(
            Answered(
                place + 1,
                task.shown(row),
                answers,
                {name: task.score(row, text) for name, text in answers.items()},
                memory.said(row, pair["chosen"], pair["rejected"]),
                tuple(check for check in checks if check in _OF_ANSWERS),
                {name: frozenset(task.faults(row, text)) for name, text in answers.items()},
            )
        )
    return found
