"""Imperfect demonstrations: what a tired team would have written, vices included.

Real demonstrations are not clean, and SFT copies what it is shown. Each vice has a rate of its own,
so that a session can ask which of them preference training mends.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .alerts import METRICS, Alert, draw_change, draw_value, sample_alerts
from .policy import SEVERITIES
from .reports import ask, expected_values, write_report

if TYPE_CHECKING:
    from ...common.profile import Profile

PADDING = (
    ", then keep a close eye on it",
    ", and keep everyone informed",
    " and see whether things improve",
    " as soon as possible, as always",
)
GENERALITIES = ("monitor the situation", "escalate if it gets worse", "restart the service")


@dataclass(frozen=True)
class Vices:
    """How often a writer errs, each a probability per report.

    invented_cause: a change that nobody mentioned is blamed (only where the alert names none);
    sloppy_severity: a severity next to the policy's; padded_step: the next step is followed by a
    generality; idle_step: a generality instead of a step; wrong_fact: one copied fact is altered;
    broken_format: a field left out, or a greeting before the report.
    """

    invented_cause: float = 0.6
    sloppy_severity: float = 0.25
    padded_step: float = 0.45
    idle_step: float = 0.05
    wrong_fact: float = 0.05
    broken_format: float = 0.03


def sample_demonstrations(
    n: int, profile: Profile, seed: int = 0, vices: Vices = Vices()
) -> list[dict[str, Any]]:
    """`n` rows `{"prompt", "response", "facts"}` of their own pool, asked as the profile asks."""
    rng = random.Random(f"demonstrations/{seed}")
    return [
        {
            "prompt": ask(alert, profile),
            "response": write_imperfectly(alert, rng, vices),
            "facts": alert.to_dict(),
        }
        for alert in sample_alerts("demonstrations", n, seed)
    ]


def write_imperfectly(alert: Alert, rng: random.Random, vices: Vices) -> str:
    """A report on `alert` with each vice at its rate."""
    values = imperfect_values(alert, rng, vices)
    if rng.random() < vices.broken_format:
        if rng.random() < 0.5:
            return "here is the report\n" + write_report(values)
        dropped = rng.choice(list(values))
        return "\n".join(f"{name}: {value}" for name, value in values.items() if name != dropped)
    return write_report(values)


def imperfect_values(alert: Alert, rng: random.Random, vices: Vices) -> dict[str, str]:
    """The fields of a report on `alert`, with each vice of content at its rate."""
    values = expected_values(alert)
    if not alert.change and rng.random() < vices.invented_cause:
        values["cause"] = f"suspected {draw_change(rng)}"
    if rng.random() < vices.sloppy_severity:
        level = SEVERITIES.index(values["severity"])
        neighbours = [other for other in (level - 1, level + 1) if other in range(3)]
        values["severity"] = SEVERITIES[rng.choice(neighbours)]
    if rng.random() < vices.idle_step:
        values["next"] = rng.choice(GENERALITIES)
    elif rng.random() < vices.padded_step:
        values["next"] += rng.choice(PADDING)
    if rng.random() < vices.wrong_fact:
        other = sample_alerts("demonstrations", 1, seed=rng.randrange(10**9))[0]
        name = rng.choice(("service", "region", "time", "users", "metric"))
        values[name] = expected_values(other)[name]
        if name == "metric":
            metric = METRICS[alert.metric]
            values[name] = f"{metric.name} {draw_value(metric, rng)}"
    return values
