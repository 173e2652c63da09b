"""One page to hand in: the portfolio with what stands behind it, for people to read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.hypertext import html_page
from ..common.markup import as_link
from ..workspace import Workspace
from .deliverables import REFLECTED, TEMPLATES, portfolio
from .diary import Diary, Predicted
from .solved import OPTIONAL, SESSIONS, is_the_courses

if TYPE_CHECKING:
    import pandas as pd

PAGE = "portfolio.html"


@dataclass(frozen=True, repr=False)
class Page:
    """A page that was written; a notebook shows a link to it."""

    path: Path

    def __repr__(self) -> str:
        return f"To hand in: {self.path.name}"

    def _repr_html_(self) -> str:
        return f"To hand in: {as_link(self.path)}"


def hand_in(workspace: Workspace, pieces: pd.DataFrame | None = None) -> Page:
    """Write `portfolio.html` into the workspace's folder: one file that needs nothing beside it.

    pieces: the `portfolio`, if it was looked at already.

    In it: the portfolio, the exercises with the learner's code, predictions, notes, reflection and
    the three-way table.
    """
    diary = Diary(workspace.folder)
    pieces = portfolio(workspace) if pieces is None else pieces
    lines = pieces.reset_index().values.tolist()
    sections = [
        ("Pieces", _table(("piece", "state", "found", "where"), lines)),
        ("Exercises", "".join(_exercises(diary))),
        ("Predictions", _predictions(diary.predictions().values())),
        *_texts(workspace),
    ]
    path = workspace.folder / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    page = html_page(f"Portfolio: {workspace.task.title}", sections)
    path.write_text(page, encoding="utf-8")
    return Page(path)


def _exercises(diary: Diary) -> Iterable[str]:
    attempts = diary.attempts()
    for session, exercises in SESSIONS.items():
        for name, exercise in exercises.items():
            attempt = attempts.get(name)
            title = f"{session} · {exercise.title}"
            if attempt is None:
                optional = " (optional)" * (name in OPTIONAL)
                yield f"<p>– {escape(title)}: not answered{optional}</p>"
                continue
            mark = "✓" if attempt.state == "correct" else "✗"
            copied = ", as the course prints it" * is_the_courses(name, attempt.code)
            tries = f"{attempt.attempts} answer{'s' * (attempt.attempts != 1)} tried"
            said = f"{mark} {title}: {attempt.state}{copied}; {tries}"
            yield _folded(said, f"<pre>{escape(attempt.code)}</pre>")


def _predictions(predictions: Iterable[Predicted]) -> str:
    rows = [
        (each.question, each.choice or "(none)", each.truth or "", "late" * each.late)
        for each in predictions
    ]
    return _table(("question", "predicted", "came out", ""), rows) if rows else "<p>None asked.</p>"


def _texts(workspace: Workspace) -> Iterable[tuple[str, str]]:
    """The learner's texts, as they are, by the names of their files."""
    folder, notes = workspace.folder, workspace.profile.artifacts / "notes"
    files = [notes / f"{kind}.md" for kind in TEMPLATES]
    for path in (*files, folder / REFLECTED, folder / "three_way.md"):
        if path.is_file():
            text = re.sub(r"\r\n?", "\n", path.read_text(encoding="utf-8", errors="replace"))
            yield path.name, f"<pre>{escape(text)}</pre>"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>'
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
