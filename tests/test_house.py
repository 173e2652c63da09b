"""The house: eight rooms, imports that go down, no circle, small functions, a task in its room."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "coursekit"
FLOORS = "common lm tasks evaluation preferences training workspace week".split()  # upwards
LONGEST, MEDIAN = 50, 12  # lines of a function, with its docstring


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _from(module: str, node: ast.ImportFrom) -> str:
    """The package or module named after `from`, in full."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    up = node.level - (MODULES[module].name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def imports_of(module: str) -> Iterator[tuple[str, int]]:
    """Modules of the package that `module` imports, with the line: wherever in it that stands.

    In functions too, and for type checkers alone: who reads it has to go there all the same. Not
    counted is that Python runs a package's `__init__` before a module in it: each would be a circle
    with its own room.
    """
    for node in ast.walk(_tree(module)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _from(module, node)
            full = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else base for name in full]
        yield from ((name, node.lineno) for name in names if name in MODULES)


def _room(module: str) -> str:
    """`coursekit.lm.kl` -> `lm`; nothing for the package itself."""
    return f"{module}.".split(".")[1]


def test_the_house_has_the_rooms_it_says_and_no_more():
    rooms = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert rooms - {"__init__", "__main__"} == set(FLOORS)
    assert len(FLOORS) <= 8


def test_imports_between_rooms_go_down():
    upwards = [
        f"{module}:{line} imports {other}"
        for module in MODULES
        if _room(module) in FLOORS
        for other, line in imports_of(module)
        if _room(other) not in ("", _room(module))  # the package itself has the version, no more
        and _room(other) not in FLOORS[: FLOORS.index(_room(module))]
    ]
    assert not upwards


def test_no_circle_among_modules():
    graph = {module: {other for other, _ in imports_of(module)} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_imports_are_seen():
    """Those in functions, those for type checkers, relative ones: else the tests above hold all."""
    found = {name for name, _ in imports_of("coursekit.week.bench")}
    assert {"coursekit.workspace", "coursekit.lm.losses", "coursekit.common.profile"} <= found
    assert "coursekit.week.figures.results" in found
    assert "coursekit.week.gallery" in {
        name for module in MODULES if "widgets" in module for name, _ in imports_of(module)
    }


def _functions() -> dict[str, int]:
    """Lines of each function in the package, by where it stands."""
    return {
        f"{module}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module in MODULES
        for node in ast.walk(_tree(module))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_a_function_is_a_screen_or_less():
    lines = _functions()
    assert not {where: n for where, n in lines.items() if n > LONGEST}
    assert statistics.median(lines.values()) <= MEDIAN


# What the first task is about. `alert` as a word, so that `alertness` and variables pass.
OF_ONE_TASK = re.compile(r"triage|\balerts?\b|incident", re.IGNORECASE)
# What may name it outside its room, and why.
ITS_OWN = {
    "__main__.py": "`python -m coursekit model` makes the shipped model: its corpus is the task's",
    "lm/tiny/README.md": "the card of the shipped model, which was trained on that corpus",
    "tasks/__init__.py": "the name of the task that is taken where none is chosen",
    "week/gallery.py": "the recorded runs are that task's",
    "week/exercises/causes.py": "the exercise on a clause of that task's rubric",
    "week/exercises/reward.py": "the exercise on a reward for that task's reports",
}


def _says() -> dict[str, list[str]]:
    """Lines that speak of the first task, by file, outside its room."""
    found = {}
    for path in sorted(PACKAGE.rglob("*")):
        name = path.relative_to(PACKAGE).as_posix()
        if path.suffix in (".safetensors", ".pyc") or not path.is_file():
            continue
        if name.startswith("tasks/triage/") or name == "lm/tiny/tokenizer.json":  # its own words
            continue
        text = path.read_text(encoding="utf-8")
        if lines := [line for line in text.splitlines() if OF_ONE_TASK.search(line)]:
            found[name] = lines
    return found


def test_no_file_but_its_own_speaks_of_one_task():
    found = _says()
    assert not {name: lines for name, lines in found.items() if name not in ITS_OWN}
    assert set(ITS_OWN) <= set(found), "declared, but says nothing of it any more"


# CONTRIBUTING.md: a newcomer's questions.

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
QUESTIONS = (
    *("a loss", "a judge", "a metric", "a profile", "an exercise", "a figure", "a red flag"),
    *("a reader", "a task"),
)
_FILE_IN_ROW = re.compile(r"^\| (an? [^|]+) \| `([^`]+)` \| `([^`]+)` \|", re.MULTILINE)


def test_nine_questions_are_answered_by_one_file_each():
    rows = {what: (file, test) for what, file, test in _FILE_IN_ROW.findall(CONTRIBUTING)}
    assert tuple(rows) == QUESTIONS
    assert all((ROOT / file).is_file() for row in rows.values() for file in row)
    assert len({file for file, _ in rows.values()}) == len(QUESTIONS)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
def test_the_paths_that_are_named_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = set(re.findall(r"\b(?:coursekit|tests|notebooks)/[\w./]*\w", text))
    assert paths
    assert not {path for path in paths if not (ROOT / path).exists()}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "README.md"])
def test_the_modules_that_are_named_exist(name):
    """And what is imported from them in examples."""
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\bcoursekit(?:\.[a-z_]+)+", text))
    assert not {module for module in named if module not in MODULES}
    for module, names in re.findall(r"^from (coursekit[\w.]*) import (.+)$", text, re.MULTILINE):
        known = _names_of(module)
        assert not [each for each in names.split(", ") if each not in known], module


def _names_of(module: str) -> set[str]:
    """What can be imported from a module, read from its text: nothing heavy is loaded."""
    defined = {
        getattr(node, "name", "") for node in _tree(module).body if not isinstance(node, ast.Import)
    }
    imported = {
        alias.asname or alias.name
        for node in _tree(module).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return defined | imported


def test_the_picture_shows_the_floors():
    picture = re.findall(r"^    (\w+) {2,}\S", CONTRIBUTING, re.MULTILINE)
    assert picture == FLOORS[::-1]
