"""Session B's first exercise: a clause of the rubric of the course's own task, triage reports."""

from __future__ import annotations

from .exercise import Exercise, Mistake


def _cause_clause(change: str | None, cause: str) -> float:
    if change is None:
        return 1.0 if cause == "unknown" else 0.0
    if cause == f"suspected {change}":
        return 1.0
    return 0.5 if cause == "unknown" else 0.0


def _always_suspected(change: str | None, cause: str) -> float:
    return 1.0 if cause == f"suspected {change}" else 0.5 if cause == "unknown" else 0.0


def _any_suspicion(change: str | None, cause: str) -> float:
    if change and cause.startswith("suspected"):
        return 1.0
    return _cause_clause(change, cause)


cause_clause = Exercise(
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
    hint="Two cases: the alert names a change, or it does not. What is right in each?",
    solution=_cause_clause,
    cases=[
        ("deploy 412", "suspected deploy 412"),
        ("deploy 412", "unknown"),
        ("deploy 412", "suspected deploy 41"),
        ("deploy 412", "suspected deploy 4123"),
        (None, "unknown"),
        (None, "suspected deploy 412"),
        (None, "suspected None"),
        ("config 7", "config 7"),
        ("config 7", ""),
    ],
    mistakes=[
        Mistake(
            _always_suspected,
            "`unknown` is *right* where the alert names no change: it earns 1 there, not 0.5. A "
            "rubric that pays less for honesty than for luck teaches to invent.",
        ),
        Mistake(
            lambda change, cause: (
                1.0 if (cause == f"suspected {change}" or cause == "unknown") else 0.0
            ),
            "`unknown` is paid in full everywhere: the policy learns never to name a cause.",
        ),
        Mistake(
            lambda change, cause: (
                _cause_clause(change, cause)
                if change is None or cause == "unknown"
                else float(change in cause)
            ),
            "it looks whether the change occurs *somewhere* in the cause: `deploy 4123` contains "
            "`deploy 412`. Compare the whole text.",
        ),
        Mistake(
            _any_suspicion,
            "any cause is paid where the alert names a change: it must be that change.",
        ),
        Mistake(
            lambda change, cause: (
                _cause_clause(change, cause) if change is None or cause != "unknown" else 0.0
            ),
            "`unknown` where the alert names a change is withheld, not false: 0.5.",
        ),
    ],
)
