"""What a judge has said of two responses, and why: read where it is kept, or computed.

Nobody is asked. A program that knows the truth says it again; of a large language model the verdict
and its reason lie in the store, and are found without its key, its provider or its settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ...common.prompts import as_text
from ...evaluation.judges import ProgramJudge, Question, Verdict, Winner, both_orders, build_prompt
from ...evaluation.judges.llm_judge import verdict_key
from ...evaluation.judges.store import VerdictStore
from ...tasks import Task
from ...tasks.rubric import Rubric, load_rubric


@dataclass(frozen=True)
class Said:
    """winner: of the two responses, or `unknown` where nothing is kept. reasons: one for each time
    that it was asked, or one in all. consistent: it said the same in both orders.
    """

    winner: Winner | Literal["unknown"] = "unknown"
    reasons: tuple[str, ...] = ()
    consistent: bool = True


class Memory(Protocol):
    """Whoever can tell what was said of two responses to a row's prompt."""

    def said(self, row: Mapping[str, Any], first: str, second: str) -> Said: ...


@dataclass(frozen=True)
class Nobody:
    """For a judge of which nothing is kept beside the pairs: a person, a reward model."""

    def said(self, row: Mapping[str, Any], first: str, second: str) -> Said:
        return Said()


@dataclass(frozen=True)
class Program:
    """The program that knows the truth. Its reasons: the metrics that tell the two apart."""

    task: Task

    def said(self, row: Mapping[str, Any], first: str, second: str) -> Said:
        verdict = both_orders(ProgramJudge(self.task), row, first, second)
        scores = [
            (metric.name, metric.score(row, first), metric.score(row, second))
            for metric in self.task.metrics
            if metric.kind == "truth"
        ]
        apart = [
            f"{name} {one:.2g} against {other:.2g}" for name, one, other in scores if one != other
        ]
        return Said(verdict.winner, ("; ".join(apart),) if apart else ())


@dataclass(frozen=True)
class Stored:
    """What the judge `identity` has answered by `rubric`, from the store."""

    identity: str
    rubric: Rubric
    store: VerdictStore

    def said(self, row: Mapping[str, Any], first: str, second: str) -> Said:
        reasons: list[str] = []
        try:
            verdict = both_orders(_Recalling(self, reasons), row, first, second)
        except LookupError:  # asked in one order only, or not at all
            verdict = Verdict("unknown")
        return Said(verdict.winner, tuple(reasons), verdict.consistent)


@dataclass(frozen=True)
class _Recalling:
    """A judge that says what it said, and notes why."""

    stored: Stored
    reasons: list[str]
    name: str = "stored"

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        question = Question("pair", as_text(row["prompt"]), (first, second))
        asked = build_prompt(question, self.stored.rubric)
        kept = self.stored.store.get(verdict_key(self.stored.identity, "pair", *asked))
        if kept is None:
            raise LookupError(question)
        self.reasons.append(kept.reason or kept.cause or "no reason given")
        return kept.value or "invalid"


def memory_of(identity: str | None, task: Task, artifacts: Path) -> Memory:
    """Who can tell what the judge with that `identity` said; see `Judge.identity`.

    The program that knows the truth, whatever its version; it also stands for a judge that nobody
    has noted. Raises ValueError where the store or the rubric is damaged.
    """
    if task.knows_truth and (identity or "program:").startswith("program:"):
        return Program(task)
    store = artifacts / "verdicts.sqlite"
    if identity and store.is_file():
        rubric = load_rubric(Path(os.environ.get("COURSE_RUBRIC") or task.rubric))
        return Stored(identity, rubric, VerdictStore(store))
    return Nobody()
