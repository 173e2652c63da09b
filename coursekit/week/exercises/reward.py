"""An exercise of the optional lab: a reward for triage reports that a program checks.

No judge and no rubric: what such a reward pays for is there in the report, or is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...tasks.triage import FIELDS, Alert, sample_alerts
from ...tasks.triage.reports import expected_values, write_report
from .diagnosis import Mistake
from .draw import Draw
from .exercise import exercise

COPIED = FIELDS[:5]  # service, region, time, metric, users: they stand in the alert
Said = Mapping[str, str]
Facts = Mapping[str, Any]


def _cases(draw: Draw) -> list[tuple[str, dict[str, Any]]]:
    """Reports on two alerts, one of which names a change: right ones, and each with one slip."""
    alerts = sample_alerts("validation", 60, seed=draw.randrange(10**6))
    other = alerts.pop()
    named = draw.choice([alert for alert in alerts if alert.change])
    unnamed = draw.choice([alert for alert in alerts if not alert.change])
    return [
        (report, alert.to_dict())
        for alert in (named, unnamed)
        for report in (
            *_with_another_value(alert, other),
            *_of_another_form(expected_values(alert)),
        )
    ]


def _with_another_value(alert: Alert, other: Alert) -> list[str]:
    """Reports of the asked form: without fault, and with facts, cause or step changed."""
    change = alert.change or "deploy 12"
    values = expected_values(alert)
    changes: list[dict[str, str]] = [
        {},
        *({"service": f"{alert.service}-2"}, {"region": other.region, "time": other.time}),
        *({"users": str(alert.users)}, {"users": f"1{alert.users}%"}),
        *({"metric": alert.metric}, {"metric": alert.value}),
        {"service": alert.region, "region": alert.service},
        {name: expected_values(other)[name] for name in COPIED} | {"users": "96%"},
        *({"cause": f"suspected {change}"}, {"cause": f"suspected {change}7"}),
        *({"cause": change}, {"cause": "unknown"}, {"cause": "suspected None"}),
        *({"cause": "suspected config 1000"}, {"cause": f"not suspected {change}"}),
        *({"cause": "unknown change"}, {"severity": "sev9"}),
        *({"next": "wait"}, {"next": "wait: then look"}, {"next": "ask them to look again"}),
        *({"next": "ask them to look once more"}, {"next": f"{values['next']}, and then wait"}),
    ]
    return [write_report(values | each) for each in changes]


def _of_another_form(values: dict[str, str]) -> list[str]:
    """Reports whose facts, cause and step are right and whose form is not."""
    right = write_report(values)
    lines = right.split("\n")
    return [
        *(f"here is the report\n{right}", f"{right}\nthat is all", f"{right}\n{lines[6]}"),
        f"{right}\nnote: that is all",
        *("\n".join(lines[1:]), "\n".join(lines[:5] + lines[6:]), "\n".join(lines[::-1])),
        *("\n".join([lines[1], lines[0], *lines[2:]]), write_report(values | {"severity": ""})),
        *(right.replace("severity: ", "level: "), right.replace("severity: ", "severity ")),
        *(right.replace("\n", ", "), ""),
    ]


# The parts of the reward, each of which a mistake gets wrong.


def _pairs(report: str) -> list[tuple[str, str]]:
    return [line.partition(": ")[::2] for line in report.splitlines()]


def _names(report: str) -> list[str]:
    return [name for name, _ in _pairs(report)]


def _valued(named: Callable[[list[str]], bool]) -> Callable[[str], bool]:
    """A form whose names are to be `named` so, and of which no value is empty."""
    return lambda report: named(_names(report)) and all(value for _, value in _pairs(report))


_form = _valued(lambda names: names == list(FIELDS))


def _expected(alert: Facts) -> dict[str, str]:
    metric, users = f"{alert['metric']} {alert['value']}", f"{alert['users']}%"
    return {**{name: alert[name] for name in COPIED}, "metric": metric, "users": users}


def _facts(said: Said, alert: Facts, expected: Callable[[Facts], Said] = _expected) -> float:
    return sum(said.get(name) == expected(alert)[name] for name in COPIED) / len(COPIED)


def _cause(said: Said, alert: Facts) -> bool:
    change = alert["change"]
    return said.get("cause") == (f"suspected {change}" if change else "unknown")


def _step(said: Said, alert: Facts) -> bool:
    return len(said.get("next", "").split()) <= 5


def _but(
    form: Callable[[str], bool] = _form,
    facts: Callable[[Said, Facts], float] = _facts,
    cause: Callable[[Said, Facts], float] = _cause,
    step: Callable[[Said, Facts], float] = _step,
) -> Callable[[str, Facts], float]:
    """The reward with one of its parts in another way."""

    def reward(report: str, alert: Facts) -> float:
        said = dict(_pairs(report))
        if not form(report):
            return 0.0
        return (facts(said, alert) + cause(said, alert) + step(said, alert)) / 3

    return reward


@exercise(
    title="a reward that a program checks",
    task=(
        "report is what the policy wrote, alert a dict of the facts, such as `{'service': "
        "'cart-db', 'region': 'eu-east-1', 'time': '14:05', 'metric': 'latency', 'value': '420ms', "
        "'users': 34, 'change': 'deploy 12'}`; change is None where the alert names none. "
        "*The form first*: eight lines `name: value`, with the names service, region, time, "
        "metric, users, severity, cause, next in this order, no value empty, no line besides. Any "
        "other report earns 0. One of this form earns up to a third for each of: *the facts*, the "
        "share of the first five lines that are as in the alert (`metric: latency 420ms`, `users: "
        "34%`); *the cause*, `suspected deploy 12` if that is the alert's change, or `unknown` if "
        "it names none; *the step*, at most five words after `next`."
    ),
    difficulty=3,
    importance=4,
    minutes=15,
    hint=(
        'Cut each line once: `pairs = [line.partition(": ")[::2] for line in report.splitlines()]` '
        "gives (name, value), and an empty value where there is no colon. `[name for name, _ in "
        "pairs]` are the names in their order, `said = dict(pairs)` the values by name. A step has "
        '`len(said["next"].split())` words.'
    ),
    cases=_cases,
    mistakes=[
        Mistake(
            _but(form=lambda report: True),
            "the form is not asked for: a report with a greeting, or a line too few, still earns. "
            "Return 0 first, where the form is not right.",
        ),
        Mistake(
            _but(form=_valued(lambda names: names[:8] == list(FIELDS))),
            "lines after the eighth are let pass: compare *all* names with the eight.",
        ),
        Mistake(
            _but(form=_valued(lambda names: set(names) >= set(FIELDS))),
            "it looks only whether each name is there: order, repeated lines and lines besides "
            "count too. Compare the list of names with the eight.",
        ),
        Mistake(
            _but(form=_valued(lambda names: sorted(names) == sorted(FIELDS))),
            "the order of the lines is not looked at: compare the *list* of names with the eight.",
        ),
        Mistake(
            _but(form=_valued(lambda names: len(names) == len(FIELDS))),
            "the lines are only counted: their names have to be the eight, in order.",
        ),
        Mistake(
            _but(form=lambda report: _names(report) == list(FIELDS)),
            "an empty value passes: `severity: ` with nothing behind it is no line of the form.",
        ),
        Mistake(
            _but(facts=lambda said, alert: float(_facts(said, alert) == 1)),
            "the facts are paid for all or nothing: pay their share, so that four right ones are "
            "better than three.",
        ),
        Mistake(
            _but(facts=lambda said, alert: 5 * _facts(said, alert)),
            "the right facts are counted: divide by five, or they outweigh all else.",
        ),
        Mistake(
            _but(
                facts=lambda said, alert: (
                    sum(_expected(alert)[name] in " ".join(said.values()) for name in COPIED) / 5
                )
            ),
            "a fact is looked for *anywhere* in the report: `users: 134%` contains `34%`. Compare "
            "the whole value of its own line.",
        ),
        Mistake(
            _but(
                facts=lambda said, alert: (
                    sum(_expected(alert)[name] in said[name] for name in COPIED) / 5
                )
            ),
            "it looks whether a line *contains* the fact: `users: 134%` contains `34%`. Compare "
            "the whole value.",
        ),
        Mistake(
            _but(facts=partial(_facts, expected=lambda alert: _expected(alert) | {"users": ""})),
            "the users are never right: alert['users'] is a number, and the report writes it with "
            "a per cent sign: f\"{alert['users']}%\".",
        ),
        Mistake(
            _but(
                facts=partial(
                    _facts,
                    expected=lambda alert: _expected(alert) | {"users": str(alert["users"])},
                )
            ),
            "the users are compared without the per cent sign: f\"{alert['users']}%\".",
        ),
        Mistake(
            _but(
                facts=partial(
                    _facts, expected=lambda alert: _expected(alert) | {"metric": alert["metric"]}
                )
            ),
            "the metric is compared without its value: the line has both, name and value.",
        ),
        Mistake(
            _but(
                cause=lambda said, alert: (
                    said["cause"] in ("unknown", f"suspected {alert['change']}")
                )
            ),
            "`unknown` is paid everywhere, so the policy learns never to name a cause; and where "
            "no change is named, so is `suspected None`. Look first whether there is a change.",
        ),
        Mistake(
            _but(cause=lambda said, alert: said["cause"] == "unknown" or _cause(said, alert)),
            "`unknown` is paid everywhere: the policy learns never to name a cause. It is right "
            "only where the alert names no change.",
        ),
        Mistake(
            _but(cause=lambda said, alert: said["cause"] == f"suspected {alert['change']}"),
            "where the alert names no change, `suspected None` is paid and `unknown` is not: look "
            "first whether alert['change'] is None.",
        ),
        Mistake(
            _but(cause=lambda said, alert: (alert["change"] or "unknown") in said["cause"]),
            "it looks whether the cause *contains* the change: `deploy 127` contains `deploy 12`, "
            "and so does `not suspected deploy 12`. Compare the whole value.",
        ),
        Mistake(
            _but(
                cause=lambda said, alert: (
                    said["cause"] == alert["change"]
                    if alert["change"]
                    else said["cause"] == "unknown"
                )
            ),
            "`suspected ` belongs to the value: a change alone is claimed as certain.",
        ),
        Mistake(
            _but(step=lambda said, alert: len(said["next"].split()) < 5),
            "five words are too many here: *at most* five is `<= 5`.",
        ),
        Mistake(
            _but(step=lambda said, alert: len(said["next"]) <= 5),
            "len of a text counts characters: `.split()` makes words of it.",
        ),
        Mistake(
            _but(step=lambda said, alert: True),
            "the step is always paid: one that goes on beyond five words earns nothing.",
        ),
        Mistake(
            lambda report, alert: 3 * verifiable_reward.solution(report, alert),
            "a whole point for each part: a third, so that the reward lies between 0 and 1.",
        ),
        Mistake(
            lambda report, alert: float(verifiable_reward.solution(report, alert) == 1),
            "all or nothing: where all responses to a prompt earn 0 they have no advantage, and "
            "nothing is learnt. Pay a third for each part.",
        ),
    ],
)
def verifiable_reward(report: str, alert: dict) -> float:
    names = ["service", "region", "time", "metric", "users", "severity", "cause", "next"]
    pairs = [line.partition(": ")[::2] for line in report.splitlines()]
    said = dict(pairs)
    if [name for name, _ in pairs] != names or not all(said.values()):
        return 0.0
    metric, users = f"{alert['metric']} {alert['value']}", f"{alert['users']}%"
    right = {**alert, "metric": metric, "users": users}
    facts = sum(said[name] == right[name] for name in names[:5]) / 5
    cause = said["cause"] == (f"suspected {alert['change']}" if alert["change"] else "unknown")
    step = len(said["next"].split()) <= 5
    return (facts + cause + step) / 3
