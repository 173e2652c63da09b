"""The base model's corpus: alerts answered in many styles, and short questions about alerts.

The base model should know the task's facts and policy and still answer as the mixed crowd wrote:
asked for "the triage report", the corpus gives the asked format in a fifth of the documents and
something else in the rest. The questions teach it to find a fact wherever it stands; they are also
a second skill that preference training may cost it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .alerts import Alert, alert_stream
from .demonstrations import Vices, imperfect_values
from .reports import INSTRUCTION, expected_values, write_report


@dataclass(frozen=True)
class Document:
    """One turn of a conversation: what was asked and what was answered; `kind` names the style."""

    prompt: str
    response: str
    kind: str


# The crowd that wrote the corpus: right on most things, fond of blame, careless about severities.
CROWD = Vices(0.3, 0.1, 0.15, 0.15, 0.02, 0.0)

Values = dict[str, str]
# How the styles begin that are no lists of fields.
OPENINGS = {
    "ticket": ("[sev1]", "[sev2]", "[sev3]"),
    "prose": ("it looks like", "we think", "as far as we can tell"),
    "chat": ("hi team", "morning all", "heads up"),
    "bullets": ("- severity",),
}


def _report(v: Values, rng: random.Random) -> str:
    return write_report(v)


def _loose_report(v: Values, rng: random.Random) -> str:
    """Some of the fields, in any order."""
    names = rng.sample(list(v), rng.randint(5, 8))
    return "\n".join(f"{name}: {v[name]}" for name in names)


def _ticket(v: Values, rng: random.Random) -> str:
    return (
        f"[{v['severity']}] service {v['service']} region {v['region']}: {v['metric']} "
        f"since {v['time']}, users {v['users']}. {v['cause']}. {v['next']}."
    )


def _prose(v: Values, rng: random.Random) -> str:
    opening = rng.choice(OPENINGS["prose"])
    return (
        f"{opening} the service {v['service']} in region {v['region']} is unwell: metric "
        f"{v['metric']} since time {v['time']}, users {v['users']}. this is a {v['severity']}. "
        f"the cause is {v['cause']}. next, {v['next']}."
    )


def _chat(v: Values, rng: random.Random) -> str:
    opening = rng.choice(OPENINGS["chat"])
    return f"{opening}, service {v['service']} again. {v['metric']}. {v['severity']}. {v['next']}?"


def _bullets(v: Values, rng: random.Random) -> str:
    return "\n".join(f"- {name} {v[name]}" for name in ("severity", "service", "metric", "next"))


STYLES: dict[str, Callable[[Values, random.Random], str]] = {
    "report": _report,
    "loose report": _loose_report,
    "ticket": _ticket,
    "prose": _prose,
    "chat": _chat,
    "bullets": _bullets,
}
# Other instructions, each with the one style it asks for.
INSTRUCTIONS = {
    "Write a ticket.": "ticket",
    "Explain what is going on.": "prose",
    "Tell the team.": "chat",
    "List the main points.": "bullets",
}
QUESTIONS = {
    "Which service?": "service",
    "Which region?": "region",
    "What time?": "time",
    "Which metric?": "metric",
    "How many users?": "users",
    "Which severity?": "severity",
    "What is the cause?": "cause",
    "What next?": "next",
}
# What the crowd answers to "Write the triage report.", in per cent.
ANSWERS = {
    "report": 20,
    "loose report": 12,
    "ticket": 24,
    "prose": 24,
    "chat": 10,
    "bullets": 10,
}


def corpus(pool: str = "pretraining", seed: int = 0, questions: float = 0.4) -> Iterator[Document]:
    """Documents without end about the alerts of `pool`; `questions` is the share of questions."""
    rng = random.Random(f"corpus/{pool}/{seed}")
    for alert in alert_stream(pool, seed):
        yield question(alert, rng) if rng.random() < questions else note(alert, rng)


def opens_as(style: str, text: str) -> bool:
    """Whether `text` begins as notes of that style do."""
    return text.startswith(OPENINGS[style])


def question(alert: Alert, rng: random.Random) -> Document:
    """A question about one fact of `alert` and its right answer."""
    asked, field = rng.choice(list(QUESTIONS.items()))
    answer = f"{field} {expected_values(alert)[field]}"
    return Document(f"{asked}\n{alert.text}", answer, "question")


def note(alert: Alert, rng: random.Random) -> Document:
    """A note on `alert` by one of the crowd: half of them asked for the triage report."""
    if rng.random() < 0.5:
        instruction = INSTRUCTION
        style = rng.choices(list(ANSWERS), weights=list(ANSWERS.values()))[0]
    else:
        instruction, style = rng.choice(list(INSTRUCTIONS.items()))
    values = imperfect_values(alert, rng, CROWD)
    return Document(f"{instruction}\n{alert.text}", STYLES[style](values, rng), style)
