"""Numbers in a line of text, each with its standard error where an interval stands beside it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# A digit within a word ("k3", "sev1", "v0.1") is no number.
_NUMBER = r"(?<![\w.])[+-]?(?:\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?%?|(?:nan|NaN|inf)\b)"
_NUMBERS = re.compile(_NUMBER)
# `[0.42, 0.65]`, `(60% to 71%)`, `(95 % interval +0.17 to +0.28)`
_INTERVAL = re.compile(rf"[\[(](?:95 ?% interval )?({_NUMBER})(?:, | to )({_NUMBER})[\])]")
_PLUS_MINUS = re.compile(rf"({_NUMBER}) ?± ?({_NUMBER})")
_ENDS = 2 * 1.96  # standard errors from one end of a 95 % interval to the other

ROUNDOFF = 1e-6  # what is nearer to 0 than this is the last bits of a difference that should be 0


@dataclass(frozen=True)
class Number:
    """A number as it is printed; `se` in its units. An end of an interval shares its `se`."""

    text: str
    value: float
    se: float | None = None
    is_end: bool = False

    @property
    def unit(self) -> float:
        """One in the last digit that is printed: nearer than that, two numbers look the same."""
        digits, _, exponent = self.text.rstrip("%").partition("e")
        return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


@dataclass(frozen=True)
class Move:
    """The same number in two runs."""

    before: Number
    after: Number

    @property
    def ses(self) -> float | None:
        """By how many standard errors of the first it moved; None where it has none."""
        if not self.before.se or not math.isfinite(self.after.value - self.before.value):
            return None
        return (self.after.value - self.before.value) / self.before.se

    @property
    def relative(self) -> float:
        """The change over the larger of the two; infinite if one is no finite number."""
        before, after = self.before.value, self.after.value
        if before == after or (math.isnan(before) and math.isnan(after)):
            return 0.0
        if not math.isfinite(after - before):
            return math.inf
        larger = max(abs(before), abs(after))
        return 0.0 if larger < ROUNDOFF else abs(after - before) / larger

    @property
    def is_rounding(self) -> bool:
        """Whether it is at most one in the last digit that is printed, of the finer of the two."""
        unit = min(self.before.unit, self.after.unit)
        return abs(self.after.value - self.before.value) <= unit * 1.001

    def __str__(self) -> str:
        if self.ses is not None:
            by = f"{self.ses:+.1f} standard errors"
        else:
            by = (
                f"{self.relative:.0%} of the larger"
                if math.isfinite(self.relative)
                else "no number"
            )
        return f"{self.before.text} → {self.after.text} ({by})"


def pattern_of(line: str) -> str:
    """The line without its numbers and its spacing: what stays when only numbers move."""
    return " ".join(_NUMBERS.sub("#", line).split())


def is_numeric(text: str) -> bool:
    """Whether the text is a number, an interval or both, and nothing else."""
    return "#" in pattern_of(text) and not pattern_of(text).replace("to", "").strip("[](#), ±")


def numbers_in(line: str) -> list[Number]:
    """The numbers of a line in their order.

    An interval belongs to the nearest number before it that lies in it: in "66% of 401 (60% to
    71%)" that is 66%.
    """
    found = list(_NUMBERS.finditer(line))
    numbers = {match.start(): Number(match[0], _value(match[0])) for match in found}
    for match in _PLUS_MINUS.finditer(line):
        number = numbers[match.start(1)]
        numbers[match.start(1)] = Number(number.text, number.value, _value(match[2]))
    for match in _INTERVAL.finditer(line):
        low, high = numbers[match.start(1)], numbers[match.start(2)]
        _give_error(numbers, match.start(), low, high)
        se = (high.value - low.value) / _ENDS
        for start, end in ((match.start(1), low), (match.start(2), high)):
            numbers[start] = Number(end.text, end.value, se, is_end=True)
    return list(numbers.values())


def _give_error(numbers: dict[int, Number], until: int, low: Number, high: Number) -> None:
    """Find the estimate before position `until` whose interval is (low, high)."""
    for start in sorted((start for start in numbers if start < until), reverse=True):
        number = numbers[start]
        alike = number.text.endswith("%") == low.text.endswith("%")
        if alike and not number.is_end and low.value <= number.value <= high.value:
            se = (high.value - low.value) / _ENDS
            numbers[start] = Number(number.text, number.value, se)
            return


def _value(text: str) -> float:
    return float(text.rstrip("%").replace(",", ""))
