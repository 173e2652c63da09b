"""The hours that each session tells: its table adds up, and holds the exercises that it counts."""

import importlib
import re

import jupytext
import pytest
from conftest import ROOT

SESSIONS = {"A_paper_math": 180, "B_preferences_and_training": 240, "C_three_way_eval": 180}
CORE = 5  # importance of an exercise that is core


def minutes(opening: str) -> dict[str, tuple[int, int]]:
    """Core and optional minutes of each row of the table in a session's opening."""
    rows = re.findall(r"^\| (.+?) \| (\d*) ?\| (\d*) ?\|$", opening, re.MULTILINE)
    return {title: (int(core or 0), int(optional or 0)) for title, core, optional in rows}


def sections(name: str) -> dict[str, tuple[str, int, int]]:
    """Each section's mark, and the minutes of its core and of its other exercises, by its title."""
    letter = name[0].lower()
    exercises = importlib.import_module(f"coursekit.week.exercises.session_{letter}")
    text = (ROOT / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
    found = {}
    for part in text.split("\n# ## ")[1:]:
        title, mark = re.fullmatch(r"(.+?)( · optional)?", part.split("\n", 1)[0]).groups()
        cards = [
            getattr(exercises, card) for card in re.findall(r"^exercises\.(\w+)\.card", part, re.M)
        ]
        core = sum(card.minutes for card in cards if card.importance == CORE)
        found[title] = (mark or "", core, sum(card.minutes for card in cards) - core)
    return found


@pytest.mark.parametrize("name", SESSIONS)
def test_the_core_fits_and_the_table_adds_up(name):
    table = minutes(jupytext.read(ROOT / "notebooks" / f"{name}.py").cells[0].source)
    together = table.pop("together")
    assert together == tuple(map(sum, zip(*table.values(), strict=True)))
    assert together[0] == SESSIONS[name]


@pytest.mark.parametrize("name", SESSIONS)
def test_each_section_has_its_minutes_and_holds_its_exercises(name):
    table = minutes(jupytext.read(ROOT / "notebooks" / f"{name}.py").cells[0].source)
    table.pop("together")
    found = sections(name)
    assert list(table) == list(found)
    for title, (mark, core, other) in found.items():
        assert (table[title][0] == 0) == bool(mark), title
        assert core <= table[title][0] and other <= table[title][1], title


def test_exercises_of_both_kinds_are_counted():
    """Else the test above would hold whatever the table says."""
    of_a = sections("A_paper_math").values()
    assert sum(core for _, core, _ in of_a) > 30 < sum(other for *_, other in of_a)
