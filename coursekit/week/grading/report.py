"""The grades as a table for programs (CSV) and as a page for people (HTML)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from ...common.hypertext import html_page
from ..diary import Predicted
from ..solved import EXERCISES, SESSIONS, counted
from .submissions import HandedIn
from .verdicts import Grade

COLUMNS = ("learner", "kind", "name", "state", "visible", "hidden", "of", "message", "remarks")
_MARKS = {"correct": "✓", "wrong": "✗", "not attempted": "…", "missing": "–"}
_STYLE = """
body { max-width: none } table { width: auto } td.mark { text-align: center }
.correct { color: #007a5a } .wrong { color: #b34700; font-weight: bold }
.turned th { writing-mode: vertical-rl }
@media (prefers-color-scheme: dark) { .correct { color: #4cc9a0 } .wrong { color: #ff9d5c } }
"""

Grades = Mapping[str, Mapping[str, Grade]]  # by learner, then by exercise


def write_csv(path: Path, handed_in: Sequence[HandedIn], grades: Grades) -> None:
    """A line for each learner and exercise, prediction, and text.

    Texts that a spreadsheet would take for a formula begin with an apostrophe.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for one in handed_in:
            for line in _lines(one, grades[one.learner]):
                writer.writerow([_as_cell(value) for value in (one.learner, *line)])


def _lines(one: HandedIn, grades: Mapping[str, Grade]) -> Iterator[tuple[object, ...]]:
    for grade in grades.values():
        passed = ("yes" if grade.visible else "no", grade.hidden, grade.of)
        said = (grade.message, "; ".join(grade.remarks))
        yield ("exercise", grade.exercise, grade.state, *passed, *said)
    for each in one.predictions.values():
        yield ("prediction", each.question, became(each), "", "", "", each.choice or "", "")
    for name, text in one.texts.items():
        yield ("text", name, f"{len(text.split())} words", "", "", "", "", "")
    for problem in one.problems:
        yield ("problem", "", "", "", "", "", problem, "")


def _as_cell(value: object) -> object:
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", " ", value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t") else text


def became(predicted: Predicted) -> str:
    """What became of a prediction, in a word or two."""
    if predicted.choice is None:
        return "not made"
    if predicted.truth is None:
        return "no result yet"
    result = "held" if predicted.choice == predicted.truth else "did not hold"
    return f"{result} (made late)" if predicted.late else result


def write_page(
    path: Path, handed_in: Sequence[HandedIn], grades: Grades, about: Sequence[str]
) -> None:
    """One page: the table, then each learner's answers, predictions and texts, folded.

    about: sentences on how the answers were run.
    """
    sections = [(one.learner, _section(one, grades[one.learner])) for one in handed_in]
    legend = ", ".join(f"{mark} {state}" for state, mark in _MARKS.items())
    intro = (
        f"{_overview(handed_in, grades)}<p>{legend}; ! asks for a look.</p>"
        f"{''.join(f'<p>{escape(sentence)}</p>' for sentence in about)}"
    )
    path.write_text(html_page("Grades", sections, intro, _STYLE), encoding="utf-8")


def _overview(handed_in: Sequence[HandedIn], grades: Grades) -> str:
    head = "".join(f'<th scope="col">{session} {name}</th>' for session, name in _columns())
    body = []
    for number, one in enumerate(handed_in, start=1):
        mine = grades[one.learner]
        right = [name for name, grade in mine.items() if grade.state == "correct"]
        marks = "".join(_mark(mine[name]) for _, name in _columns())
        words = sum(len(text.split()) for text in one.texts.values())
        body.append(
            f'<tr><th scope="row"><a href="#part-{number}">{escape(one.learner)}</a></th>'
            f"<td>{counted(right, 'correct')}</td><td>{escape(_predicted(one))}</td>"
            f"<td>{words}</td>{marks}</tr>"
        )
    first = "".join(
        f'<th scope="col">{name}</th>' for name in ("learner", "correct", "predictions", "words")
    )
    return f'<table><thead><tr class="turned">{first}{head}</tr></thead>{"".join(body)}</table>'


def _columns() -> Iterator[tuple[str, str]]:
    return ((session, name) for session, exercises in SESSIONS.items() for name in exercises)


def _mark(grade: Grade) -> str:
    look = " !" if grade.remarks else ""
    why = escape(" ".join((grade.message, *grade.remarks)), quote=True)
    state = grade.state.replace(" ", "-")
    return f'<td class="mark {state}" title="{why}">{_MARKS[grade.state]}{look}</td>'


def _predicted(one: HandedIn) -> str:
    made = [each for each in one.predictions.values() if each.choice is not None]
    held = sum(each.choice == each.truth for each in made)
    return f"{len(made)} made, {held} held" if made else "none"


def _section(one: HandedIn, grades: Mapping[str, Grade]) -> str:
    parts = [f"<p>{escape(problem)}</p>" for problem in one.problems]
    parts += [_answer(grade) for grade in grades.values() if grade.code]
    if one.predictions:
        rows = "".join(
            f"<tr><td>{escape(each.question)}</td><td>{escape(each.choice or '')}</td>"
            f"<td>{escape(became(each))}</td></tr>"
            for each in one.predictions.values()
        )
        head = "".join(f'<th scope="col">{name}</th>' for name in ("question", "choice", "became"))
        parts.append(_folded("Predictions", f"<table><tr>{head}</tr>{rows}</table>"))
    parts += [_folded(name, f"<pre>{escape(text)}</pre>") for name, text in one.texts.items()]
    return "".join(parts)


def _answer(grade: Grade) -> str:
    of = f"{grade.hidden} of {grade.of} hidden checks"
    visible = "passes" if grade.visible else "does not pass"
    said = [f"<p>{escape(text)}</p>" for text in (grade.message, *grade.remarks) if text]
    lines = "\n".join(grade.evidence)
    said += [f"<pre>{escape(lines)}</pre>"] * bool(lines)
    said += [f"<p>It printed:</p><pre>{escape(grade.printed)}</pre>"] * bool(grade.printed)
    title = f"{_MARKS[grade.state]} {EXERCISES[grade.exercise].title}{' !' * bool(grade.remarks)}"
    return _folded(
        title,
        f"<p>{visible} the notebook's check and {of}; {grade.seconds:.1f} s</p>{''.join(said)}"
        f"<pre>{escape(grade.code)}</pre>",
    )


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
