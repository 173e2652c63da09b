"""What the learner makes and keeps: notes from guided templates, in a folder of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .profile import Profile

TEMPLATES = {
    "dpo": """# Notes on DPO

Rafailov et al. 2023, "Direct Preference Optimization", arXiv:2305.18290. About 600 words in all.
Write below each question; delete nothing above it.

## What problem does it solve, and what did one do before? (about 100 words)

## The derivation in five sentences: objective, closed form, reward, Bradley-Terry, loss (150)

## Why does the partition function cancel, and where would it not? (60)

## What does the gradient weigh? What does beta do, from both sides? (100)

## Which claims of the paper did you see hold in a cell, and which only under conditions? (100)

## What would you ask the authors? (90)
""",
    "instructgpt": """# Notes on InstructGPT

Ouyang et al. 2022, "Training language models to follow instructions with human feedback",
arXiv:2203.02155. About 300 words in all. Write below each question; delete nothing above it.

## The three stages, and which data each needs (about 80 words)

## How was the reward model trained: which loss, on what comparisons? (60)

## What keeps the policy near the SFT model, and what happens without it? (60)

## What got worse ("alignment tax"), and what did they do about it? (50)

## What does DPO do away with, and what does it keep? (50)
""",
}


@dataclass(frozen=True)
class Notes:
    """A learner's notes: the file, and how many words the learner has written in it."""

    path: Path
    words: int

    def __str__(self) -> str:
        return f"{self.path.name}: {self.words} words so far"


def notes(kind: str, profile: Profile) -> Notes:
    """The notes of that kind; the template is written if there is no file yet, never over one.

    Raises ValueError for an unknown kind.
    """
    if kind not in TEMPLATES:
        raise ValueError(f"unknown notes {kind!r}: choose one of {', '.join(TEMPLATES)}")
    path = profile.artifacts / "notes" / f"{kind}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATES[kind])
    except FileExistsError:
        pass
    return Notes(path, count_words(path.read_text(encoding="utf-8"), TEMPLATES[kind]))


def count_words(text: str, template: str) -> int:
    """Words of `text` outside the lines that `template` has."""
    given = set(template.splitlines())
    own = "\n".join(line for line in text.splitlines() if line not in given)
    return len(re.findall(r"\w[\w'’-]*", own))
