"""Session B's first exercise: a clause of the rubric of the course's own task, triage reports."""

from __future__ import annotations

from .diagnosis import Mistake
from .draw import Draw
from .exercise import exercise


def _cases(draw: Draw) -> list[tuple[str | None, str]]:
    change = f"{draw.choice(['deploy', 'config', 'release'])} {draw.randrange(100, 1000)}"
    after_named = [
        *(f"suspected {change}", "unknown", f"suspected {change[:-1]}", f"suspected {change}7"),
        *(f"suspected {change} or another", f"not suspected {change}", "suspected config 99"),
        *(change, f"caused by {change}", "unknown change", "", "suspected", "disk full"),
    ]
    after_none = ["unknown", f"suspected {change}", "suspected None", "suspected ", "unknown host"]
    first = ("deploy 412", "suspected deploy 412")
    return [
        first,
        *((change, cause) for cause in after_named),
        *((None, cause) for cause in after_none),
    ]


def _other_than_unknown(change: str | None, cause: str, paid: bool) -> float:
    """The clause, but for a named change and a cause other than `unknown` what `paid` says."""
    if change is None or cause == "unknown":
        return cause_clause.solution(change, cause)
    return float(paid)


@exercise(
    title="a clause of the rubric",
    task=(
        "Write the clause on causes. change is the last change that the alert names, or None; "
        "cause is what the report says. Return 1 for `suspected ` and exactly that change, or for "
        "`unknown` where the alert names none; 0.5 for `unknown` where it names one (withheld, "
        "but nothing false); 0 for any other cause."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint=(
        "Two cases: the alert names a change (`change is not None`), or it does not. What is right "
        'in each? `f"suspected {change}"` is the whole text that is right in one of them.'
    ),
    cases=_cases,
    mistakes=[
        Mistake(
            lambda change, cause: (
                1.0 if cause == f"suspected {change}" else 0.5 if cause == "unknown" else 0.0
            ),
            "`unknown` is *right* where the alert names no change: it earns 1 there, not 0.5. A "
            "rubric that pays less for honesty than for luck teaches to invent.",
        ),
        Mistake(
            lambda change, cause: float(cause in (f"suspected {change}", "unknown")),
            "`unknown` is paid in full everywhere: the policy learns never to name a cause.",
        ),
        Mistake(
            lambda change, cause: _other_than_unknown(change, cause, (change or "") in cause),
            "it looks whether the change occurs *somewhere* in the cause: `deploy 4123` contains "
            "`deploy 412`. Compare the whole text.",
        ),
        Mistake(
            lambda change, cause: _other_than_unknown(
                change, cause, f"suspected {change}" in cause
            ),
            "it looks whether `suspected` and the change occur *somewhere* in the cause: "
            "`suspected deploy 4123` and `not suspected deploy 412` pass. Compare the whole text.",
        ),
        Mistake(
            lambda change, cause: _other_than_unknown(
                change, cause, cause.startswith(f"suspected {change}")
            ),
            "it compares the beginning alone: `suspected deploy 4123` begins with `suspected "
            "deploy 412`. Compare the whole text.",
        ),
        Mistake(
            lambda change, cause: _other_than_unknown(change, cause, cause.endswith(change or "")),
            "it compares the end alone: `not suspected deploy 412` ends with `deploy 412`. Compare "
            "the whole text.",
        ),
        Mistake(
            lambda change, cause: _other_than_unknown(
                change, cause, cause in f"suspected {change}"
            ),
            "it looks whether the cause is *part* of the right text: so are `suspected` and "
            "`suspected deploy 41`. Compare the whole text.",
        ),
        Mistake(
            lambda change, cause: (
                (0.5 if change else 1.0)
                if "unknown" in cause
                else float(change is not None and cause == f"suspected {change}")
            ),
            "`unknown` is looked for *somewhere* in the cause: `unknown host` is another cause.",
        ),
        Mistake(
            lambda change, cause: _other_than_unknown(change, cause, cause.startswith("suspected")),
            "any cause is paid where the alert names a change: it must be that change.",
        ),
        Mistake(
            lambda change, cause: _other_than_unknown(change, cause, cause == change),
            "`suspected ` belongs to the text: a change alone is claimed as certain.",
        ),
        Mistake(
            lambda change, cause: (
                1.0
                if cause == f"suspected {change}"
                else (0.5 if change else 1.0)
                if cause == "unknown"
                else 0.0
            ),
            "where no change is named, `suspected None` is compared as if None were one: it earns "
            "0. Look first whether a change is named.",
        ),
        Mistake(
            lambda change, cause: (
                cause_clause.solution(change, cause)
                if change is None or cause != "unknown"
                else 0.0
            ),
            "`unknown` where the alert names a change is withheld, not false: 0.5.",
        ),
    ],
)
def cause_clause(change: str | None, cause: str) -> float:
    if change is None:
        return 1.0 if cause == "unknown" else 0.0
    if cause == f"suspected {change}":
        return 1.0
    return 0.5 if cause == "unknown" else 0.0
