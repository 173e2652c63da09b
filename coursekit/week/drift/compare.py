"""What differs between a notebook as it was shipped and a new run of it.

A finding is drift or noise. Noise is what another machine makes of the same course: last bits of a
sum, and, through them, a few of the sampled responses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from nbformat import NotebookNode

from ..cell_times import Times, scatter, speed
from ..saved import cell_ids
from .numbers import Move, numbers_in, pattern_of
from .pictures import share_that_differs
from .said import Line, Said, said

# A number is drift beyond this. Two runs with different seeds differ by 1.4 standard errors
# typically, and by 3 once in thirty times.
STANDARD_ERRORS = 3.0
# Where no interval stands beside a number: the share of itself by which it may move.
RELATIVE = 0.1
# The numbers that moved, taken together (root mean square, in standard errors): last bits leave
# nearly all prompts' responses as they were and move a mean by a fraction, another draw by 1.4.
TOGETHER, AT_LEAST = 0.5, 5
# The share of a picture's pixels that differ. An edge's smoothing is let pass before (`pictures`);
# a point of 6 x 6 pixels in a picture of 600 x 300 is twice this.
PICTURE = 1e-4
# A cell is slower if it takes so many times as long, the machines' speed taken off, and so many
# seconds of the faster machine more: a short cell varies by more than its half, a long one by
# seconds.
SLOWER, SECONDS = 1.5, 2.0
# And, where other work on a machine slows cells at random, by this power of their scatter: three
# standard deviations of the logarithm. Two runs beside eight other jobs had one of 1.45.
SCATTERS = 3

KINDS = {
    "error": "errors",
    "claim": "claims that changed",
    "number": "numbers that moved",
    "figure": "figures that differ",
    "text": "texts that changed",
    "cell": "cells that were added, removed or edited",
    "time": "cells that slowed",
}


@dataclass(frozen=True)
class Finding:
    """One thing that differs; `pictures` are PNGs, None where there is none."""

    kind: str
    where: str
    before: str
    after: str
    note: str = ""
    noise: bool = False
    pictures: tuple[bytes | None, bytes | None] = (None, None)


@dataclass(frozen=True)
class Comparison:
    """A session's findings, and how much was compared."""

    session: str
    findings: list[Finding]
    counts: dict[str, int]

    @property
    def drift(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.noise]


def compare(session: str, shipped: NotebookNode, fresh: NotebookNode) -> Comparison:
    """Compare two executed notebooks, code cell by code cell; times are for `slower`."""
    findings: list[Finding] = []
    moves: list[Move] = []
    counts = {"cells": 0, "claims": 0, "numbers": 0, "figures": 0}
    for where, old, new in _aligned(shipped, fresh, findings):
        before, after = said(old), said(new)
        counts["cells"] += 1
        counts["figures"] += len(before.pictures)
        counts["claims"] += sum(map(_is_claim, before.lines))
        findings += [replace(found, where=where) for found in _in_cell(before, after, moves)]
    counts["numbers"] = len(moves)
    findings = _together(moves) + findings  # the first of the numbers
    order = list(KINDS)
    return Comparison(session, sorted(findings, key=lambda found: order.index(found.kind)), counts)


def _aligned(
    shipped: NotebookNode, fresh: NotebookNode, findings: list[Finding]
) -> Iterator[tuple[str, Any, Any]]:
    """Code cells that belong together, and where they are; of others a finding is kept.

    Of a run of edited cells, the first belongs to the first, and so on.
    """
    ours, theirs = _code(shipped), _code(fresh)
    matcher = SequenceMatcher(None, _names(ours), _names(theirs), autojunk=False)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        old, new = ours[i:i_end], theirs[j:j_end]
        for (where, before), (_, after) in zip(old, new, strict=False):
            if tag != "equal":
                findings.append(Finding("cell", where, before.source, after.source, "edited"))
            yield where, before, after
        for where, cell in old[len(new) :]:
            findings.append(Finding("cell", where, cell.source, "", "removed"))
        for where, cell in new[len(old) :]:
            findings.append(Finding("cell", where, "", cell.source, "added"))


def _code(notebook: NotebookNode) -> list[tuple[str, NotebookNode]]:
    """Code cells, each with its number and the heading that it stands under."""
    heading, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found.append((f"[{len(found) + 1}] {heading}".strip(), cell))
        elif titles := re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE):
            heading = titles[-1]
    return found


def _names(cells: Sequence[tuple[str, NotebookNode]]) -> list[str]:
    return cell_ids([cell for _, cell in cells])


def _in_cell(before: Said, after: Said, moves: list[Move]) -> Iterator[Finding]:
    if before.error != after.error:
        yield Finding("error", "", before.error, after.error)
    for old, new in _paired(before.lines, after.lines):
        if not new and after.stopped:
            continue  # it was not reached, and why is told already
        yield from _in_line(old, new, moves)
    yield from _in_pictures(before.pictures, after.pictures)


def _paired(
    before: Sequence[Line], after: Sequence[Line]
) -> Iterator[tuple[Line | None, Line | None]]:
    """Lines that say the same but for their numbers; others in their order, claim to claim."""
    keys = [_key(line) for line in before], [_key(line) for line in after]
    for _, i, i_end, j, j_end in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        for claims in (True, False):
            old = [line for line in before[i:i_end] if _is_claim(line) == claims]
            new = [line for line in after[j:j_end] if _is_claim(line) == claims]
            yield from zip_longest(old, new)


def _key(line: Line) -> str:
    """The line's pattern; a claim's is the same whether it holds or not."""
    return re.sub(r"^[✓✗] (This run does not show it: )?", "", pattern_of(line.text))


def _is_claim(line: Line) -> bool:
    """A ✓ or ✗ at the beginning, of a claim or in a checklist; or what came of a prediction."""
    return line.text.lstrip().startswith(("✓", "✗", "→") if line.printed else ("✓", "✗"))


def _in_line(old: Line | None, new: Line | None, moves: list[Move]) -> Iterator[Finding]:
    was, now = old.text.strip() if old else "", new.text.strip() if new else ""
    kind = "claim" if _is_claim(old or new) else "text"
    if not old or not new or _key(old) != _key(new):
        # A model's response, displayed, differs by a word where a weight differs in its last bit.
        response = bool(old and new) and kind == "text" and not (old.printed or old.measured)
        yield Finding(kind, "", was, now, noise=response)
        return
    if kind == "claim" and was[0] != now[0]:
        yield Finding("claim", "", was, now)
    here = [Move(*pair) for pair in zip(numbers_in(was), numbers_in(now), strict=True)]
    moves += here
    told = any(is_drift(move) for move in here if not move.before.is_end)
    for move in here:
        if move.before.text != move.after.text and not (told and move.before.is_end):
            yield Finding("number", "", was, now, str(move), noise=not is_drift(move))


def is_drift(move: Move) -> bool:
    """Whether a number has moved by more than another machine would move it."""
    if move.ses is not None:
        return abs(move.ses) > STANDARD_ERRORS
    return move.relative > RELATIVE and not move.is_rounding


def _together(moves: Sequence[Move]) -> list[Finding]:
    """Many numbers that have each moved a little: the sign of another seed or other data.

    Those that are drift by themselves are told already, and left out.
    """
    estimates = [m for m in moves if not (m.before.is_end or m.is_rounding or is_drift(m))]
    moved = [move.ses for move in estimates if move.ses]
    if len(moved) < AT_LEAST:
        return []
    size = (sum(ses * ses for ses in moved) / len(moved)) ** 0.5
    if size <= TOGETHER:
        return []
    note = f"{len(moved)} numbers moved, by {size:.1f} standard errors (root mean square)"
    return [Finding("number", "all together", "", "", f"{note}: as another seed or data would")]


def _in_pictures(before: Sequence[bytes], after: Sequence[bytes]) -> Iterator[Finding]:
    for index in range(max(len(before), len(after))):
        old = before[index] if index < len(before) else None
        new = after[index] if index < len(after) else None
        if old is None or new is None:
            note = "no such figure before" if old is None else "the figure is gone"
            yield Finding("figure", "", "", "", note, pictures=(old, new))
        elif share := share_that_differs(old, new):
            note = f"{share:.2%} of the pixels differ" if share < 1 else "of another size"
            yield Finding("figure", "", "", "", note, share <= PICTURE, (old, new))


def slower(before: Times, after: Times) -> list[Finding]:
    """Cells that take longer than the two machines' speed explains."""
    ratio = speed(before, after)
    times = max(SLOWER, scatter(before, after) ** SCATTERS)
    findings = []
    for number, (cell, seconds) in enumerate(after.items(), 1):
        expected = ratio * before.get(cell, seconds)
        if seconds > times * expected and seconds - expected > SECONDS * max(1.0, ratio):
            where = f"[{number}] {cell.partition(' ')[2]}"
            note = f"expected {expected:.1f} s on this machine ({ratio:.2f} times the time shipped)"
            findings.append(
                Finding("time", where, f"{before[cell]:.1f} s", f"{seconds:.1f} s", note)
            )
    return findings
