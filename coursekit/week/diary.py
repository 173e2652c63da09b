"""What a learner has done: predictions and answers to exercises, kept beside their runs.

One JSON object a line is appended to `diary.jsonl` in the workspace's folder, and none is ever
changed, so a choice survives Run All, a restart and tomorrow, and the portfolio can count. With
`COURSE_DIARY=off` nothing is read or written: so it is where no learner works (`make course`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

DIARY = "diary.jsonl"
LONGEST = 20_000  # characters of an answer's code that are kept


@dataclass(frozen=True)
class Predicted:
    """A prediction: the choice (None: only asked), what came out (None: not seen yet).

    late: whether the choice was made when the result had already been shown.
    """

    question: str
    choice: str | None = None
    truth: str | None = None
    late: bool = False


@dataclass(frozen=True)
class Attempted:
    """An exercise's best answer: `state` is `correct` or `wrong`; `attempts` counts all answers."""

    exercise: str
    state: str
    code: str
    attempts: int


class Diary:
    """The diary in `folder`; `None` keeps nothing. Times are local and for reading."""

    def __init__(self, folder: Path | None) -> None:
        self.path = folder / DIARY if folder else None

    def entries(self) -> list[dict[str, Any]]:
        """All entries, the oldest first; what a kill or another program spoilt is left out."""
        if self.path is None or not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("of"), str):
                found.append(entry)
        return found

    def add(self, kind: str, of: str, **what: Any) -> None:
        """Append an entry, unless the last one of this kind and name says the same.

        What cannot be written is told and stops nothing: a lesson is not for its diary.
        """
        if self.path is None:
            return
        entry = {"kind": kind, "of": of, **what}
        before = [e for e in self.entries() if (e.get("kind"), e["of"]) == (kind, of)]
        if before and {name: before[-1].get(name) for name in entry} == entry:
            return
        line = json.dumps({**entry, "at": datetime.now().isoformat(timespec="seconds")})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                torn = file.tell() and not _ends_a_line(file)  # by a kill in mid-line
                file.write(("\n" * torn + line + "\n").encode())
        except OSError as error:
            print(f"(Not kept: {error}. Set COURSE_ARTIFACTS to a folder you may write.)")

    def prediction(self, question: str) -> Predicted:
        """What is known of one question."""
        return self.predictions().get(question, Predicted(question))

    def predictions(self) -> dict[str, Predicted]:
        """All questions that were asked, in their order, with choice and outcome.

        Once an outcome was shown the choice stands: another is not counted, and a first one is
        late. A later run may come out otherwise; the last outcome counts.
        """
        found: dict[str, Predicted] = {}
        for entry in self.entries():
            known = found.get(entry["of"], Predicted(entry["of"]))
            seen = known.truth is not None
            match entry:
                case {"kind": "asked"}:
                    pass
                case {"kind": "choice", "choice": str(choice)} if not seen or not known.choice:
                    known = replace(known, choice=choice, late=seen)
                case {"kind": "outcome", "truth": str(truth)}:
                    known = replace(known, truth=truth)
                case _:
                    continue
            found[entry["of"]] = known
        return found

    def attempts(self) -> dict[str, Attempted]:
        """The exercises that were answered: the last correct answer, or the last wrong one."""
        found: dict[str, Attempted] = {}
        for entry in self.entries():
            if entry.get("kind") != "exercise" or entry.get("state") not in ("correct", "wrong"):
                continue
            name, state = entry["of"], entry["state"]
            known = found.get(name)
            tries = known.attempts + 1 if known else 1
            if known and (known.state, state) == ("correct", "wrong"):
                found[name] = Attempted(name, known.state, known.code, tries)
            else:
                found[name] = Attempted(name, state, str(entry.get("code", "")), tries)
        return found


def diary() -> Diary:
    """The diary of the workspace that the environment names."""
    if os.environ.get("COURSE_DIARY") == "off":
        return Diary(None)
    from ..workspace import Workspace

    return Diary(Workspace().folder)


def keep_answer(name: str, answer: Any, state: str) -> None:
    """Keep what a check found of the learner's function; untouched stubs are no entry."""
    import inspect

    if state not in ("correct", "wrong"):
        return
    try:
        code = inspect.getsource(answer)[:LONGEST]
    except (OSError, TypeError):  # typed at a prompt, or no function at all
        code = ""
    diary().add("exercise", name, state=state, code=code)


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
