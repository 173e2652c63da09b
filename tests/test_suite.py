"""The suite's lanes: each test in one, all failures told, one closing line, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT

from coursekit.week import suite
from coursekit.week.sources import notebook_in, sessions
from coursekit.week.suite import APART, Lane, closing_line, lanes, run_lanes

GOOD = "def test_good():\n    pass\n"
BAD = "def test_bad():\n    assert 1 == 2, 'planted'\n"
DIES = "import os\ndef test_dies():\n    os._exit(9)\n"
WAITS = """
import time
from pathlib import Path
def test_waits():
    Path({begun!r}).touch()
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Without the plugins, none of which these lanes need: a lane begins sooner."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(suite, "OPTIONS", ())


def lane(folder, name, code):
    """A lane with one file of tests, which lies in a folder of its own."""
    path = folder / name / f"test_{name}.py"
    path.parent.mkdir()
    path.write_text(code, encoding="utf-8")
    return Lane(name, (str(path), "--rootdir", str(path.parent)))


def test_each_file_of_tests_is_in_one_lane(tmp_path):
    """By what pytest would collect: a lane's paths, less those that it ignores."""
    files = [*ROOT.glob("tests/test_*.py"), *ROOT.glob("notebooks/**/*.ipynb")]
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        taking = [
            lane.name
            for lane in lanes(str(tmp_path))
            if name in lane.arguments
            or (name.split("/")[0] in lane.arguments and f"--ignore={name}" not in lane.arguments)
        ]
        assert len(taking) == 1, (name, taking)
    assert all((ROOT / file).is_file() for files in APART.values() for file in files)


def test_no_two_lanes_share_artifacts(tmp_path):
    places = [lane.artifacts for lane in lanes(str(tmp_path))]
    assert len(set(places)) == len(places)
    assert places.count(None) == 1  # the sessions: what they leave is found the next time


def test_failures_of_every_lane_are_told_and_counted(tmp_path, capsys):
    made = [lane(tmp_path, "good", GOOD), lane(tmp_path, "one", BAD), lane(tmp_path, "two", BAD)]
    assert run_lanes(made, cores=2) == 1
    said = capsys.readouterr().out
    for name in ("one", "two"):
        assert f"test_{name}.py::test_bad" in said
    assert said.count("E       AssertionError: planted") == 2
    progress = [line for line in said.splitlines() if "test_good.py ." in line]
    assert progress and progress[0].startswith("good: ")
    last = said.splitlines()[-1]
    assert last.startswith("====") and " 2 failed, 1 passed in " in last


def test_all_that_pass_is_success(tmp_path, capsys):
    assert run_lanes([lane(tmp_path, name, GOOD) for name in "ab"], cores=2) == 0
    assert " 2 passed in " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("code", [DIES, "import nothing_of_this_name\n", "x = 1\n"])
def test_a_lane_that_dies_or_runs_nothing_is_no_success(code, tmp_path, capsys):
    """By a crash, at its import, or because there is no test in it."""
    assert run_lanes([lane(tmp_path, "good", GOOD), lane(tmp_path, "ill", code)], cores=1) > 0
    said = capsys.readouterr().out
    assert "ill: ended with status" in said and " 1 passed" in said.splitlines()[-1]


def test_a_lane_has_one_thread_and_artifacts_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_ARTIFACTS", "of_the_shell")
    code = """
import os
def test_threads():
    assert os.environ["COURSE_ARTIFACTS"] == {place!r}
    assert os.environ["OMP_THREAD_LIMIT"] == "1"
"""
    for place in (None, str(tmp_path / "mine")):
        name = "usual" if place is None else "own"
        made = lane(tmp_path, name, code.format(place=place or "of_the_shell"))
        made.artifacts = place
        assert run_lanes([made], cores=2) == 0


def test_a_notebooks_cells_run_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "OPTIONS", ("-p", "nbval.plugin", "--nbval-lax"))
    sources = ["seen = []", *(f"assert len(seen) == {n}; seen.append({n})" for n in range(12))]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    path = tmp_path / "counting.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    lane = Lane("notebooks", (str(path), "--rootdir", str(tmp_path)))
    assert run_lanes([lane], cores=2) == 0, capsys.readouterr().out
    assert " 13 passed in " in capsys.readouterr().out.splitlines()[-1]


def test_a_lab_runs_after_the_sessions_and_where_it_lies(tmp_path, monkeypatch, capsys):
    """It finds what they have left, whatever their names."""
    monkeypatch.setattr(suite, "OPTIONS", ("-p", "nbval.plugin", "--nbval-lax"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    names = [notebook_in(tmp_path, source).relative_to(tmp_path) for source in sessions()]
    (tmp_path / "labs").mkdir()
    for name in (*names, Path("labs/a_lab.ipynb")):
        text = "from pathlib import Path\nhere = Path.cwd()"
        if name.parent.name:
            text += f"\nassert len(list(here.parent.glob('*.left'))) == {len(names)}"
        else:
            text += f"\n(here / '{name.stem}.left').touch()"
        cells = [nbformat.v4.new_code_cell(text)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / name)
    lane = Lane("notebooks", (str(tmp_path), "--rootdir", str(tmp_path)))
    assert run_lanes([lane], cores=2) == 0, capsys.readouterr().out


def test_the_closing_line_is_pytests_own(tmp_path):
    """As its plural, its order and its minutes."""
    made = [Lane("a", ()), Lane("b", ()), Lane("not begun", ())]
    made[0].lines = ["== 1 failed, 2079 passed, 3 skipped, 1 warning in 90.22s (0:01:30) =="]
    made[1].lines = ["====== 5 passed, 1 error in 1.00s ======"]
    made[0].process = made[1].process = object()
    wanted = " 1 failed, 2084 passed, 3 skipped, 1 warning, 1 error in 61.50s (0:01:01) "
    assert closing_line(made, 61.5).strip("=") == wanted


INTERRUPTED = """
import signal, sys
from coursekit.week import suite
from coursekit.week.suite import Lane, run_lanes
suite.OPTIONS = ()
signal.signal(signal.SIGINT, signal.default_int_handler)
lanes = [Lane(path, (path, "--rootdir", path)) for path in sys.argv[1:]]
if __name__ == "__main__":
    sys.exit(run_lanes(lanes, cores=2))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["a terminal's Ctrl-C", "the one process"])
def test_ctrl_c_stops_all_lanes(how, tmp_path):
    """Two run and one waits: none goes on, and none begins."""
    names = ("one", "two", "three")
    for name in names:
        lane(tmp_path, name, WAITS.format(begun=str(tmp_path / f"{name}.begun")))
    (tmp_path / "lanes.py").write_text(INTERRUPTED, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "lanes.py", *(str(tmp_path / name) for name in names)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 120
        while not all((tmp_path / f"{name}.begun").exists() for name in names[:2]):
            assert process.poll() is None and time.monotonic() < end, "the lanes do not begin"
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        signalled = os.killpg if how == "a terminal's Ctrl-C" else os.kill
        signalled(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert said.splitlines()[-1].startswith("====")
    assert not (tmp_path / "three.begun").exists()
    assert len(family) >= 2 and not any(child.is_running() for child in family)


@pytest.mark.parametrize(("given", "cores"), [(["-k", "one"], 2), ([], 1)])
def test_with_arguments_or_on_one_core_one_pytest_runs_all(given, cores, monkeypatch):
    asked = []
    monkeypatch.setattr(suite, "_cores", lambda: cores)
    monkeypatch.setattr(suite.pytest, "main", lambda arguments: asked.append(arguments) or 3)
    monkeypatch.setattr(sys, "argv", ["suite", *given])
    monkeypatch.chdir(Path.cwd())
    assert suite.main() == 3
    assert asked == [["tests", "notebooks", *given]]
