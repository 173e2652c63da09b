"""What one text has and another has not, word by word, as HTML."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from difflib import SequenceMatcher
from html import escape
from itertools import groupby

LONGEST = 3000  # characters of a text that are shown
_PIECE = re.compile(r"\n|[^\S\n]+|\S+")  # a line's end, white space, a word


def set_off(text: str, other: str | None = None, faults: Collection[str] = ()) -> str:
    """`text` as HTML, in it marked what `other` lacks; lines that are `faults` begin with ✗.

    Of a long text the beginning, and how much is left out.
    """
    left_out = len(text) - LONGEST
    if left_out > 0:
        rest = f'\n<i class="more">… {left_out:,} characters more</i>'
        return set_off(text[:LONGEST], other and other[:LONGEST], faults) + rest
    lines = text.split("\n")
    pieces = [_PIECE.findall(line) for line in lines]
    flat = [piece for line in pieces for piece in [*line, "\n"]][:-1]
    new = iter([*_new(flat, other), False])
    return "\n".join(
        _line(line, words, new, faults) for line, words in zip(lines, pieces, strict=True)
    )


def _new(pieces: Sequence[str], other: str | None) -> list[bool]:
    """Of each piece, whether `other` lacks it there; nothing is new without another text."""
    if other is None:
        return [False] * len(pieces)
    new = [True] * len(pieces)
    matcher = SequenceMatcher(None, pieces, _PIECE.findall(other), autojunk=False)
    for block in matcher.get_matching_blocks():
        new[block.a : block.a + block.size] = [False] * block.size
    return new


def _line(line: str, words: Sequence[str], new: Iterator[bool], faults: Collection[str]) -> str:
    marks = [next(new) for _ in words]
    next(new)  # of the line's end
    shown = "".join(
        _run("".join(word for word, _ in run), is_new)
        for is_new, run in groupby(zip(words, marks, strict=True), key=lambda pair: pair[1])
    )
    return f'<span class="fault">✗ {shown}</span>' if line in faults else shown


def _run(words: str, is_new: bool) -> str:
    return f"<ins>{escape(words)}</ins>" if is_new and words.strip() else escape(words)
