"""nbgrader's form: what its generator makes of it, what learners then have, what the tests find."""

import re

import nbformat
import pytest
from test_exercises import run

from coursekit.week.desk import Form, as_copy
from coursekit.week.solved import EXERCISES, SESSIONS
from coursekit.week.sources import sources

SOURCES = sources()
ASKED = zip(SOURCES, SESSIONS.values(), strict=False)  # the lab's come last
each_notebook = pytest.mark.parametrize(("source", "session"), list(ASKED))
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # nbgrader's, in place of a region


def parts(source):
    """The cells with a grade id, by it."""
    cells = as_copy(source, Form(nbgrader=True)).cells
    return {c.metadata["nbgrader"]["grade_id"]: c for c in cells if "nbgrader" in c.metadata}


def made(name, text):
    """The function that a cell makes, whatever the cell needs of a task."""
    return run(name, text.removeprefix("%%needs own\n"))


def released(text):
    """An answer cell as learners get it."""
    region = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION", re.MULTILINE | re.DOTALL)
    return region.sub(lambda found: f"{found[1]}" + STUB.replace("\n", f"\n{found[1]}"), text)


@each_notebook
def test_every_exercise_becomes_an_answer_cell_and_a_test_cell(source, session):
    cells = parts(source)
    assert set(cells) == {f"{role}-{name}" for name in session for role in ("answer", "tests")}
    for name, exercise in session.items():
        tests = cells[f"tests-{name}"]
        assert tests.metadata["nbgrader"]["points"] == exercise.difficulty
        assert "### BEGIN HIDDEN TESTS" in tests.source
        (asked,) = [c.source for c in as_copy(source, Form()).cells if f"def {name}(" in c.source]
        assert asked.startswith("%%needs") == tests.source.startswith("%%needs")
        compile(tests.source.removeprefix("%%needs own\n"), name, "exec")


@each_notebook
def test_the_instructor_has_the_solution_and_the_learner_the_stub(source, session):
    """The stub keeps its name, arguments and docstring, and counts as not attempted."""
    cells = parts(source)
    for name, exercise in session.items():
        text = cells[f"answer-{name}"].source
        assert exercise.judge(made(name, text)).state == "correct", name
        stub = released(text)
        assert f"def {name}(" in stub and '"""' in stub and "SOLUTION" not in stub
        assert exercise.judge(made(name, stub)).state == "not attempted", name


def test_the_tests_pass_an_answer_and_fail_a_stub():
    from coursekit.week.exercises import session_a

    tests = parts(SOURCES[0])["tests-implicit_reward"].source
    names = {"exercises": session_a}
    exec(tests, {**names, "implicit_reward": session_a.implicit_reward.solution})
    with pytest.raises(AssertionError, match="not attempted"):
        exec(tests, {**names, "implicit_reward": run("implicit_reward", released(
            parts(SOURCES[0])["answer-implicit_reward"].source))})  # fmt: skip


def test_nbgrader_itself_releases_an_exercise_and_grades_it(tmp_path):
    """Where it is installed (the course does not ask for it): an answer, and a stub as it was."""
    pytest.importorskip("nbgrader")
    from nbgrader.api import Gradebook
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    config = Config()
    config.CourseDirectory.root = str(tmp_path)
    course = NbGraderAPI(config=config)
    name, exercise = "implicit_reward", EXERCISES["implicit_reward"]
    notebook = as_copy(SOURCES[0], Form(nbgrader=True))
    own = parts(SOURCES[0])
    notebook.cells = [
        nbformat.v4.new_code_cell("from coursekit.week.exercises import session_a as exercises"),
        nbformat.v4.new_code_cell("import torch"),
        *(own[f"{role}-{name}"] for role in ("answer", "tests")),
    ]
    save(notebook, tmp_path / "source" / "dpo" / "a.ipynb")
    made = course.generate_assignment("dpo", create=True)
    assert made["success"], made["log"]
    handed_out = nbformat.read(tmp_path / "release" / "dpo" / "a.ipynb", as_version=4)
    stub, tests = handed_out.cells[2:]
    assert stub.source == released(own[f"answer-{name}"].source)
    assert "judge" not in tests.source
    for learner, answer in {"ada": exercise.code(), "bob": stub.source}.items():
        stub.source = answer
        save(handed_out, tmp_path / "submitted" / learner / "dpo" / "a.ipynb")
        graded = course.autograde("dpo", learner, create=True)
        assert graded["success"], graded["log"]
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        scores = [book.find_submission("dpo", learner).score for learner in ("ada", "bob")]
    assert scores == [exercise.difficulty, 0]


def save(notebook, path):
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
