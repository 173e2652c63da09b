"""Rubrics as people write them: a markdown file with a clause under each second-level heading."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TRIAGE = Path(__file__).parent / "rubrics" / "triage.md"


@dataclass(frozen=True)
class WrittenRubric:
    """A rubric: its title, what it is about, its clauses by name, and the whole text."""

    title: str
    about: str
    clauses: dict[str, str]
    text: str


def load_rubric(path: str | Path = TRIAGE) -> WrittenRubric:
    """Read a rubric: `# title`, what it is about, then `## clause` with its text, several times.

    Raises FileNotFoundError, or ValueError that says what the file lacks.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8").strip()
    head, *parts = re.split(r"^## +", text, flags=re.MULTILINE)
    title, _, about = head.strip().partition("\n")
    if not title.startswith("# "):
        raise ValueError(f"{path.name} has no title: its first line must be `# title`")
    clauses: dict[str, str] = {}
    for part in parts:
        name, _, body = part.strip().partition("\n")
        if not body.strip():
            raise ValueError(f"{path.name}: the clause {name!r} says nothing: write what earns 1")
        if name.strip() in clauses:
            raise ValueError(f"{path.name}: the clause {name!r} is there twice")
        clauses[name.strip()] = body.strip()
    if not clauses:
        raise ValueError(f"{path.name} has no clause: write each under a heading `## name`")
    return WrittenRubric(title.removeprefix("# ").strip(), about.strip(), clauses, text)
