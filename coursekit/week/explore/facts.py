"""What to know of a run before believing its numbers: sentences, with what a person should read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .answers import BASELINE, CANDIDATE, OUTCOMES, Answered
from .gather import Glance


@dataclass(frozen=True)
class Fact:
    """A sentence; whether it calls for a look; and where to look: a part of the page, a filter."""

    sentence: str
    is_alarming: bool = False
    where: str = ""
    only: str = ""


def facts(glance: Glance) -> list[Fact]:
    """All that the run shows of itself, in the order in which a person would ask."""
    return [
        *(Fact(f"Out of date: {sentence}.", True) for sentence in glance.outdated),
        *_of_answers(glance),
        *_of_training(glance),
        *_of_pairs(glance),
    ]


def _of_answers(glance: Glance) -> Iterator[Fact]:
    answers = glance.answers
    if not answers:
        return
    counts = Counter(each.outcome for each in answers)
    if set(counts) == {"not judged"}:
        yield Fact(f"Nothing is kept of who won on these {len(answers)} prompts.", True, "answers")
    else:
        said = ", ".join(f"{n} {outcome}" for outcome in OUTCOMES if (n := counts[outcome]))
        yield Fact(
            f"{CANDIDATE} against {BASELINE}, prompt by prompt: {said}"
            + "; read those that it lost." * bool(counts["lost"]),
            counts["lost"] > counts["won"],
            *("answers", "lost"),
        )
        yield from _length_and_wins(glance)
    flagged = [each for each in answers if each.flags]
    if flagged:
        checks = ", ".join(sorted({check for each in flagged for check in each.flags}))
        sentence = f"Flagged answers: {_of(flagged, answers)} ({checks})."
        yield Fact(sentence, True, "answers", "flagged")


def _length_and_wins(glance: Glance) -> Iterator[Fact]:
    longer = [each for each in glance.answers if each.is_longer]
    rest = [each for each in glance.answers if not each.is_longer]
    sentence = f"{CANDIDATE}'s answer is the longer in {_of(longer, glance.answers)}"
    if longer and rest:
        sentence += f"; it won {_won(longer)} of these, and {_won(rest)} of the others"
    yield Fact(f"{sentence}.", len(longer) > 2 * len(rest), "answers", "longer")


def _won(answers: Sequence[Answered]) -> str:
    return f"{sum(each.outcome == 'won' for each in answers) / len(answers):.0%}"


def _of_training(glance: Glance) -> Iterator[Fact]:
    if glance.red_flags is None:
        return
    raised = [flag for flag in glance.red_flags if not flag.harmless]
    for flag in raised:
        yield Fact(
            f"Red flag: {flag.name} since step {flag.since} ({flag.certainty}).", True, "training"
        )
    if not raised:
        yield Fact("No red flag in DPO's training.", False, "training")


def _of_pairs(glance: Glance) -> Iterator[Fact]:
    pairs = glance.pairs
    if not pairs:
        return
    counts = Counter(pair.state for pair in pairs)
    yield Fact(
        f"{len(pairs):,} pairs: {counts['train']:,} to train on, {counts['validation']:,} held "
        f"out, {counts['tie']:,} ties, {counts['invalid']:,} without a verdict.",
        counts["invalid"] > 0,
        "pairs",
    )
    against = [pair for pair in pairs if not pair.consistent]
    if against:
        yield Fact(
            f"In {_of(against, pairs)} pairs the judge said otherwise in the other order.",
            len(against) > len(pairs) / 10,
            *("pairs", "contradicted"),
        )
    for finding in glance.audit.problems if glance.audit else ():
        yield Fact(
            f"Audit of the training pairs: {finding.check}: {finding.found}",
            True,
            "pairs",
            "flagged" * bool(finding.rows),
        )


def _of(part: list, whole: list) -> str:
    return f"{len(part):,} of {len(whole):,}"
