"""Triage as a task: an alert goes in, a report of eight lines comes out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ...common.made_from import code_version
from ...common.profile import Profile
from ..task import SPLITS, Metric, Probe, Row, Task
from . import alerts, corpus, demonstrations, policy, reports, scoring
from .alerts import FRESH, Alert, sample_alerts
from .corpus import INSTRUCTIONS, QUESTIONS, Document, opens_as
from .demonstrations import sample_demonstrations
from .policy import SEVERITIES
from .reports import UNKNOWN, ask, expected_values, parse_report, write_report
from .scoring import fact_accuracy, report_faults, score_report


def alert_of(row: Mapping[str, Any]) -> Alert:
    """The alert that a row asks about."""
    return Alert(**row["facts"])


def _scored(name: str) -> Any:
    return lambda row, text: getattr(score_report(alert_of(row), text), name)


def _names_a_cause(row: Mapping[str, Any], text: str) -> float:
    """1 if the report gives a cause, right or wrong."""
    return float(parse_report(text).values.get("cause", UNKNOWN) != UNKNOWN)


class Triage(Task):
    """Triage reports, whose truth is known: the facts of every alert are.

    A row's `facts` are the alert's. Alerts for evaluation are drawn with seeds from `FRESH` on:
    they had no part in any choice.
    """

    name = "triage"
    title = "Triage reports"
    description = "It writes triage reports for incident alerts."
    limits = (
        "Evaluated on made-up alerts by a program that knows their facts; nothing is known of "
        "other texts.",
        "English alerts in one made-up form; other languages and forms were never seen.",
    )
    rubric = Path(__file__).parent / "rubric.md"
    asked = "alert"
    metrics = (
        Metric("format", _scored("format")),
        Metric("names a cause", _names_a_cause, better=None),
        Metric("length", lambda row, text: len(text), bounds=None, better=None),
        Metric("severity", _scored("severity"), "truth"),
        Metric("faithfulness", _scored("faithfulness"), "truth"),
        Metric("usefulness", _scored("usefulness"), "truth"),
    )

    @property
    def identity(self) -> str:
        parts = (alerts, corpus, demonstrations, policy, reports, scoring, sys.modules[__name__])
        return f"{self.name}:{code_version(*parts)}"

    @property
    def scoring_identity(self) -> str:
        parts = (alerts, policy, reports, scoring, sys.modules[__name__])
        return f"{self.name}:{code_version(*parts)}"

    def rows(self, split: str, n: int, profile: Profile, seed: int = 0) -> list[Row]:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
        if split == "demonstrations":
            return sample_demonstrations(n, profile, seed)
        seed = seed + FRESH if split == "evaluation" else seed
        return [
            {"prompt": ask(alert, profile), "facts": alert.to_dict()}
            for alert in sample_alerts(split, n, seed)
        ]

    def reference(self, row: Mapping[str, Any]) -> str:
        return write_report(expected_values(alert_of(row)))

    def shown(self, row: Mapping[str, Any]) -> str:
        return alert_of(row).text

    def faults(self, row: Mapping[str, Any], response: str) -> set[str]:
        return report_faults(alert_of(row), response)

    def copied(self, row: Mapping[str, Any], response: str) -> dict[str, bool]:
        return fact_accuracy(alert_of(row), response)

    def truth(self, row: Mapping[str, Any], response: str) -> float:
        """The mean of the truth metrics and of the format, which the rubric asks for too."""
        return score_report(alert_of(row), response).overall

    def score(self, row: Mapping[str, Any], response: str) -> dict[str, float]:
        scores = score_report(alert_of(row), response).to_dict()  # once for all metrics
        scores |= {"names a cause": _names_a_cause(row, response), "length": len(response)}
        return {name: scores[name] for name in (*(m.name for m in self.metrics), "overall")}

    def probes(self, n: int, seed: int = 0) -> list[Probe]:
        """Notes and questions like those the base model learnt from, about other services."""
        documents = corpus.corpus("evaluation", seed=seed)
        notes = (document for document in documents if document.kind != "question")
        asked = corpus.corpus("evaluation", seed, questions=1.0)
        return [_probe(document) for document in (*islice(notes, n), *islice(asked, n))]


def _probe(document: Document) -> Probe:
    instruction = document.prompt.split("\n", 1)[0]
    if document.kind == "question":
        severity = QUESTIONS[instruction] == "severity"
        choices = tuple(f"severity {name}" for name in SEVERITIES) if severity else ()
        return Probe(document.prompt, document.response, choices=choices)
    if style := INSTRUCTIONS.get(instruction):  # one style is asked for, and it is not the report
        return Probe(
            document.prompt, document.response, "instruction", lambda text: opens_as(style, text)
        )
    return Probe(document.prompt, document.response, "text")


TRIAGE = Triage()
