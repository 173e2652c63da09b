"""Grading: what was handed in is read, run behind a fence, judged where no answer reaches."""

from __future__ import annotations

import csv
import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT
from right_answers import RIGHT

from coursekit.week.grading import fence
from coursekit.week.grading.classroom import grade_all, kernel_fence
from coursekit.week.grading.sandbox import Limits, Program
from coursekit.week.grading.submissions import answer_in, read_submissions, statements_of
from coursekit.week.grading.verdicts import grade
from coursekit.week.solved import EXERCISES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="grading needs Linux or macOS")
LIMITS = Limits(seconds=1.5, memory_mb=512)
NAME = "implicit_reward"
RIGHT_CODE = f"def {NAME}(policy, reference, beta):\n    return beta * (policy - reference)"


@pytest.fixture(autouse=True)
def one_thread():
    """As the command sets it: a process that is a copy of this one has no threads of torch's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def graded(body, before="", limits=LIMITS):
    """The grade of an answer with that body."""
    code = f"{before}\ndef {NAME}(policy, reference, beta):\n    {body}"
    return grade(NAME, Program(NAME, code), [11, 12], limits)


# Answers that mean harm.


@pytest.fixture()
def victim(tmp_path):
    path = tmp_path / "victim.txt"
    path.write_text("precious", encoding="utf-8")
    yield path
    assert path.read_text(encoding="utf-8") == "precious"
    assert [each.name for each in tmp_path.iterdir()] == ["victim.txt"]


ENDLESS = {
    "a loop": "while True: pass",
    "one that catches all": "\n    ".join(
        ("while True:", "    try:", "        while True: pass", "    except BaseException: pass")
    ),
    "sleep": "import time; time.sleep(100)",
    "printing": "while True: print('x' * 1000)",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_answer_is_ended(body):
    found = graded(body, limits=Limits(0.8, 256))
    assert found.state == "wrong" and found.seconds < 10
    assert "did not end within 0.8 seconds" in found.message or "memory" in found.message.lower()


GREEDY = {
    "lists": "return [0] * 10**10",
    "torch": "import torch; return torch.ones(10**10)",
    "growing": "\n    ".join(("held = [0]", "while True: held += held")),
}


@pytest.mark.parametrize("body", GREEDY.values(), ids=GREEDY)
def test_a_greedy_answer_gets_no_memory(body):
    found = graded(body, limits=Limits(20, LIMITS.memory_mb))  # slow to fill, on a busy machine
    assert found.state == "wrong"
    assert any(word in found.message for word in ("MemoryError", "allocate", "process ended"))


LEAVING = {
    "os._exit": ("import os; os._exit(0)", "exit status 0"),
    "SystemExit": ("raise SystemExit", "ends the program"),
    "a crash": ("import os; os.abort()", "by signal 6"),
    "closing all": ("import os; os.closerange(0, 4096); return policy", "process ended"),
    "half an answer": ("import os; [os.write(n, b'[{') for n in range(3, 9)]", ""),
}


@pytest.mark.parametrize(("body", "message"), LEAVING.values(), ids=LEAVING)
def test_an_answer_that_leaves_is_no_right_one(body, message):
    found = graded(body)
    assert found.state == "wrong" and message in found.message and found.message


FORBIDDEN = {
    "deleting": "import os; os.remove(VICTIM)",
    "renaming": "import os; os.rename(VICTIM, VICTIM + '2')",
    "overwriting": "open(VICTIM, 'w')",
    "overwriting by the system": "import os; os.open(VICTIM, os.O_WRONLY | os.O_TRUNC)",
    "a tree": "import os, shutil; shutil.rmtree(os.path.dirname(VICTIM))",
    "beside it": "open(VICTIM + '2', 'x')",
    "a link": "import os; os.link(VICTIM, 'x'); open('x', 'w')",
    "a symbolic link": "import os; os.symlink(VICTIM, 'x'); open('x', 'w')",
    "reading others": "return open(VICTIM).read()",
    "listing others": "import os; os.listdir(os.path.dirname(VICTIM))",
    "passwords": "return open('/etc/passwd').read()",
    "the environment of others": "import os; return open(f'/proc/{os.getppid()}/environ').read()",
    "a socket": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "a name": "import socket; socket.gethostbyname('localhost')",
    "a page": "import urllib.request as r; r.urlopen('http://127.0.0.1:9')",
    "a program": "import subprocess; subprocess.run(['true'])",
    "a shell": "import os; os.system('true')",
    "another process": "import os; os.fork()",
    "killing": "import os; os.kill(os.getppid(), 9)",
    "the C library": "import ctypes; ctypes.CDLL(None).system(b'true')",
    "more memory": "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))",
    "the solution's module": f"import coursekit.week.exercises.session_a as s; "
    f"return s.{NAME}.solution(policy, reference, beta)",
    "the solution's file": f"return open({str(ROOT)!r} + '/coursekit/week/exercises/session_a.py')",
    "the solution in memory": "import gc; return [o for o in gc.get_objects() if callable(o)]",
}


@pytest.mark.parametrize("body", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_an_answer_may_not_do_is_refused_and_said(body, victim):
    found = graded(body.replace("VICTIM", repr(str(victim))))
    assert found.state == "wrong"
    assert "an answer may not" in found.message or "URLError" in found.message
    assert found.remarks or "VICTIM" in body  # a person is told to look


def test_solutions_are_not_among_the_loaded_modules():
    body = f"import sys; return sys.modules['coursekit.week.exercises.session_a'].{NAME}"
    assert "KeyError" in graded(body).message
    body = f"import coursekit.week.exercises as e; return e.session_a.{NAME}"
    assert "AttributeError" in graded(body).message


def test_every_module_that_has_solutions_is_behind_the_fence():
    modules = (fence.PACKAGE / "week" / "exercises").glob("*.py")
    found = {path.stem for path in modules if "\n@exercise(" in path.read_text(encoding="utf-8")}
    assert len(found) >= 6 and found == set(fence.SOLUTIONS)


PATCHED = (
    "import builtins, json, torch\n"
    "for name in ('all', 'any', 'abs', 'repr', 'isinstance', 'zip'):\n"
    "    setattr(builtins, name, lambda *a, **k: True)\n"
    "torch.allclose = torch.isclose = lambda *a, **k: True\n"
    "torch.Tensor.__eq__ = lambda *a: True\n"
    'json.dumps = lambda *a, **k: \'[{"state": "correct"}]\'\n'
)


def test_who_changes_builtins_and_libraries_changes_no_verdict():
    assert graded("return policy", before=PATCHED).state == "wrong"
    assert graded("return beta * (policy - reference)").state == "correct"  # nor the next answer's


def test_numbers_that_are_made_up_on_the_way_back_are_no_right_ones():
    before = "import json\nright = json.dumps\n"
    body = "\n    ".join(
        (
            "def fake(answers): return right([dict(a, numbers=[[3], [0.0, 0.0, 0.0]], "
            "kind='Tensor', error=None) for a in answers])",
            "json.dumps = fake",
            "return policy",
        )
    )
    assert graded(body, before).state == "wrong"


REPLIES = ("1", "[1]", '[{"kind": 1}]', "[[", "null", "[" * 5000)


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_that_makes_no_sense_is_told(reply):
    found = graded("return policy", f"import json\njson.dumps = lambda *a: {reply!r}\n")
    assert found.state == "wrong" and "cannot be read" in found.message


def test_the_environment_holds_no_keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "sk-secret" not in graded("import os; raise ValueError(dict(os.environ))").message


@pytest.mark.skipif(not any("Landlock" in kept for kept in kernel_fence()), reason="no Landlock")
def test_the_kernel_holds_where_python_does_not(tmp_path):
    """Without the audit hook, as native code would see it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = (
        "import os, sys; from pathlib import Path; from coursekit.week.grading import fence\n"
        f"fence._landlock(Path({str(scratch)!r})); os.chdir({str(scratch)!r})\n"
        "Path('mine').write_text('x', encoding='utf-8')\n"
        "for path in ('../other', '/etc/passwd', fence.PACKAGE / 'week/exercises/session_a.py'):\n"
        "    try: os.open(path, os.O_RDWR | os.O_CREAT if path == '../other' else os.O_RDONLY)\n"
        "    except PermissionError: print('refused')\n"
        "try: os.kill(os.getppid(), 0)\n"
        "except PermissionError: print('refused')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    signals = any("signals" in kept for kept in kernel_fence())
    assert found.stdout.split() == ["refused"] * (3 + signals), found.stderr


# Answers that are what they are.


@pytest.mark.parametrize("name", EXERCISES)
def test_the_courses_own_solution_is_right_and_recognised(name):
    found = grade(name, Program(name, EXERCISES[name].code()), [21, 22], Limits(20, 1024))
    assert (found.state, found.visible, found.hidden, found.of) == ("correct", True, 2, 2)
    assert found.remarks == ("this is the solution that the course prints",)


def test_a_wrong_answer_is_told_as_in_the_notebook():
    exercise = EXERCISES[NAME]
    found = graded("return policy - reference")
    told = exercise.judge(lambda policy, reference, beta: policy - reference)
    assert (found.state, found.message) == ("wrong", told.message)
    assert any(line.startswith("beta = ") for line in found.evidence)


def test_what_holds_on_the_shown_inputs_alone_is_found_out():
    shown = [[float(case["policy_logps"].sum()), float(case["beta"])] for case in
             EXERCISES[NAME].inputs(0)]  # fmt: skip
    body = "\n    ".join(
        (
            f"known = {shown}",
            "right = beta * (policy - reference)",
            "return right if [float(policy.sum()), float(beta)] in known else 0 * right",
        )
    )
    found = graded(body)
    assert (found.state, found.visible) == ("wrong", True) and found.hidden < found.of
    assert found.message.startswith("right on the inputs of the notebook's check, not on hidden")


def test_a_stub_is_not_attempted_and_nothing_is_missing():
    assert graded("raise NotImplementedError").state == "not attempted"
    assert grade(NAME, None, [1], LIMITS).state == "missing"


def test_an_error_names_the_line():
    found = graded("return policy / 0 if False else [][1]")
    assert "IndexError" in found.message and "[][1]" in found.message


def test_what_it_prints_is_kept_in_short():
    found = graded("print('<here>' * 1000); return beta * (policy - reference)")
    assert found.state == "correct" and found.printed.startswith("<here>")
    assert len(found.printed) <= 2000


# What was handed in.

CHECK = f"{NAME} = exercises.{NAME}.check({NAME})"
STUB = f"def {NAME}(policy, reference, beta):\n    '''Docs.'''\n    raise NotImplementedError"
NOTEBOOKS = {
    "in one cell": [f"{RIGHT_CODE}\n\n{CHECK}"],
    "a helper, a constant, magics": [
        "%matplotlib inline\nimport torch as t\nONE = 1\nexpensive = 1 / 0",
        "def less(a, b):\n    return t.sub(a, b) * ONE",
        f"%%needs truth\ndef {NAME}(policy, reference, beta):\n    return beta * less(policy, "
        f"reference)\n\n{CHECK}",
    ],
    "a helper below": [
        f"def {NAME}(p, r, beta):\n    return beta * less(p, r)\n"
        f"def less(a, b):\n    return a - b\n{CHECK}"
    ],
    "an answer by another name": [
        f"mine = lambda p, r, beta: beta * (p - r)\n{NAME} = exercises.{NAME}.check(mine)"
    ],
    "the stub once more below": [f"{RIGHT_CODE}\n{CHECK}", f"{STUB}\n{CHECK}"],
    "nbgrader's two cells": [
        RIGHT_CODE,
        f"handed_in = {NAME}\n{NAME} = exercises.{NAME}.check(handed_in)",
    ],
    "the check deleted": [RIGHT_CODE],
    "a broken cell elsewhere": ["def (", f"{RIGHT_CODE}\n{CHECK}"],
    "a commands alone in a block": ["if True:\n    !ls", f"{RIGHT_CODE}\n{CHECK}"],
}


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])


@pytest.mark.parametrize("cells", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_an_answer_is_found_with_what_it_rests_on(cells, tmp_path):
    nbformat.write(notebook(*cells), tmp_path / "ada.ipynb")
    (one,) = read_submissions(tmp_path, EXERCISES)
    assert one.learner == "ada" and set(one.answers) == {NAME}
    assert "expensive" not in one.answers[NAME].code
    assert grade(NAME, one.answers[NAME], [3], LIMITS).state == "correct"
    assert bool(one.problems) == (cells[0] == "def (")


def test_right_answers_pass_as_they_stand_in_a_notebook():
    """One of each exercise, in another style than the course's own."""
    imports = "import math\nimport pandas as pd\nimport torch\nimport torch.nn.functional as F"
    for name, (source, *_) in RIGHT.items():
        body = textwrap.dedent(source).strip()
        body = textwrap.indent(body if "return" in body else f"return {body}", "    ")
        arguments = ", ".join(inspect.signature(EXERCISES[name].solution).parameters)
        cell = f"def {name}({arguments}):\n{body}\n\n{name} = exercises.{name}.check({name})"
        found = answer_in(name, [*statements_of(imports), *statements_of(cell)])
        outcome = grade(name, found, [31], Limits(20, 1024))
        assert outcome.state == "correct", (name, outcome.message)
        assert "this is the solution that the course prints" not in outcome.remarks


@pytest.fixture()
def classroom(tmp_path):
    """Three learners: one with a notebook and artifacts, one with a diary alone, one who plays."""
    for name in ("ada", "bob", "eve"):
        (tmp_path / name / "triage" / "tiny").mkdir(parents=True)
    nbformat.write(notebook(f"{RIGHT_CODE}\n{CHECK}"), tmp_path / "ada" / "A.ipynb")
    (tmp_path / "ada" / "dpo.md").write_text("My words <b>", encoding="utf-8")
    lines = [
        {"kind": "choice", "of": "=1+1?", "choice": "<up>"},
        {"kind": "outcome", "of": "=1+1?", "truth": "<up>"},
        {"kind": "exercise", "of": "gradient_weight", "state": "correct",
         "code": "def mine(c, r):\n    return torch.sigmoid(r - c)"},
        {"kind": "exercise", "of": "nobody's", "state": "correct", "code": "x"},
    ]  # fmt: skip
    diary = "\n".join(map(json.dumps, lines))
    (tmp_path / "bob" / "triage" / "tiny" / "diary.jsonl").write_text(diary, encoding="utf-8")
    code = f"def {NAME}(p, r, b):\n    '<script>'\n    import os\n    os._exit(0)"
    nbformat.write(notebook(f"{code}\n{CHECK}"), tmp_path / "eve" / "A.ipynb")
    (tmp_path / "eve" / "B.ipynb").write_text("{", encoding="utf-8")
    (tmp_path / "eve" / "instructgpt.md").symlink_to("/etc/passwd")
    return tmp_path


def test_a_class_is_graded_into_a_table_and_a_page(classroom, capsys):
    grades = grade_all(classroom, classroom / "out", [41], LIMITS)
    assert grades["ada"][NAME].state == "correct" and grades["eve"][NAME].state == "wrong"
    assert grades["bob"]["gradient_weight"].state == "correct"
    said = capsys.readouterr().out
    assert "ada: 1 of 24 correct" in said and "seeds 41" in said
    with (classroom / "out" / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len([row for row in rows if row["kind"] == "exercise"]) == 3 * len(EXERCISES)
    (predicted,) = [row for row in rows if row["kind"] == "prediction"]
    assert predicted["name"] == "'=1+1?" and predicted["state"] == "held"  # no formula
    problems = [row["message"] for row in rows if row["kind"] == "problem"]
    assert len(problems) == 1 and "eve/B.ipynb cannot be read" in problems[0]
    texts = [row["name"] for row in rows if row["kind"] == "text"]
    assert texts == ["ada/dpo.md"]  # a link to a file elsewhere is not read
    page = (classroom / "out" / "grades.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;up&gt;" in page and "My words &lt;b&gt;" in page
    assert "root:" not in page and page.count("<h2") == 3


def test_an_answer_kept_without_its_name_is_still_the_exercises(classroom):
    """The diary keeps what was checked: a function of any name."""
    bob = read_submissions(classroom, EXERCISES)[1]
    assert bob.answers["gradient_weight"].name == "mine"


def test_a_stub_in_a_notebook_takes_nothing_from_the_diary(classroom):
    """An older notebook, or another copy of the session, beside the artifacts."""
    stub = "def gradient_weight(c, r):\n    raise NotImplementedError"
    check = "gradient_weight = exercises.gradient_weight.check(gradient_weight)"
    nbformat.write(notebook(f"{stub}\n\n{check}"), classroom / "bob" / "A.ipynb")
    bob = read_submissions(classroom, EXERCISES)[1]
    assert bob.answers["gradient_weight"].name == "mine"


def test_the_saved_outputs_tell_predictions_where_there_is_no_diary(tmp_path):
    book = notebook("held(a)", "held(b)")
    texts = (
        "Up: how?\n→ up: by 3\n✓ Your prediction held.",
        "B?\n→ no: x\n✗ You predicted: yes. W",
    )
    for cell, text in zip(book.cells, texts, strict=True):
        cell.outputs = [nbformat.v4.new_output("display_data", {"text/plain": text})]
    nbformat.write(book, tmp_path / "ada.ipynb")
    (one,) = read_submissions(tmp_path, EXERCISES)
    found = {each.question: (each.choice, each.truth) for each in one.predictions.values()}
    assert found == {"Up: how?": ("up", "up"), "B?": ("yes", "no")}


def test_a_folder_without_submissions_is_told(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        read_submissions(tmp_path / "none", EXERCISES)
    with pytest.raises(ValueError, match="neither folders of learners nor notebooks"):
        read_submissions(tmp_path, EXERCISES)


def test_the_command_starts_anew_without_keys(tmp_path):
    """A process can read what it was started with, whatever it has deleted since."""
    body = "raise ValueError(open('/proc/self/environ').read())"
    if sys.platform.startswith("linux"):
        started = subprocess.run(
            [sys.executable, "-c",
             "import os, sys; sys.argv = ['grade']\n"
             "from coursekit.week.grading import __main__ as m\n"
             "os.execve = lambda path, arguments, variables: print(sorted(variables))\n"
             "m._start_without_keys()"],
            capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, "OPENAI_API_KEY": "sk-secret", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert "OPENAI_API_KEY" not in started.stdout and "PATH" in started.stdout
    assert "an answer may not read" in graded(body).message


def test_the_command_grades_a_folder(classroom):
    found = subprocess.run(
        [sys.executable, "-m", "coursekit.week.grading", str(classroom), "--seeds", "5"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert found.returncode == 0, found.stderr
    assert (classroom / "grades.csv").is_file() and (classroom / "grades.html").is_file()
    nothing = subprocess.run(
        [sys.executable, "-m", "coursekit.week.grading", str(classroom / "none")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert nothing.returncode == 1 and "Nothing was graded: no folder" in nothing.stderr


def test_the_fence_lets_through_what_answers_need():
    """Libraries that are imported late, and the course's own code."""
    body = "\n    ".join(
        (
            "import scipy.stats, pandas, statistics, math",
            "from coursekit.lm import losses",
            "with open('mine.txt', 'w') as file: file.write('x')",
            "assert open('mine.txt').read() == 'x'",
            "return beta * (policy - reference)",
        )
    )
    found = graded(body, limits=Limits(30, 2048))
    assert found.state == "correct", found.message
    assert Path(fence.PACKAGE).is_dir()
