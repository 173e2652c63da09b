"""Triage reports: the asked format, writing one, and reading one back from free text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .alerts import METRICS, Alert, undo_step
from .policy import severity_policy

if TYPE_CHECKING:
    from ...common.profile import Profile

FIELDS = ("service", "region", "time", "metric", "users", "severity", "cause", "next")
UNKNOWN = "unknown"

INSTRUCTION = "Write the triage report."
INSTRUCTION_IN_FULL = (
    "Write the triage report for the alert below. Eight lines, in this order, nothing else:\n"
    "service: <name>\nregion: <name>\ntime: <hh:mm>\nmetric: <name and value as given>\n"
    "users: <share affected>%\nseverity: <sev1, sev2 or sev3>\n"
    "cause: suspected <the last change>, or unknown if the alert names no change\n"
    "next: <one step>\n"
    "Severity: sev1 from 30% of users, sev2 from 5%, else sev3; one level higher when data is at "
    "risk (disk use, replication lag, failed backups, checksum errors)."
)


@dataclass(frozen=True)
class ParsedReport:
    """What a text says in the report's fields.

    values: the first value given for each field that occurs; conformant: each field once, in order,
    each with a value, and nothing else.
    """

    values: dict[str, str]
    conformant: bool


def build_prompt(alert: Alert, instruction: str = INSTRUCTION) -> str:
    """The user's turn: the instruction, a line break, the alert's text."""
    return f"{instruction}\n{alert.text}"


def ask(alert: Alert, profile: Profile) -> str:
    """The user's turn as the profile asks, in demonstrations, preferences and evaluation alike."""
    return build_prompt(alert, INSTRUCTION_IN_FULL if profile.full_instruction else INSTRUCTION)


def fitting_steps(alert: Alert) -> tuple[str, ...]:
    """The next steps that fit `alert`: undo the last change, or look where the metric points."""
    return (undo_step(alert.change),) if alert.change else METRICS[alert.metric].steps


def expected_values(alert: Alert) -> dict[str, str]:
    """The value of every field in a report without fault."""
    return {
        "service": alert.service,
        "region": alert.region,
        "time": alert.time,
        "metric": f"{alert.metric} {alert.value}",
        "users": f"{alert.users}%",
        "severity": severity_policy(alert),
        "cause": f"suspected {alert.change}" if alert.change else UNKNOWN,
        "next": fitting_steps(alert)[0],
    }


def write_report(values: dict[str, str]) -> str:
    """A report in the asked format: one `field: value` line for each of `FIELDS`."""
    return "\n".join(f"{field}: {values[field]}" for field in FIELDS)


def parse_report(text: str) -> ParsedReport:
    """Read the fields out of `text`, however much else it says; see `ParsedReport`."""
    lines = text.strip().split("\n")
    pairs = [line.split(": ", 1) if ": " in line else [line, ""] for line in lines]
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in FIELDS:
            values.setdefault(name, value.strip())
    conformant = [name for name, _ in pairs] == list(FIELDS) and all(values.values())
    return ParsedReport(values=values, conformant=conformant)
