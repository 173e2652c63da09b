"""A person as judge: pairs to label, one after the other, saved after every answer.

`Labelling` is the work itself, without a screen; `widgets.label_pairs` shows it in a notebook.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.chance import drawn_number
from ...common.files import json_lines, read_text
from ...common.prompts import prompt_key
from . import agreement
from .agreement import Agreement
from .judge import Winner

LABELS = ("first", "second", "tie", "skip")


@dataclass(frozen=True)
class Shown:
    """What is on the screen: the pair's number, its row, and the texts as they stand there.

    swapped: the pair's second response is shown on the left.
    """

    number: int
    row: Mapping[str, Any]
    left: str
    right: str
    swapped: bool


class Labelling:
    """Pairs and a person's labels of them.

    Which response stands on the left is drawn for each pair, from its texts and `seed`, so that
    nobody can learn where the better one stands, and a resumed session shows the same. Every label
    is on the disk before the next pair is shown; an undo is a line as well, nothing is rewritten.

    Args:
        items: (row, one response, another).
        path: JSON Lines; what stands there already is taken up again.

    Raises ValueError if there are no pairs, or if `path` is a folder or no text.
    """

    def __init__(
        self,
        items: Sequence[tuple[Mapping[str, Any], str, str]],
        path: str | Path,
        *,
        seed: int = 0,
    ) -> None:
        if not items:
            raise ValueError("no pairs to label")
        self.items, self.path, self.seed = list(items), Path(path), seed
        self._keys = [_key(row["prompt"], one, other) for row, one, other in self.items]
        self._given: dict[str, str] = {}
        self._order: list[str] = []  # of labelling, for undo
        for line in self._lines():
            self._take(line)

    @property
    def current(self) -> Shown | None:
        """The first pair without a label, or None when all have one."""
        for number, key in enumerate(self._keys):
            if key not in self._given:
                row, one, other = self.items[number]
                swapped = bool(drawn_number(f"{self.seed}/{key}", size=1) % 2)
                left, right = (other, one) if swapped else (one, other)
                return Shown(number, row, left, right, swapped)
        return None

    @property
    def done(self) -> int:
        """How many pairs have a label, skipped ones included."""
        return sum(key in self._given for key in self._keys)

    def label(self, choice: str) -> None:
        """Label the pair on the screen: `left`, `right`, `tie` or `skip`.

        Raises ValueError for another word, or when every pair has its label.
        """
        shown = self.current
        if shown is None:
            raise ValueError("every pair has its label: undo one, or stop")
        if choice not in ("left", "right", "tie", "skip"):
            raise ValueError(f"{choice!r} is no choice: left, right, tie or skip")
        sides = ("second", "first") if shown.swapped else ("first", "second")
        label = {"left": sides[0], "right": sides[1]}.get(choice, choice)
        self._write({"pair": self._keys[shown.number], "label": label, "swapped": shown.swapped})

    def undo(self) -> bool:
        """Take back the last label; returns whether there was one."""
        if not self._order:
            return False
        self._write({"pair": self._order[-1], "label": None})
        return True

    @property
    def labels(self) -> list[Winner | None]:
        """For each pair `first`, `second` or `tie`; None where it was skipped or not reached."""
        found = [self._given.get(key) for key in self._keys]
        return [label if label in ("first", "second", "tie") else None for label in found]

    def agreement_with(self, winners: Sequence[str]) -> Agreement:
        """Cohen's kappa with another judge's winners, on the pairs that have both.

        Raises ValueError if there is no such pair.
        """
        prompts = [prompt_key(row["prompt"]) for row, _, _ in self.items]
        both = [
            (mine, theirs, prompt)
            for mine, theirs, prompt in zip(self.labels, winners, prompts, strict=True)
            if mine and theirs in ("first", "second", "tie")
        ]
        return agreement(*([item[place] for item in both] for place in range(3)))

    def _lines(self) -> list[dict[str, Any]]:
        """What the file holds; a line that a kill has cut is left out."""
        if not self.path.exists():
            return []
        return [
            line
            for line in json_lines(read_text(self.path), self.path)
            if isinstance(line, dict)
            and isinstance(line.get("pair"), str)
            and "label" in line
            and line["label"] in (*LABELS, None)
        ]

    def _take(self, line: Mapping[str, Any]) -> None:
        key = line["pair"]
        if key in self._order:
            self._order.remove(key)
        if line["label"] is None:
            self._given.pop(key, None)
        else:
            self._given[key] = line["label"]
            self._order.append(key)

    def _write(self, line: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = not self.path.is_file() or self.path.read_bytes()[-1:] in (b"", b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(line)


def _key(prompt: Any, one: str, other: str) -> str:
    return hashlib.sha256(json.dumps([prompt, one, other]).encode()).hexdigest()[:16]
