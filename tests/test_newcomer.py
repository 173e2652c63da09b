"""Someone who is new works through session A in a real browser: nothing is lost or spoilt.

A first evening, the next day, a train ride with another editor, and a newer version of the course.
What is asserted is what the person sees.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from browser import Notebook, browsing, eventually, screenshot, serving
from conftest import ROOT

from coursekit.week.exercises.session_a import EXERCISES

SESSION = "A_paper_math"
# `python -m coursekit lab`, less the environment that it would make.
LAB = (
    "import sys; from pathlib import Path; from coursekit.__main__ import run; "
    "run(Path(sys.executable), 'lab', sys.argv[1:])"
)
WHOLE = 900  # seconds for a whole session on a busy machine
SOLVED = ("preference_probability", "closed_form")
# What is written in place of the stub's `raise`, and the slip that the refusal has to name.
SLIPS = {
    "implicit_reward": ("policy_logps - reference_logps", "beta is missing"),
    "dpo_loss": (
        "-torch.nn.functional.logsigmoid(beta * (policy_rejected - reference_rejected"
        " - policy_chosen + reference_chosen))",
        "swapped roles",
    ),
}
MINE = "print('my own check:', 2**-1)"
BROKEN = "1 / 0  # my own slip"
ELSEWHERE = "print('written in the train')"
NEW = "print('what the newer course has')"
WORDS = "Z cancels within a prompt."


class Course:
    """A copy of the course under git, and someone who learns with it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.settings = folder / "course", folder / "settings"
        unwanted = shutil.ignore_patterns(".*", "artifacts", "work", "__pycache__")
        shutil.copytree(ROOT, self.root, ignore=unwanted)
        shutil.copy(ROOT / ".gitignore", self.root)
        self.git("init", "-q")
        self.commit()

    def git(self, *arguments: str) -> str:
        own = "user.name=Course", "user.email=course@localhost", "commit.gpgsign=false"
        line = ["git", *(part for setting in own for part in ("-c", setting)), *arguments]
        done = subprocess.run(line, cwd=self.root, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "The course")

    @property
    def copy(self) -> Path:
        return self.root / "work" / f"{SESSION}.ipynb"

    @contextmanager
    def lab(self) -> Iterator[Notebook]:
        """A server and a browser that start anew, with session A open as the command opens it."""
        env = {name: text for name, text in os.environ.items() if not name.startswith("COURSE_")}
        env["PYTHONPATH"] = str(self.root)
        command = [sys.executable, "-c", LAB]
        with (
            serving(command, self.settings, env, cwd=self.root) as url,
            browsing(permissions=["clipboard-read", "clipboard-write"]) as page,
        ):
            page.goto(url, wait_until="domcontentloaded")
            yield Notebook(page, len(nbformat.read(self.copy, as_version=4).cells))
            assert self.git("status", "--short") == "", "the course's own files have changed"

    def edit_elsewhere(self) -> None:
        """As another program does that knows nothing of pairing: the notebook's file alone."""
        notebook = nbformat.read(self.copy, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell(ELSEWHERE))
        nbformat.write(notebook, self.copy)

    def publish_newer(self) -> None:
        """A version with a new cell before an exercise that was solved, and another stub for it."""
        source = self.root / "notebooks" / f"{SESSION}.py"
        text, card = source.read_text(encoding="utf-8"), "exercises.closed_form.card()"
        assert text.count(card) == text.count("def closed_form(") == 1
        text = text.replace(card, f"{NEW}\n\n# %%\n{card}")
        text = text.replace("def closed_form(", "def closed_form(  # asked in other words\n    ")
        source.write_text(text, encoding="utf-8")
        self.commit()


@pytest.fixture()
def course(tmp_path):
    return Course(tmp_path)


def test_nothing_is_lost_and_nothing_is_spoilt(course):
    with course.lab() as notebook:  # the first evening
        assert not any(notebook.outputs()), "a copy that nobody has worked in has results"
        choices = works_through(notebook)
        writes_own_cells(notebook)
        notebook.save()
        notebook.restart_and_run_all(WHOLE)
        all_has_run(notebook)
        all_is_there(notebook, choices)
        writes_notes(notebook)
        notebook.save()
        screenshot(notebook.page, "newcomer_evening")
    course.edit_elsewhere()  # in the train
    with course.lab() as notebook:  # the next day: another server, another browser
        all_is_there(notebook, choices)
        assert notebook.with_code(ELSEWHERE).count() == 1
        goes_on(notebook, choices)
        notebook.save()
    course.publish_newer()
    with course.lab() as notebook:
        all_is_there(notebook, choices)
        the_newer_course_is_there(notebook)
        screenshot(notebook.page, "newcomer_newer_course")


# What the person does and sees.


def works_through(notebook: Notebook) -> dict[str, str]:
    """Cell by cell up to the last of the exercises; returns the predictions made on the way."""
    choices: dict[str, str] = {}
    left = {**dict.fromkeys(SOLVED), **SLIPS}
    begins(notebook)
    while left:
        notebook.run_until(lambda: stub(notebook) in left or questions(notebook) - choices.keys())
        for question in questions(notebook) - choices.keys():
            choices[question] = predicts(notebook, question)
        if (name := stub(notebook)) in left:
            answers(notebook, name, left.pop(name))
    assert len(choices) >= 2
    return choices


def begins(notebook: Notebook) -> None:
    """Go to the first cell that runs."""
    notebook.select(notebook.page.locator(".jp-Notebook .jp-CodeCell").first)


def questions(notebook: Notebook) -> set[str]:
    """The questions that have been asked for a prediction."""
    return set(re.findall(r"^Predict: (.+)$", "\n".join(notebook.outputs()), re.MULTILINE))


def stub(notebook: Notebook) -> str:
    """The exercise whose stub is the active cell, or an empty text."""
    found = re.search(
        r"^(\w+) = exercises\.\1\.check", notebook.code(notebook.active), re.MULTILINE
    )
    return found[1] if found else ""


def predicts(notebook: Notebook, question: str) -> str:
    """Click the first option, with no result in sight; returns it."""
    seen = notebook.outputs()
    place = next(i for i, text in enumerate(seen) if f"Predict: {question}" in text)
    assert not any(seen[place + 1 :]), f"below the question {question!r} there are results"
    assert not result_of(notebook, question)
    option = notebook.cells.nth(place).locator("label:has(input)").first
    choice = option.inner_text()
    option.locator("input").check()
    notebook.cells.nth(place).get_by_text(f"Kept: {choice}. Run on").wait_for()
    return choice


def result_of(notebook: Notebook, question: str) -> str:
    """What is seen as the result of a prediction, and whether it held; empty before that."""
    return next((text for text in notebook.outputs() if f"{question}\n→" in text), "")


def answers(notebook: Notebook, name: str, slip: tuple[str, str] | None) -> None:
    """Paste the printed solution over the stub, which is the active cell; or make a slip in it."""
    code, cell = notebook.code(notebook.active), notebook.cells.nth(notebook.place())
    if slip:
        notebook.write(code.replace("raise NotImplementedError", f"return {slip[0]}"))
        assert slip[1] in notebook.run()
        return
    printed = notebook.page.locator(".jp-OutputArea details", has_text="Solution").last
    printed.locator("summary").click()
    solution = printed.locator("pre").inner_text()
    notebook.select(cell)
    check = code.splitlines()[-1]
    notebook.write(f"{solution}\n\n\n{check}")
    assert f"✓ {EXERCISES[name].title}: correct." in notebook.run()


def writes_own_cells(notebook: Notebook) -> None:
    """One below an answer, and one at the end, with the only error that will be seen."""
    notebook.select(notebook.with_code("def implicit_reward("))
    notebook.insert_below(MINE)
    notebook.select(notebook.page.locator(".jp-Notebook .jp-CodeCell").last)
    notebook.insert_below(BROKEN)


def all_has_run(notebook: Notebook) -> None:
    prompts = notebook.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
    assert "[ ]:" not in prompts, notebook.errors()


def all_is_there(notebook: Notebook, choices: dict[str, str]) -> None:
    """The answers and what became of them, the predictions and theirs, own cells, and no error."""
    assert eventually(lambda: not missing(notebook, choices)), missing(notebook, choices)


def missing(notebook: Notebook, choices: dict[str, str]) -> list[str]:
    """What is not as it was left, in words."""
    seen, errors = "\n".join(notebook.outputs()), notebook.errors()
    own = [notebook.with_code(text).count() for text in (MINE, BROKEN)]
    there = {
        "own cells": own == [1, 1] and "my own check: 0.5" in seen,
        "the planted error, and no other": errors == ["ZeroDivisionError: division by zero"],
    }
    for name in SOLVED:
        title = EXERCISES[name].title
        there[f"{name}, solved"] = f"✓ {title}: correct." in seen and f"… {title}" not in seen
    for name, (wrong, slip) in SLIPS.items():
        there[f"{name}, refused"] = f"✗ {EXERCISES[name].title}: " in seen and slip in seen
        there[f"{name}, as written"] = notebook.with_code(f"return {wrong}").count() == 1
    for question, choice in choices.items():
        result = result_of(notebook, question)
        judged = "✓ Your prediction held." in result or f"✗ You predicted: {choice}." in result
        there[question] = judged and "when it had been shown" not in result
    return [what for what, is_there in there.items() if not is_there]


def writes_notes(notebook: Notebook) -> None:
    """Open the notes by their link, write, and see the words counted."""
    notebook.page.get_by_role("link", name="dpo.md").click()
    notebook.page.locator(".jp-MarkdownViewer h1").click(button="right")
    notebook.page.get_by_role("menuitem", name="Show Markdown Editor").click()
    editor = notebook.page.locator(".jp-FileEditor .cm-content")
    editor.click()
    notebook.page.keyboard.press("Control+End")
    notebook.page.keyboard.type(WORDS)
    notebook.save()
    notebook.page.locator(".lm-TabBar-tab", has_text=SESSION).click()
    words_are_counted(notebook)


def words_are_counted(notebook: Notebook) -> None:
    """Run the cell that shows the notes."""
    place = next(i for i, text in enumerate(notebook.outputs()) if "words so far" in text)
    notebook.select(notebook.cells.nth(place))
    assert f"dpo.md: {len(WORDS.split())} words so far" in notebook.run()


def goes_on(notebook: Notebook, choices: dict[str, str]) -> None:
    """A new kernel knows what was chosen and what was solved."""
    begins(notebook)
    first = next(iter(choices))
    place = next(i for i, text in enumerate(notebook.outputs()) if f"Predict: {first}" in text)
    notebook.run_until(lambda: notebook.place() == place + 1)
    chosen = notebook.cells.nth(place).get_by_role("radio", checked=True)
    chosen.wait_for()
    assert chosen.is_disabled(), "a prediction whose result was seen can be changed"
    notebook.select(notebook.with_code("def closed_form("))
    assert "✓" in notebook.run()
    words_are_counted(notebook)
    notebook.insert_below("from coursekit.week.deliverables import portfolio\nportfolio(workspace)")
    found = notebook.run()
    assert f"{len(SOLVED)} of " in found and f"{len(choices)} of " in found


def the_newer_course_is_there(notebook: Notebook) -> None:
    """Its new cell, its other stub above the learner's answer, and the copy as it was."""
    assert notebook.with_code(NEW).count() == 1
    asked, answered = notebook.with_code("def closed_form(").all()
    assert "in other words" in notebook.code(asked)
    assert "NotImplementedError" not in notebook.code(answered)
    assert notebook.with_code(ELSEWHERE).count() == 1
    notebook.page.get_by_text(f"{SESSION}-old1.ipynb").first.wait_for()
