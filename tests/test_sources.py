"""Where the notebooks lie, and which of them the course runs."""

import sys

import pytest

from coursekit.week import run_course
from coursekit.week.sources import NOTEBOOKS, labs, named, notebook_in, sessions, sources


@pytest.fixture()
def folder(tmp_path):
    """Two sessions and a lab whose name comes before theirs."""
    (tmp_path / "labs").mkdir()
    for name in ("B.py", "A.py", "labs/A_lab.py", "labs/other.txt"):
        (tmp_path / name).touch()
    return tmp_path


def names(found, folder):
    return [path.relative_to(folder).as_posix() for path in found]


def test_labs_come_after_the_sessions(folder):
    assert names(sessions(folder), folder) == ["A.py", "B.py"]
    assert names(labs(folder), folder) == ["labs/A_lab.py"]
    assert names(sources(folder), folder) == ["A.py", "B.py", "labs/A_lab.py"]
    assert names(named("A", folder), folder) == ["A.py", "labs/A_lab.py"]


def test_a_notebook_lies_elsewhere_as_it_does_here(folder, tmp_path):
    out = tmp_path / "out"
    found = [notebook_in(out, source, folder) for source in sources(folder)]
    assert names(found, out) == ["A.ipynb", "B.ipynb", "labs/A_lab.ipynb"]


def test_no_notebook_lies_anywhere_else_and_no_two_have_one_name():
    """Results, times and commands name them without their folder."""
    assert sorted(sources()) == sorted(NOTEBOOKS.rglob("*.py"))
    assert len({source.stem for source in sources()}) == len(sources()) >= 3


def test_the_course_is_its_sessions_and_a_lab_runs_by_its_name(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_ARTIFACTS", str(tmp_path / "artifacts"))
    ran = []
    monkeypatch.setattr(run_course, "run_notebook", lambda source, _: not ran.append(source))
    monkeypatch.setattr(run_course, "sessions", lambda: sessions(folder))
    monkeypatch.setattr(run_course, "named", lambda only: named(only, folder))
    for arguments, wanted in (((), ["A.py", "B.py"]), (("--only", "A_l"), ["labs/A_lab.py"])):
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["course", *arguments])
        assert run_course.main() == 0 and names(ran, folder) == wanted
