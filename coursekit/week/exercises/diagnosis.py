"""Which mistake is it? A wrong answer is compared with what known mistakes would have given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .answers import Answer, close, listed, same_gradients, same_values

Arguments = Mapping[str, Any]
Ask = Callable[[Arguments], Answer]
DONORS = 8  # so many cases lend their arguments to the others


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give: a function that gives it, and what to tell them."""

    answer: Callable[..., Any]
    message: str


# Mistakes that know nothing of the exercise: what they make of the right numbers.
GENERAL = (
    Mistake(lambda right: -right, "the sign: these are the right numbers, negated."),
    Mistake(lambda right: right.mean(), "averaged over all: return one number for each."),
    Mistake(lambda right: right.sum(), "summed over all: return one number for each."),
    Mistake(torch.exp, "this is exp of what is asked for: return the logarithm."),
    Mistake(torch.log, "this is the logarithm of what is asked for."),
    Mistake(lambda right: right / math.log(2), "in bits: with the natural logarithm it is nats."),
    Mistake(lambda right: 1 - right, "this is 1 minus what is asked for: the other way round."),
    Mistake(lambda right: 100 * right, "in per cent: a share lies between 0 and 1."),
    Mistake(
        lambda right: right.flip(-1) if right.dim() else right,
        "the right numbers in reversed order.",
    ),
)
NEARLY = (
    "nearly right, within one per cent: is a number rounded or written with few digits, or "
    "computed in half precision?"
)
NOT_FINITE = (
    "it gives inf or nan where a finite number is right: exp overflows, or the logarithm is taken "
    "of a probability that has become 0."
)


def known_mistake(
    mistakes: Sequence[Mistake],
    given: Sequence[Answer],
    wanted: Sequence[Answer],
    answers_of: Callable[[Callable[..., Any]], list[Answer]],
) -> str:
    """The message of the mistake that gives the same as the learner on every case, or "".

    Where a mistake is in the gradient alone, the gradients have to be the same too.
    """
    for mistake in mistakes:
        made = answers_of(mistake.answer)
        if not all(map(same_values, made, given)):
            continue
        if not all(map(same_values, made, wanted)) or all(map(same_gradients, made, given)):
            return mistake.message
    return ""


def ignored_arguments(
    cases: Sequence[Arguments],
    given: Sequence[Answer],
    wanted: Sequence[Answer],
    ask: Ask,
    ask_right: Ask,
) -> str:
    """Names the arguments on which the right answer depends and the learner's does not, or "".

    Found by trying: an argument is replaced by those of other cases, and where that moves the right
    answer, the learner's should move too.
    """

    def ignores(name: str) -> bool:
        has_moved = False
        for case, ours, right in zip(cases, given, wanted, strict=True):
            for other in cases[:DONORS]:
                changed = {**case, name: other[name]}
                truth = ask_right(changed)
                if truth.numbers is None or same_values(truth, right):
                    continue
                if not same_values(ask(changed), ours):
                    return False
                has_moved = True
        return has_moved

    if any(answer.numbers is None or not answer.numbers.isfinite().all() for answer in given):
        return ""
    names = [name for name in cases[0] if ignores(name)]
    if not names:
        return ""
    return (
        f"the answer is the same whatever {listed(names)} "
        f"{'is' if len(names) == 1 else 'are'}: forgotten, or a number written in its place?"
    )


def general_mistake(given: Sequence[Answer], wanted: Sequence[Answer]) -> str:
    """What the learner's numbers have to do with the right ones, or ""."""
    if any(answer.numbers is None for answer in given) or not _are_measured(wanted):
        return ""
    pairs = [(ours.numbers, right.numbers) for ours, right in zip(given, wanted, strict=True)]

    def fits(change: Callable[[Tensor], Tensor], rtol: float) -> bool:
        return all(close(ours, change(right), rtol, equal_nan=False) for ours, right in pairs)

    if fits(lambda right: right, 1e-5):
        return ""  # the numbers are right: it is something else
    for mistake in GENERAL:
        if fits(mistake.answer, 1e-5):
            return mistake.message
    if fits(lambda right: right, 1e-2):
        return NEARLY
    if any(right.isfinite().all() and not ours.isfinite().all() for ours, right in pairs):
        return NOT_FINITE
    return ""


def _are_measured(answers: Sequence[Answer]) -> bool:
    """Whether numbers are asked for that are more than a count, an index, yes or no."""
    return any((answer.numbers != answer.numbers.round()).any() for answer in answers)
