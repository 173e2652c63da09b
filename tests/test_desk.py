"""The learner's desk: what they write stays, what they predict is kept, nothing is given away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT

from coursekit.week import desk
from coursekit.week.desk import Form, as_copy, is_touched, make_copies
from coursekit.week.diary import Diary, Predicted, diary, keep_answer
from coursekit.week.reading import LAB_OPTIONS
from coursekit.week.sources import sources

SOURCES = sources()


# Working copies.


@pytest.fixture()
def course(tmp_path, monkeypatch):
    """A course of one session; returns how to publish a version of it, and the learner's folder."""
    notebooks, work = tmp_path / "notebooks", tmp_path / "work"
    notebooks.mkdir()
    monkeypatch.setattr(desk, "NOTEBOOKS", notebooks)

    def publish(*cells):
        head = "# ---\n# jupyter:\n#   kernelspec:\n#     display_name: Python 3\n"
        head += "#     language: python\n#     name: python3\n# ---\n\n"
        text = head + "\n\n".join(f"# %%\n{cell}" for cell in cells) + "\n"
        (notebooks / "A.py").write_text(text, encoding="utf-8")
        return make_copies(work)[0]

    return publish


def cells_of(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def write_in(path, change):
    """Save the copy as a learner would who has changed its cells."""
    notebook = nbformat.read(path, as_version=4)
    change(notebook.cells)
    nbformat.write(notebook, path)


def own(text):
    return nbformat.v4.new_code_cell(text)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_copy_has_the_courses_cells_and_no_outputs(source):
    import jupytext

    copy = as_copy(source, Form())
    nbformat.validate(copy)
    assert [cell.source for cell in copy.cells] == [c.source for c in jupytext.read(source).cells]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in copy.cells)
    assert not any(is_touched(cell) for cell in copy.cells)
    assert copy == as_copy(source, Form())  # made twice, it is the same to the last id


def test_git_ignores_the_learners_folder():
    found = subprocess.run(["git", "check-ignore", "-q", "work/A_paper_math.ipynb"], cwd=ROOT)
    assert found.returncode == 0


def test_saving_a_copy_writes_no_source(tmp_path):
    """JupyterLab saves through jupytext, which pairs what the settings or the notebook say."""
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class

    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = make_copies(tmp_path / "work")[0]
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)()
    manager.root_dir = str(tmp_path)
    model = manager.get(f"work/{path.name}")
    manager.save(model, f"work/{path.name}")
    assert not list(tmp_path.rglob("*.py"))


def test_what_has_not_changed_is_left_as_it_is(course, capsys):
    path = course("a = 1", "b = 2")
    write_in(path, lambda cells: cells.append(own("mine")))
    before = path.read_bytes()
    course("a = 1", "b = 2")
    assert path.read_bytes() == before and "A.ipynb: as you left it" in capsys.readouterr().out


def test_a_newer_course_keeps_what_the_learner_has_written(course, capsys):
    path = course("head", "def f(): stub", "middle", "tail")

    def work(cells):
        cells[1].source = "def f(): answer"
        cells[2].outputs = [nbformat.v4.new_output("stream", text="seen")]
        cells.insert(2, own("my test of f"))
        cells.insert(0, own("my note"))

    write_in(path, work)
    course("new head", "def f(): stub", "inserted", "middle", "new tail")
    assert cells_of(path) == [
        *("my note", "new head", "def f(): answer", "my test of f", "inserted", "middle"),
        "new tail",
    ]
    middle = nbformat.read(path, as_version=4).cells[5]
    assert middle.outputs[0].text == "seen"
    assert "all that you have written" in capsys.readouterr().out
    assert [file.name for file in path.parent.iterdir()] == ["A.ipynb"]  # nothing was in conflict


def test_where_both_have_changed_a_cell_both_are_there_and_the_old_copy_too(course, capsys):
    path = course("head", "def f(x): stub", "tail")
    write_in(path, lambda cells: cells[1].update(source="def f(x): answer"))
    old = path.read_bytes()
    course("head", "def f(x, y): stub", "tail")
    wanted = ["head", "def f(x, y): stub", "def f(x): answer", "tail"]
    assert cells_of(path) == wanted
    assert (path.parent / "A-old1.ipynb").read_bytes() == old
    said = capsys.readouterr().out
    assert "has changed 1 of the cells that you have written in: kept as A-old1.ipynb" in said
    assert "yours stands below the course's" in said
    course("head", "def f(x, y): stub", "tail, again")  # the learner's cell is now their own
    assert cells_of(path) == [*wanted[:3], "tail, again"]
    assert not (path.parent / "A-old2.ipynb").exists()


def test_what_the_course_has_dropped_stays_if_the_learner_wrote_in_it(course):
    path = course("head", "dropped", "edited", "tail")
    write_in(path, lambda cells: cells[2].update(source="edited by me"))
    course("head", "tail")
    assert cells_of(path) == ["head", "edited by me", "tail"]


@pytest.mark.parametrize("content", ["no json", '{"cells": [], "metadata": {}, "nbformat": 4}'])
def test_a_file_that_is_no_copy_is_set_aside(course, capsys, content):
    path = course("a = 1")
    path.write_text(content, encoding="utf-8")
    course("a = 1")
    assert cells_of(path) == ["a = 1"]
    assert (path.parent / "A-old1.ipynb").read_text(encoding="utf-8") == content
    assert "kept as A-old1.ipynb" in capsys.readouterr().out


def test_the_sources_are_no_learners_folder(course):
    course("a = 1")
    with pytest.raises(ValueError, match="name another folder"):
        make_copies(desk.NOTEBOOKS)


def test_pages_that_the_notebooks_link_to_lie_beside_the_copies(course):
    course("a = 1")
    (desk.NOTEBOOKS / "GLOSSARY.md").write_text("# Words", encoding="utf-8")
    path = course("a = 1")
    assert (path.parent / "GLOSSARY.md").read_text(encoding="utf-8") == "# Words"


def test_a_labs_copy_lies_below_the_sessions(course):
    """Where links to them and to the glossary are what they are among the sources."""
    work = course("a = 1").parent
    lab = desk.NOTEBOOKS / "labs" / "a_lab.py"
    lab.parent.mkdir()
    shutil.copy(desk.NOTEBOOKS / "A.py", lab)
    assert make_copies(work) == [work / "A.ipynb", work / "labs" / "a_lab.ipynb"]
    write_in(work / "labs" / "a_lab.ipynb", lambda cells: cells.append(own("mine")))
    course("a = 1", "b = 2")
    shutil.copy(desk.NOTEBOOKS / "A.py", lab)
    make_copies(work)
    assert cells_of(work / "labs" / "a_lab.ipynb") == ["a = 1", "mine", "b = 2"]
    with pytest.raises(ValueError, match="name another folder"):
        make_copies(lab.parent)


def test_a_copy_without_solutions_stays_one(course):
    work = course("exercises.dpo_loss.card()").parent
    make_copies(work, Form(solutions=False))
    assert cells_of(work / "A.ipynb") == ["exercises.dpo_loss.card(solution=False)"]
    course("exercises.dpo_loss.card()", "more")
    assert cells_of(work / "A.ipynb") == ["exercises.dpo_loss.card(solution=False)", "more"]


def test_a_card_can_leave_its_solution_out():
    from coursekit.week.solved import EXERCISES

    for exercise in EXERCISES.values():
        with_it, without = exercise.card().data, exercise.card(solution=False).data
        assert "<summary>Solution</summary>" in with_it
        assert "Solution" not in without and "def " not in without and "Hint" in without


def test_lab_serves_the_courses_folder_and_opens_the_copy(monkeypatch, tmp_path):
    asked = []  # of JupyterLab, which Colab does not have
    labapp = SimpleNamespace(main=asked.append)
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", labapp)
    monkeypatch.setattr(desk, "make_copies", lambda folder: [folder / "A_paper_math.ipynb"])
    monkeypatch.setattr(sys, "argv", ["desk", "--lab", "--no-browser"])
    with pytest.raises(SystemExit):
        desk.open_lab()
    assert asked == [[
        f"--ServerApp.root_dir={ROOT}",
        f"--LabApp.default_url=/lab/tree/{desk.WORK}/A_paper_math.ipynb",
        *LAB_OPTIONS,
        "--no-browser",
    ]]  # fmt: skip


def test_a_file_is_linked_from_where_the_notebook_is(monkeypatch, tmp_path):
    from coursekit.common.markup import as_link
    from coursekit.week.widgets import file_link

    monkeypatch.chdir(ROOT / "tests")
    monkeypatch.setenv("COURSE_DIARY", "")
    link = as_link(ROOT / "artifacts" / "a <b> c.md")
    assert link == '<a href="../artifacts/a%20%3Cb%3E%20c.md">a &lt;b&gt; c.md</a>'
    linked = file_link(ROOT / "a.md", "the <card>").data
    assert linked == 'the &lt;card&gt;: <a href="../a.md">a.md</a>'
    assert as_link(tmp_path / "x.md") == f"<code>{tmp_path / 'x.md'}</code>"  # not served
    monkeypatch.setenv("COURSE_DIARY", "off")  # saved outputs are read where there is no such file
    assert as_link(tmp_path / "x.md") == as_link(ROOT / "x.md") == "<code>x.md</code>"


# The diary.


@pytest.fixture()
def kept(monkeypatch, tmp_path):
    """A diary that is kept, as in a learner's notebook; returns its folder."""
    monkeypatch.setenv("COURSE_DIARY", "")
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path))
    assert diary().path == tmp_path / "triage" / "tiny" / "diary.jsonl"
    return tmp_path / "triage" / "tiny"


def test_with_the_diary_off_nothing_is_kept(kept, monkeypatch):
    monkeypatch.setenv("COURSE_DIARY", "off")
    diary().add("choice", "Up?", choice="up")
    assert not kept.exists() and diary().predictions() == {}


def test_running_all_again_adds_nothing(kept):
    for _ in range(3):
        diary().add("asked", "Up?")
        diary().add("outcome", "Up?", truth="up")
    assert len(diary().entries()) == 2


def test_a_torn_line_costs_itself_alone(kept):
    diary().add("choice", "Up?", choice="up")
    with diary().path.open("ab") as file:
        file.write(b'{"kind": "choice", "of": "Do')  # killed here
    diary().add("choice", "Then?", choice="down")
    assert {name: each.choice for name, each in diary().predictions().items()} == {
        "Up?": "up",
        "Then?": "down",
    }


@pytest.mark.parametrize("line", ["[]", "1", "{}", '{"of": 1}', '{"of": "x", "kind": "choice"}'])
def test_lines_of_another_kind_are_no_entries(kept, line):
    kept.mkdir(parents=True)
    (kept / "diary.jsonl").write_text(f"{line}\n", encoding="utf-8")
    assert diary().predictions() == {} and diary().attempts() == {}


def test_once_the_result_was_shown_the_first_choice_stands(kept):
    for kind, what in (
        ("choice", {"choice": "up"}),
        ("choice", {"choice": "down"}),  # changed one's mind in time
        ("outcome", {"truth": "up"}),
        ("choice", {"choice": "up"}),
    ):
        diary().add(kind, "Up?", **what)
    assert diary().predictions() == {"Up?": Predicted("Up?", "down", "up")}


def test_a_choice_after_the_result_is_late(kept):
    diary().add("outcome", "Up?", truth="up")
    diary().add("choice", "Up?", choice="up")
    assert diary().predictions() == {"Up?": Predicted("Up?", "up", "up", late=True)}


def test_a_diary_that_cannot_be_written_stops_nothing(kept, capsys):
    kept.parent.mkdir()
    kept.write_text("a file where the folder would be", encoding="utf-8")
    diary().add("asked", "Up?")
    assert "Not kept" in capsys.readouterr().out


def test_checks_are_kept_and_a_solved_exercise_stays_solved(kept, capsys):
    from coursekit.week.exercises.session_a import implicit_reward

    def wrong(policy_logps, reference_logps, beta):
        return policy_logps

    def right(policy_logps, reference_logps, beta):
        return beta * (policy_logps - reference_logps)

    def stub(policy_logps, reference_logps, beta):
        raise NotImplementedError

    for answer in (stub, wrong, right, stub, wrong):
        implicit_reward.check(answer)
    (attempt,) = diary().attempts().values()
    assert (attempt.exercise, attempt.state, attempt.attempts) == ("implicit_reward", "correct", 3)
    assert "def right" in attempt.code


def test_an_answer_without_a_source_is_kept_too(kept):
    keep_answer("dpo_loss", len, "wrong")
    assert diary().attempts()["dpo_loss"].code == ""


# Predictions.

OPTIONS = ["up", "down"]


@pytest.fixture()
def boxes(monkeypatch):
    """The widgets that are displayed: title, buttons, verdict."""
    from coursekit.week.widgets import page

    shown = []
    monkeypatch.setattr(page, "show_widget", lambda box, instead: shown.append(box.children))
    return shown


def test_a_choice_is_there_again_tomorrow(kept, boxes):
    from coursekit.week.widgets import predict

    predict("Up?", OPTIONS)
    boxes[0][1].value = "down"
    assert "Kept: down. Run on" in boxes[0][2].value
    assert predict("Up?", OPTIONS).choice == "down"  # in another process, for all it knows
    assert boxes[1][1].value == "down" and not boxes[1][1].disabled
    assert predict("Up?", ["left", "right"]).choice is None  # the question has changed


def test_a_click_after_the_result_shows_the_verdict_without_a_second_run(kept, boxes, capsys):
    from coursekit.week.widgets import held, predict

    prediction = predict("Up?", OPTIONS)
    held(prediction, "down", "by 3")
    assert "→ down: by 3\n(You made no prediction.)" in capsys.readouterr().out
    boxes[0][1].value = "down"
    said = "✓ Your prediction held. (You chose when it had been shown.)"
    assert said in capsys.readouterr().out and boxes[0][2].value == said
    assert boxes[0][1].disabled and diary().prediction("Up?").late


def test_a_prediction_in_time_is_judged_and_then_stands(kept, boxes, capsys):
    from coursekit.week.widgets import held, predict

    prediction = predict("Up?", OPTIONS)
    boxes[0][1].value = "up"
    held(prediction, "down", "by 3")
    assert "✗ You predicted: up. Why was it otherwise?\n" in capsys.readouterr().out
    predict("Up?", OPTIONS)
    assert boxes[1][1].disabled and boxes[1][1].value == "up"


def test_a_letter_is_a_choice(capsys):
    from coursekit.week.widgets import predict

    assert predict("Up?", OPTIONS, choice="b").choice == "down"
    assert predict("Which?", ["b", "a"], choice="b").choice == "b"  # an option goes before a letter
    with pytest.raises(ValueError, match="'c' is none of the options"):
        predict("Up?", OPTIONS, choice="c")
    assert 'add choice="a"' in capsys.readouterr().out  # whether or not a widget can be drawn


def test_without_ipywidgets_a_prediction_is_made_by_the_call(monkeypatch, capsys):
    from coursekit.week.widgets import held, predict

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    held(predict("Up?", OPTIONS, choice="a"), "up", "by 3")
    assert "✓ Your prediction held." in capsys.readouterr().out


CELLS = (
    "from coursekit.week.widgets import held, page, predict\n"
    "boxes = []\n"
    "page.show_widget = lambda box, instead: boxes.append(box)\n"
    'prediction = predict("Up?", ["up", "down"])\n'
    "print('chosen:', prediction.choice)",
    'held(prediction, "down", "by 3")',
    'if not prediction.choice: boxes[0].children[1].value = "down"',
)


def test_a_click_redraws_the_result_in_its_own_cell_and_survives_a_restart(tmp_path):
    from nbclient import NotebookClient

    variables = {**os.environ, "COURSE_DIARY": "", "COURSE_ARTIFACTS": str(tmp_path)}

    def run():
        notebook = nbformat.v4.new_notebook(cells=[own(text) for text in CELLS])
        client = NotebookClient(notebook, timeout=120, kernel_name="python3")
        client.execute(env={**variables, "PYTHONPATH": str(ROOT)})
        asked, result, _ = notebook.cells
        said = "".join(output.text for output in asked.outputs)  # in pieces, if the kernel is slow
        return said, result.outputs[0].data["text/plain"]

    asked, result = run()
    assert "chosen: None" in asked
    assert (
        result == "Up?\n→ down: by 3\n✓ Your prediction held. (You chose when it had been shown.)"
    )
    asked, result = run()
    assert "chosen: down" in asked and "✓ Your prediction held." in result


@pytest.mark.parametrize("letter", ["a", "c"])
def test_a_quiz_is_in_no_cell_of_its_notebook(letter):
    """Where the questions stood in the cell, the answers stood above the folded ones."""
    from importlib import import_module

    source = next(path for path in SOURCES if path.stem[0] == letter.upper())
    text = source.read_text(encoding="utf-8")
    questions = import_module(f"coursekit.week.exercises.session_{letter}").QUIZ
    assert len(questions) >= 5 and "quiz(exercises.QUIZ)" in text
    assert not [question for question, answer in questions if answer[:40] in text]


# The portfolio.


@pytest.fixture()
def workspace(profile, tmp_path):
    from coursekit.workspace import Workspace

    workspace = Workspace(replace(profile, artifacts=tmp_path))
    return workspace


def test_the_portfolio_counts_answers_and_predictions(workspace):
    from coursekit.week.deliverables import portfolio
    from coursekit.week.solved import EXERCISES, REQUIRED

    book = Diary(workspace.folder)
    book.add("exercise", "dpo_loss", state="wrong", code="def dpo_loss(): pass")
    book.add("exercise", "kappa", state="correct", code="def kappa(counts): return 1")
    book.add("exercise", "ipo_loss", state="correct", code=EXERCISES["ipo_loss"].code())
    book.add("choice", "Up?", choice="up")
    book.add("outcome", "Up?", truth="up")
    book.add("asked", "Then?")
    found = portfolio(workspace)["found"]
    assert found["exercises"] == (
        f"2 of {len(REQUIRED)} solved by you, 1 of them as the course prints it; "
        f"{len(REQUIRED) - 2} by the course's own function"
    )
    assert found["predictions"] == "1 of 2 made, 1 held of 1 that came out"


def test_the_lab_is_counted_apart_and_nobody_has_to_do_it(workspace, monkeypatch):
    from coursekit.week import deliverables, solved

    optional, required = ("kappa",), ("dpo_loss", "ipo_loss")
    monkeypatch.setattr(solved, "OPTIONAL", {name: solved.EXERCISES[name] for name in optional})
    monkeypatch.setattr(solved, "REQUIRED", {name: solved.EXERCISES[name] for name in required})
    monkeypatch.setattr(deliverables, "_asked_in_labs", lambda: {"In the lab?"})
    book = Diary(workspace.folder)
    for name in required:
        book.add("exercise", name, state="correct", code="def f(): return 1")
    book.add("choice", "Up?", choice="up")
    book.add("asked", "In the lab?")
    whole = "2 of 2 solved by you; 0 by the course's own function"
    assert deliverables._exercises(book) == ("sound", whole)
    assert deliverables._predictions(book)[:2] == (
        "sound",
        "1 of 1 made, 0 held of 0 that came out",
    )
    book.add("exercise", "kappa", state="correct", code="def f(): return 1")
    book.add("choice", "In the lab?", choice="no")
    whole = "2 of 2 solved by you and 1 of 1 of the lab; 0 by the course's own function"
    assert deliverables._exercises(book) == ("sound", whole)
    assert "1 of 1 made and 1 of 1 of the lab, 0 held" in deliverables._predictions(book)[1]


def test_the_questions_of_the_labs_are_found(tmp_path, monkeypatch):
    from coursekit.week import deliverables

    path = tmp_path / "lab.py"
    text = '# %%needs own\nup = predict(\n    "Up " "or down?",\n    ["up", "down"],\n)\nf("no")\n'
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(deliverables, "labs", lambda: [path])
    assert deliverables._asked_in_labs() == {"Up or down?"}


def test_the_portfolio_counts_runs(workspace):
    from coursekit.common.journal import Journal
    from coursekit.common.made_from import write_record
    from coursekit.week.deliverables import _runs

    assert _runs(workspace.folder)[0] == "missing"
    for name in ("sft", "dpo", "dpo-old1"):
        write_record(workspace.folder / name, {})
    with Journal(workspace.folder / "betas.jsonl", {}) as trials:
        trials.append([{"margin": 0.1}])
        trials.append([{"margin": 0.2}])
    assert _runs(workspace.folder) == (
        "sound",
        "dpo, sft, and 2 short runs to compare settings and labels",
    )


def test_one_page_is_handed_in_and_holds_what_was_written(workspace, monkeypatch):
    from coursekit.week.deliverables import notes
    from coursekit.week.hand_in import hand_in

    book = Diary(workspace.folder)
    book.add("exercise", "kappa", state="correct", code="def kappa(c): return '<script>'")
    book.add("choice", "Up & away?", choice="<up>")
    path = notes("dpo", workspace.profile).path
    path.write_text("# Notes\nMy <b>words</b>", encoding="utf-8")
    page = hand_in(workspace)
    html = page.path.read_text(encoding="utf-8")
    for text in ("return &#x27;&lt;script&gt;", "Up &amp; away?", "My &lt;b&gt;words", "exercises"):
        assert text in html
    assert "<script" not in html and "http" not in html.replace("https://arxiv.org", "")
    assert repr(page) == "To hand in: portfolio.html" and "portfolio.html" in page._repr_html_()


def test_notes_are_shown_with_a_link(workspace):
    from coursekit.week.deliverables import notes

    made = notes("dpo", workspace.profile)
    assert repr(made) == "dpo.md: 0 words so far"
    assert made._repr_html_().startswith("<code>dpo.md</code>: 0 words so far (in JupyterLab, ")
    made.path.write_text(f"{made.path.read_text(encoding='utf-8')}\nMine", encoding="utf-8")
    assert notes("dpo", workspace.profile)._repr_html_() == "<code>dpo.md</code>: 1 words so far"
