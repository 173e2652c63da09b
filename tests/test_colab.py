"""Colab: its first cell, what that installs and leaves alone, and the sessions on its versions."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jupytext
import nbformat
import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from coursekit.common import colab, colab_drift
from coursekit.common.profile import artifacts_folder
from coursekit.week import address
from coursekit.week.sources import sources

SOURCES = sources()
PINS = colab.read_pins(ROOT / "requirements-colab.txt")
COURSE = colab.read_pins(ROOT / "requirements.txt")
PUBLISHED = ROOT.parent / "shared" / "colab" / "pip-freeze.gpu.txt"


# The first cell.


def first_cell(source):
    return next(c.source for c in jupytext.read(source).cells if c.cell_type == "code")


def test_the_first_cell_is_the_same_in_all_notebooks():
    assert len({first_cell(source) for source in SOURCES}) == 1
    assert first_cell(SOURCES[0]).startswith("# @title On Colab")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_link_opens_this_notebook_of_the_published_course(source):
    """And is a link alone: a picture would be fetched by whoever opens the notebook."""
    path = source.with_suffix(".ipynb").relative_to(ROOT).as_posix()
    link = f"https://colab.research.google.com/github/{address.address()}/blob/main/{path}"
    text = jupytext.read(source).cells[0].source
    assert f"[Open in Colab]({link})" in text and "![" not in text
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"({link})" in readme
    assert f'"https://github.com/{address.address()}"' in first_cell(source)


def test_the_first_cell_does_nothing_elsewhere(capsys, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    before, variables, space = list(sys.path), dict(os.environ), {}
    exec(first_cell(SOURCES[0]), space)
    assert capsys.readouterr() == ("", "") and sys.path == before and os.environ == variables
    assert space.keys() - {"__builtins__"} == {"sys", "keep_results_on_drive"}


@pytest.fixture()
def fitting():
    """Colab as it would be with all that the pins want: this environment's versions."""
    there = {"torchao": "0.10.0", "transformers": "5.15.0", **COURSE}
    wanted = [line for name in PINS for line in metadata.requires(name) or []]
    for requirement in map(Requirement, wanted):
        if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
            name = colab.normalised(requirement.name)
            there.setdefault(name, metadata.version(name))
    mine = {"torch": "2.11.0+cu128", "numpy": "2.1.3", "transformers": "5.15.0"}
    return {name: there[name] for name in there if name not in PINS} | mine


@pytest.fixture()
def on_colab(fitting, tmp_path, monkeypatch):
    """`google.colab` is there, the course is to be put below `tmp_path`; what git and pip do."""
    google, package = ModuleType("google"), ModuleType("google.colab")
    google.colab = package
    mounted = []
    package.drive = SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    # Other tests of this process have loaded what on Colab nobody has loaded yet.
    loaded = {name: module for name, module in sys.modules.items() if name not in PINS}
    monkeypatch.setattr(sys, "modules", loaded)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.delenv("COURSE_ARTIFACTS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    there, pip = {**fitting, **PINS}, []
    del there["torchao"]
    monkeypatch.setattr(colab, "_installed", lambda: dict(there))

    def run(line, **_):
        """What pip does to `there`."""
        assert line[:3] == [sys.executable, "-m", "pip"]
        pip.append(line[3:])
        there.update(
            argument.split("==") for argument in line if re.fullmatch(r"\S+==\S+", argument)
        )
        if "uninstall" in line:
            del there[line[-1]]
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(colab.subprocess, "run", run)
    return SimpleNamespace(there=there, pip=pip, mounted=mounted, course=tmp_path / "course")


def test_only_what_must_rise_is_installed_and_only_once(on_colab, capsys):
    on_colab.there |= {"transformers": "0.1", "torchao": "0.10.0"}
    del on_colab.there["trl"]
    colab.set_up()
    removed, installed = on_colab.pip
    assert removed[0] == "uninstall" and removed[-1] == "torchao"
    asked = {argument for argument in installed if not argument.startswith("--")}
    assert asked == {"install", f"transformers=={PINS['transformers']}", f"trl=={PINS['trl']}"}
    assert "--no-deps" in installed  # so pip replaces nothing else, whatever these depend on
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in said] == ["Removing", "Installing", "The"]
    colab.set_up()
    assert len(on_colab.pip) == 2 and capsys.readouterr().out == "The course is ready.\n"


def test_what_colab_no_longer_has_is_told(on_colab, capsys):
    del on_colab.there["trl"], on_colab.there["xxhash"]
    on_colab.there["fsspec"] = "1.0"
    colab.set_up()
    said = capsys.readouterr().out
    assert "Colab has changed: datasets wants xxhash, which is not there. If a cell fails" in said
    assert re.search(r"datasets wants fsspec.*, and 1\.0 is there", said)


def test_what_is_newer_stays(on_colab):
    on_colab.there |= {"transformers": "99.0", "torchao": "99.0"}
    colab.set_up()
    assert not on_colab.pip


def test_a_restart_is_asked_for_where_the_old_version_is_loaded(on_colab, monkeypatch):
    """At the first run, and at the next ones until it is done; told without a traceback."""
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(__version__="18.1.0"))
    on_colab.there["pyarrow"] = "18.1.0"
    for _ in range(2):
        with pytest.raises(colab.RestartNeeded, match=r"Restart session.*pyarrow 18\.1\.0 had"):
            colab.set_up()
    assert len(on_colab.pip) == 1
    assert colab.RestartNeeded("Restart.")._render_traceback_() == ["Restart."]
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(__version__=PINS["pyarrow"]))
    colab.set_up()


def test_a_torchao_that_was_loaded_and_removed_wants_a_restart(on_colab, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", SimpleNamespace(__version__="0.10.0"))
    on_colab.there["torchao"] = "0.10.0"
    with pytest.raises(colab.RestartNeeded, match=r"torchao 0\.10\.0"):
        colab.set_up()


def test_what_pip_could_not_do_is_told(on_colab, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="No matching distribution found for trl")
    monkeypatch.setattr(colab.subprocess, "run", lambda *_, **__: failed)
    del on_colab.there["trl"]
    with pytest.raises(RuntimeError, match=r"Run this cell again.*\n.*No matching distribution"):
        colab.set_up()


def test_results_go_to_drive_only_if_wanted(on_colab, monkeypatch):
    colab.set_up()
    assert not on_colab.mounted and artifacts_folder() == ROOT / "artifacts"
    colab.set_up(drive=True)
    assert on_colab.mounted == ["/content/drive"]
    assert artifacts_folder() == Path("/content/drive/MyDrive/dpo-course/artifacts")
    monkeypatch.setenv("COURSE_ARTIFACTS", "mine")
    colab.set_up(drive=True)
    assert artifacts_folder() == ROOT / "mine"


def test_new_processes_find_the_course(on_colab):
    colab.set_up()
    colab.set_up()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/elsewhere"]


def test_the_first_cell_gets_the_course_and_calls_its_helper(on_colab, monkeypatch):
    """From its address, unless it is there; a clone that fails says why."""
    cell = first_cell(SOURCES[0]).replace("/content/dpo-course", str(on_colab.course))
    cell = cell.replace("keep_results_on_drive = False", "keep_results_on_drive = True")
    calls, cloned = [], []
    monkeypatch.setattr(colab, "set_up", lambda drive: calls.append(drive))

    def git(line, **_):
        assert line[:2] == ["git", "clone"] and address.address() in line[-2]
        cloned.append(line[-1])
        return SimpleNamespace(returncode=128, stderr="fatal: not found\n")

    monkeypatch.setattr(subprocess, "run", git)
    with pytest.raises(RuntimeError, match=r"fatal: not found\nCorrect the address"):
        exec(cell, {})
    assert cloned == [str(on_colab.course)] and not calls
    on_colab.course.mkdir()
    exec(cell, {})
    assert len(cloned) == 1 and calls == [True] and sys.path[0] == str(on_colab.course)


def test_the_helper_needs_nothing_that_is_to_be_installed():
    """It is imported before that is there: the standard library, and `packaging` when called."""
    code = (
        "import sys; before = set(sys.modules); import coursekit.common.colab\n"
        "print({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - sys.stdlib_module_names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "{'coursekit'}"


def test_what_lies_twice_on_the_path_counts_once(tmp_path, monkeypatch):
    """As what is imported: the first; what has no version that can be compared is left out."""
    for place, name, number in (
        ("first", "doubled_package", "2.0"),
        ("second", "doubled_package", "1.0"),
        ("second", "of_the_system", "1.0ubuntu0~git"),
    ):
        folder = tmp_path / place / f"{name}-{number}.dist-info"
        folder.mkdir(parents=True)
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n"
        (folder / "METADATA").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    assert colab._installed() == {"doubled-package": "2.0"}


# What it installs, and Colab's list.


def test_the_pins_are_those_of_the_course():
    assert {name: PINS[name] for name in PINS.keys() & COURSE.keys()} == {
        name: COURSE[name] for name in PINS.keys() & COURSE.keys()
    }
    assert all(re.fullmatch(r"[0-9][0-9.]*", pin) for pin in PINS.values())
    assert not PINS.keys() & colab_drift.RUNTIME


def test_peft_refuses_a_torchao_older_than_we_think():
    """And none newer: read in the function that refuses."""
    import inspect

    from peft.import_utils import is_torchao_available

    found = re.search(
        r'TORCHAO_MINIMUM_VERSION = \S*\("(.+?)"\)', inspect.getsource(is_torchao_available)
    )
    assert found and found[1] == colab.TORCHAO_FROM


def clashes(there, pins=PINS):
    return list(colab_drift.clashes(pins, there, COURSE))


def test_a_colab_that_fits_has_no_clash(fitting):
    assert not clashes(fitting)
    notes = list(colab_drift.notes(PINS, fitting | {"peft": PINS["peft"]}))
    assert f"rises: transformers 5.15.0 to {PINS['transformers']}" in notes
    assert f"new: trl {PINS['trl']}" in notes
    assert f"there already: peft {PINS['peft']}, so its pin may go" in notes
    assert "removed: torchao 0.10.0, since peft wants 0.16.0 or none" in notes
    assert not [
        note for note in colab_drift.notes(PINS, {"torchao": "0.16.0"}) if "torchao" in note
    ]


@pytest.mark.parametrize(
    ("there", "pins", "message"),
    [
        ({"numpy": "2.1.3"}, {"numpy": "2.4.6"}, "numpy 2.1.3 belongs to Colab's runtime"),
        ({"peft": "0.99.0"}, {}, f"peft 0.99.0 is newer than the pin {PINS['peft']}"),
        ({"torch": "1.0"}, {}, "wants torch>=1.13.0, and 1.0 is there: pin it"),
        ({"xxhash": None}, {}, "wants xxhash, which is not there"),
        ({"filelock": None}, {}, "filelock is not there: pin it in requirements-colab.txt"),
        ({}, {"trl": "0.1"}, f"trl is pinned to 0.1, and in requirements.txt to {COURSE['trl']}"),
        ({}, {"trl": "0.1"}, f"trl 0.1 is {COURSE['trl']} here, so what it wants is unknown"),
    ],
)
def test_a_clash_is_named(fitting, there, pins, message):
    changed = {name: pin for name, pin in {**fitting, **there}.items() if pin}
    found = clashes(changed, {**PINS, **pins})
    assert [clash for clash in found if message in clash], found


def test_the_drift_command_says_what_clashes_and_exits_so(fitting, tmp_path, capsys):
    freeze = tmp_path / "freeze.txt"
    lines = [f"{name.replace('-', '_')}=={number}" for name, number in fitting.items()]
    freeze.write_text("\n".join(["# Colab", "a @ file:///a", *lines]), encoding="utf-8")
    assert colab_drift.main([str(freeze)]) == 0
    assert capsys.readouterr().out.endswith("Nothing clashes.\n")
    freeze.write_text("\n".join([*lines, "peft==99.0"]), encoding="utf-8")
    assert colab_drift.main([str(freeze)]) == 1
    said = capsys.readouterr().out
    assert "CLASH: peft 99.0 is newer" in said and said.endswith("\n1 clashes\n")
    freeze.write_text("nothing\n", encoding="utf-8")
    for path, message in ((freeze, "No line of that file"), (tmp_path / "none", "Cannot read")):
        with pytest.raises(SystemExit, match=message):
            colab_drift.main([str(path)])


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="Colab's list of packages is not here")
def test_nothing_clashes_with_colab_as_it_was_published():
    there = colab.read_pins(PUBLISHED)
    assert not clashes(there)
    assert {name for name, pin in LANE.items() if there[name] != pin} == set()


# Where the course is published.


@pytest.fixture()
def published(tmp_path):
    """A copy of all that says where the course is."""
    for file in address.say_it():
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return tmp_path


def addresses(folder):
    """`OWNER/NAME` of every link to Colab, and of what is cloned or named in the project's urls."""
    says = r'(?:google\.com/github/|"https://github\.com/)([\w-]+/[\w.-]+?)(?:/blob|\\?")'
    for file in address.say_it(folder):
        for found in re.findall(says, file.read_text(encoding="utf-8")):
            yield file.name, found


def test_all_that_says_the_address_says_the_same(published):
    found = list(addresses(published))
    assert {file for file, _ in found} >= {
        "pyproject.toml",
        "README.md",
        *(s.name for s in SOURCES),
    }
    assert {said for _, said in found} == {address.address()}


@pytest.mark.parametrize("said", ["me/my.dpo-course", "https://github.com/me/my.dpo-course.git"])
def test_publishing_changes_every_place_and_nothing_else(said, published):
    before = len(list(addresses(published)))
    changed = address.publish_at(said, published)
    after = list(addresses(published))
    assert {found for _, found in after} == {"me/my.dpo-course"} and len(after) == before
    assert {file for file, _ in after} == {path.name for path in changed}
    for notebook in published.glob("notebooks/**/*.ipynb"):
        nbformat.validate(json.loads(notebook.read_text(encoding="utf-8")))
    assert not address.publish_at(said, published)
    address.publish_at(address.address(), published)
    for path in changed:
        assert path.read_bytes() == (ROOT / path.relative_to(published)).read_bytes()


@pytest.mark.parametrize("said", ["me", "me/", "https://example.org/me/course", "me/a/b", "me/a b"])
def test_what_is_no_repository_is_refused(said, published):
    with pytest.raises(ValueError, match="no repository on GitHub"):
        address.publish_at(said, published)


# The sessions on Colab's versions.

# Those on which its notebooks run, as it has them, on this Python: not torch, which is large.
LANE = {
    "numpy": "2.1.3",
    "pandas": "2.2.3",
    "matplotlib": "3.10.0",
    "ipywidgets": "7.7.1",
    "ipython": "7.34.0",
    "ipykernel": "6.17.1",
    "traitlets": "5.7.1",
    "jupyter-client": "7.4.9",
    "tornado": "6.5.7",
    "psutil": "5.9.5",
    "filelock": "3.32.3",
    "fsspec": "2025.3.0",
    "dill": "0.3.8",
    "multiprocess": "0.70.16",
    # What the old IPython and kernel import, and newer ones do not.
    "backcall": "0.2.0",
    "decorator": "4.4.2",
    "entrypoints": "0.4",
    "ipython-genutils": "0.2.0",
    "pickleshare": "0.7.5",
    "pytz": "2025.2",
}


@pytest.fixture(scope="module")
def lane(tmp_path_factory):
    """Variables for processes that are to find Colab's versions first. About 50 MB."""
    folder = tmp_path_factory.mktemp("colab")
    pins = [f"{name}=={pin}" for name, pin in LANE.items()]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--retries=1", "--timeout=20"]
    line = [*pip, "--no-deps", "--no-compile", "--target", str(folder), *pins]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Colab's versions cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    path = os.pathsep.join([str(folder), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def test_the_lane_has_colabs_versions(lane):
    code = f"from importlib.metadata import version\nprint(*map(version, {list(LANE)}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=lane, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(LANE.values())


def test_session_a_runs_on_colabs_versions(lane, tmp_path):
    """From its source: widgets, tables and figures, on the kernel that Colab has."""
    from nbclient import NotebookClient

    notebook = jupytext.read(ROOT / "notebooks" / "A_paper_math.py")
    notebook.cells.append(nbformat.v4.new_code_cell("import ipywidgets; ipywidgets.__version__"))
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    )
    client.execute(env={**lane, "COURSE_ARTIFACTS": str(tmp_path)})
    assert notebook.cells[-1].outputs[0].data["text/plain"] == f"'{LANE['ipywidgets']}'"


def test_the_widgets_work_on_colabs_versions(lane):
    """Clicks, sliders, labelling: their own tests, on ipywidgets 7."""
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    files = ["tests/test_session_a.py", "tests/test_labelling.py"]
    chosen = "predict or click or slider or widget or label or quiz"
    done = subprocess.run(
        [*line, *files, "-k", chosen], cwd=ROOT, env=lane, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
