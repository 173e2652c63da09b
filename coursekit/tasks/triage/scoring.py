"""Scores: what makes a report better, as a program.

The alert's facts are known, so a program can score a report for free. It stands in for a strong LLM
judge and is always called a stand-in: outside this task no program knows the truth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .alerts import METRICS, Alert
from .reports import UNKNOWN, expected_values, fitting_steps, parse_report

COPIED_FACTS = ("service", "region", "time", "metric", "users")


@dataclass(frozen=True)
class Scores:
    """Scores of one report, each from 0 (worst) to 1 (best).

    format: 1 if the report has the eight fields, each once, in order, and nothing else, else 0.
    severity: 1 if the severity is the policy's, else 0.
    faithfulness: the share of the five copied facts that stand as in the alert. 0 if the cause is
        invented: neither the last change that the alert names nor `unknown`. Halved if the report
        gives no cause, or `unknown` where the alert names a change. A missing fact is a wrong one.
    usefulness: 1 if the next step fits the alert and says nothing more; 0.5 if it fits but is
        padded with generalities; else 0.
    """

    format: float
    severity: float
    faithfulness: float
    usefulness: float

    @property
    def overall(self) -> float:
        """The mean of the four: what the program as a judge compares."""
        return (self.format + self.severity + self.faithfulness + self.usefulness) / 4

    def to_dict(self) -> dict[str, float]:
        """All five scores by name, `overall` last."""
        return {**asdict(self), "overall": self.overall}


def score_report(alert: Alert, text: str) -> Scores:
    """Score `text` as a report on `alert`; see `Scores` for what each number means."""
    report = parse_report(text)
    said, expected = report.values, expected_values(alert)
    right = {name: said.get(name) == value for name, value in expected.items()}
    facts = sum(right[name] for name in COPIED_FACTS) / len(COPIED_FACTS)
    withheld = said.get("cause", UNKNOWN) == UNKNOWN
    return Scores(
        format=float(report.conformant),
        severity=float(right["severity"]),
        faithfulness=facts * (1 if right["cause"] else 0.5 if withheld else 0),
        usefulness=_usefulness(alert, said.get("next", "")),
    )


def _usefulness(alert: Alert, step: str) -> float:
    if step in fitting_steps(alert):
        return 1.0
    return 0.5 if step.startswith(fitting_steps(alert)) else 0.0


def fact_accuracy(alert: Alert, text: str) -> dict[str, bool]:
    """For each copied fact, whether the report gives it right; metric name and value apart."""
    said = parse_report(text).values
    right = {name: said.get(name) == expected_values(alert)[name] for name in COPIED_FACTS}
    metric = said.get("metric", "")
    name = next((known for known in METRICS if metric.startswith(known + " ")), "")
    right["metric"] = name == alert.metric
    right["value"] = metric[len(name) :].strip() == alert.value
    return right


def report_faults(alert: Alert, text: str) -> set[str]:
    """The lines of `text` that the rubric objects to: a wrong value, a padded step, a stray line.

    In a text that is no report at all every line is one; so is a field's second mention.
    """
    expected, seen, faults = expected_values(alert), set(), set()
    for line in text.split("\n"):
        name, _, value = line.partition(": ")
        fits = value in fitting_steps(alert) if name == "next" else value == expected.get(name)
        if name in seen or not fits:
            faults.add(line)
        seen.add(name)
    return faults
