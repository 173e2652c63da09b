"""The protocol: a judge sees one row (prompt and what is known of it) and two responses."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from ...common.made_from import fingerprint, what_it_does
from ...common.progress import progress

# `invalid`: no answer that can be read. Never counted as a tie, nor as a win.
Winner = Literal["first", "second", "tie", "invalid"]
# What an answer is when the two responses are shown in the other order.
MIRRORED: dict[Winner, Winner] = {
    "first": "second",
    "second": "first",
    "tie": "tie",
    "invalid": "invalid",
}
# What it is worth to the first response, a tie counting half; without a verdict there is nothing
# to count.
POINTS: dict[Winner, float | None] = {"first": 1.0, "tie": 0.5, "second": 0.0, "invalid": None}

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Verdict:
    """Which response is better.

    consistent: the judge said the same with the order changed. answers: what it said each time it
    was asked, in terms of the order *as shown then* (so two times `first` is a contradiction).
    """

    winner: Winner
    consistent: bool = True
    answers: tuple[Winner, ...] = field(default=(), compare=False)


class Judge(Protocol):
    """Anything with a name that can compare two responses to the same prompt.

    `identity` differs where verdicts may: verdicts that are kept are used again only by a judge of
    the same identity.

    A judge that also gives points may offer `score(row, response) -> float`, higher for better;
    they are kept with the pairs. One that waits for others (a server) says with `concurrency` how
    many questions it may be asked at a time; one that costs money offers `announce(items)`.
    """

    name: str

    @property
    def identity(self) -> str:
        """A short text, the same in every process, for all that decides this judge's verdicts."""
        ...

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        """The better of two responses to `row["prompt"]`, shown in this order."""
        ...


def both_orders(judge: Judge, row: Mapping[str, Any], first: str, second: str) -> Verdict:
    """Ask `judge` in both orders. A winner must win in both; a contradiction is a tie.

    Two responses that are the same text tie without a question. Without an answer in either order
    the verdict is invalid.
    """
    if first == second:
        return Verdict("tie")
    answers = judge.compare(row, first, second), judge.compare(row, second, first)
    if "invalid" in answers:
        return Verdict("invalid", answers=answers)
    if answers[0] == MIRRORED[answers[1]]:
        return Verdict(answers[0], answers=answers)
    return Verdict("tie", consistent=False, answers=answers)


def one_order(judge: Judge, row: Mapping[str, Any], first: str, second: str) -> Verdict:
    """Ask `judge` once: half the price, and a preference for a position goes unnoticed."""
    if first == second:
        return Verdict("tie")
    answer = judge.compare(row, first, second)
    return Verdict(answer, answers=(answer,))


def winner_by(difference: float) -> Winner:
    """The winner by the first response's points less the second's; none tells equal ones apart."""
    if abs(difference) < 1e-9:
        return "tie"
    return "first" if difference > 0 else "second"


def announce(judge: Judge, items: Iterable[tuple[Mapping[str, Any], str, str]]) -> None:
    """Let a judge that costs money say what comparing these in both orders costs at most.

    Before the first of them is asked; it may refuse. Other judges say nothing.
    """
    if hasattr(judge, "announce"):
        judge.announce(items)


def side_by_side(
    judge: Judge,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    label: str | None = None,
) -> Iterator[Result]:
    """`function(item)` of each, in order; as many under way as the judge may be asked at a time.

    label: of a progress line, shown for judges who take their time.
    """
    workers = getattr(judge, "concurrency", 1)
    if workers == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        with progress(label, len(items), "items") as advance:
            for result in pool.map(function, items):
                advance(1, spent(judge))
                yield result
    finally:
        # Ctrl-C, an error, or a caller who has enough: no question more than those under way.
        pool.shutdown(wait=True, cancel_futures=True)


def ask_all(judge: Judge, items: Sequence[tuple[Mapping[str, Any], str, str]]) -> list[Verdict]:
    """The verdicts on (row, one response, another), in both orders; what they cost is announced."""
    announce(judge, items)
    return list(side_by_side(judge, lambda item: both_orders(judge, *item), items, judge.name))


def identity_of(name: str, *parts: Any) -> str:
    """A judge's identity: its name, and a fingerprint of what decides its verdicts."""
    return f"{name}:{fingerprint(*parts)}"


def source_of(*things: Any) -> list[str]:
    """What modules, classes or functions do; the name where there is no source to read.

    Comments, docstrings and layout make no difference (see `made_from.what_it_does`).
    """
    found = []
    for thing in things:
        try:
            found.append(what_it_does(textwrap.dedent(inspect.getsource(thing))))
        except (OSError, TypeError, SyntaxError):  # typed into a prompt, or compiled
            found.append(repr(getattr(thing, "__qualname__", thing)))
    return found


def spent(judge: Judge) -> str:
    """What a judge that costs money has cost so far, for a progress line."""
    dollars = getattr(judge, "spent", None)
    return "" if dollars is None else f"(${dollars:.2f} so far)"
