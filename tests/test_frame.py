"""The frame: what is installed where, and what an import costs."""

import ast
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import venv
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from conftest import ROOT

NAMES = [
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "matplotlib",
    "ipywidgets",
    "nbval",
    "jupytext",
]


def requirements():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_requirements_are_exact_and_complete():
    pins = dict(line.split("==") for line in requirements())
    assert set(NAMES) <= set(pins)
    assert all(re.fullmatch(r"[0-9][0-9.]*", version) for version in pins.values())


def test_conda_environment_installs_the_same():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^\s+- (.+)$", text, flags=re.MULTILINE)
    assert [item for item in listed if item != "conda-forge"] == [
        "python=3.12",
        "pip",
        "pip:",
        "-r requirements.txt",
        "-e .",
    ]


def test_package_depends_on_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]
    assert dynamic["dependencies"] == {"file": ["requirements.txt"]}
    assert project["project"]["requires-python"] == ">=3.11,<3.14"


def test_import_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'trl', 'peft', 'datasets', 'pandas', 'numpy', 'matplotlib'}"
    code = "import sys, coursekit, coursekit.tasks.triage, coursekit.common.profile\n"
    code += f"print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff(command):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *command.split(), "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_commands_say_what_they_do():
    result = subprocess.run(
        [sys.executable, "-m", "coursekit", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("course", "test", "lab", "bench", "seeds", "model", "notebooks", "drift"):
        assert command in result.stdout
        assert re.search(rf"^[a-z ]*\b{command}\b[a-z ]*:$", makefile, flags=re.MULTILINE)


def test_wrong_python_is_told():
    code = (
        "import sys; sys.version_info = (3, 9, 0); import coursekit.__main__ as m; m.environment()"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "3.11 to 3.13" in result.stderr and "Traceback" not in result.stderr


def test_unwritable_environment_is_told(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "coursekit", "course"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"COURSE_VENV": str(tmp_path / "file" / "venv"), "PATH": ""},
    )
    assert result.returncode == 1
    assert "COURSE_VENV" in result.stderr and "Traceback" not in result.stderr


def test_an_environment_in_use_is_updated(tmp_path, monkeypatch):
    """Its program file cannot be written while it runs, and need not be."""
    from coursekit import __main__ as command

    def busy(folder, with_pip):
        raise OSError(errno.ETXTBSY, "Text file busy")

    installed = []
    monkeypatch.setattr(venv, "create", busy)
    monkeypatch.setattr(subprocess, "run", lambda line, check: installed.append(line[-1]))
    command._install(tmp_path / "requirements.txt", tmp_path, tmp_path / "python")
    assert installed == [str(tmp_path / "requirements.txt")]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"COURSE_ARTIFACTS": "{file}/artifacts"}, "Set COURSE_ARTIFACTS"),
        ({"COURSE_PROFILE": "huge"}, "unknown profile 'huge': set COURSE_PROFILE to one of tiny"),
    ],
)
def test_a_course_that_cannot_start_says_why(variables, message, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    variables = {name: value.format(file=tmp_path / "file") for name, value in variables.items()}
    result = subprocess.run(
        [sys.executable, "-m", "coursekit.week.run_course"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr


def test_the_courses_table_says_what_it_was_made_from_that_is_no_more(tmp_path):
    from coursekit.common.profile import load_profile
    from coursekit.week import run_course
    from coursekit.workspace import Workspace

    profile = replace(load_profile("tiny"), artifacts=tmp_path, evaluation_prompts=4)
    here = Workspace(profile)
    here.folder.mkdir(parents=True)
    assert run_course._table(here) == ""
    (here.folder / "three_way.txt").write_text("wins: all\n", encoding="utf-8")
    made_from = here.evaluated({"base": profile.base_model, "SFT": profile.base_model}, [])
    record = {"made_from": made_from, "n": 0, "markdown": "", "pairwise": "", "sections": {}}
    (here.folder / "three_way.json").write_text(json.dumps(record), encoding="utf-8")
    table, said = run_course._table(here).split("\n")
    assert table == "wins: all"
    assert said.startswith("unfinished: the evaluation was made from something else (models.SFT ")
    assert "n was 0, now 4" in said and said.endswith(": run session C again")


def test_a_second_run_reuses_the_environment(tmp_path):
    """Nothing is installed where the stamp says that these requirements are: works offline."""
    venv.create(tmp_path)
    python = next(path for path in tmp_path.glob("*/python*") if path.stem == "python")
    stamp = tmp_path / "course-requirements.sha256"
    wanted = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()

    def environment(arguments=""):
        code = f"import coursekit.__main__ as m; print(m.environment({arguments}))"
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "COURSE_VENV": str(tmp_path), "PIP_NO_INDEX": "1"},
        )

    stamp.write_text(wanted, encoding="utf-8")
    reused = environment()
    assert reused.returncode == 0, reused.stderr
    assert reused.stdout.split() == [str(python)]
    for_tests = environment("tests=True")  # wants more than is there
    assert "Preparing the environment" in for_tests.stdout and for_tests.returncode == 1

    stamp.write_text("older requirements", encoding="utf-8")
    offline = environment()
    assert "Preparing the environment" in offline.stdout
    assert offline.returncode == 1 and "With no network it cannot" in offline.stderr
    assert stamp.read_text(encoding="utf-8") == "older requirements"  # so the next run tries again

    python.unlink()
    python.write_text("not a program", encoding="utf-8")
    damaged = environment()
    assert damaged.returncode == 1 and "Traceback" not in damaged.stderr
    # `venv` puts the program back where the base interpreter has the same name; else we are told.
    mended = python.read_bytes() != b"not a program"
    assert ("With no network it cannot" if mended else "Delete") in damaged.stderr


# What ends with what.

SWEEP = """
import sys, time
from pathlib import Path
from coursekit.common import parallel
parallel.PRELOAD = []  # nothing that takes long to import
if __name__ == "__main__":
    from begun import begun
    for _ in parallel.run_all(begun, [Path("one"), Path("two")], 2, lambda *a: None):
        pass
"""
JOB = "import time\ndef begun(path):\n    path.touch()\n    time.sleep(600)\n"


def wait_until(holds, process, seconds=120):
    """Until `holds()`; fails, with what the process said, if that ends or takes too long."""
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture()
def started():
    """Start a process in a session of its own, of which nothing is left after the test."""
    processes = []

    def start(command, **options):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_killed_sweep_leaves_nothing_running(started, tmp_path):
    """Fork server, workers and whatever else there is: all hold the pipe until they end."""
    (tmp_path / "begun.py").write_text(JOB, encoding="utf-8")
    (tmp_path / "sweep.py").write_text(SWEEP, encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    sweep = started(
        [sys.executable, "sweep.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    wait_until(lambda: all((tmp_path / name).exists() for name in ("one", "two")), sweep)
    sweep.kill()
    sweep.communicate(timeout=60)


@pytest.fixture()
def installed(tmp_path):
    """A folder that passes for the course's environment: its Python is the one that tests."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    for name in ("requirements", "requirements-test"):
        wanted = hashlib.sha256((ROOT / f"{name}.txt").read_bytes()).hexdigest()
        (folder / f"course-{name}.sha256").write_text(wanted, encoding="utf-8")
    return folder


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_course_told_to_stop_stops_whole(started, installed, tmp_path):
    """SIGTERM, from `kill`, systemd, docker or `timeout`, to the one process it goes to."""
    course = started(
        [sys.executable, "-m", "coursekit", "course", "--only", "A"],
        cwd=ROOT,
        env={**os.environ, "COURSE_VENV": str(installed), "COURSE_ARTIFACTS": str(tmp_path)},
    )

    def kernel_runs():
        family = psutil.Process(course.pid).children(recursive=True)
        return any("ipykernel_launcher" in " ".join(process.cmdline()) for process in family)

    wait_until(kernel_runs, course)
    course.terminate()
    output, _ = course.communicate(timeout=60)  # runner and kernel hold the pipe until they end
    assert course.returncode == 130 and "What was finished is kept" in output
    assert (tmp_path / "triage" / "tiny" / "executed" / "A_paper_math.ipynb").is_file()


# Which code, which kernel, which folder.


def output_of(arguments, **options):
    result = subprocess.run(arguments, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture()
def course(tmp_path):
    """A small clone of the course, its environment, what its commands do first, what is found."""
    foreign = ("PYTHONPATH", "COURSE_ARTIFACTS")
    clean = {name: value for name, value in os.environ.items() if name not in foreign}
    wanted = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()

    def clone(name, folder):
        (tmp_path / name / "coursekit" / "common").mkdir(parents=True)
        shutil.copy(ROOT / "requirements.txt", tmp_path / name)
        common = ("common/__init__.py", "common/profile.py")
        for file in ("__init__.py", "__main__.py", *common):
            shutil.copy(ROOT / "coursekit" / file, tmp_path / name / "coursekit" / file)
        if not (tmp_path / folder).is_dir():
            venv.create(tmp_path / folder)
            stamp = tmp_path / folder / "course-requirements.sha256"
            stamp.write_text(wanted, encoding="utf-8")

    def begin(name, folder):
        code = "import coursekit.__main__ as m; m.environment()"
        variables = {**clean, "COURSE_VENV": str(tmp_path / folder)}
        output_of([sys.executable, "-c", code], cwd=tmp_path / name, env=variables)

    def found(folder):
        """The clone that the environment's Python imports, as a kernel of VS Code would."""
        (python,) = (
            path for path in (tmp_path / folder).glob("*/python*") if path.stem == "python"
        )
        code = "import coursekit.common.profile as p; print(p.artifacts_folder().parent.name)"
        return output_of([python, "-c", code], cwd=tmp_path, env=clean)

    return SimpleNamespace(clone=clone, begin=begin, found=found)


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_clone_that_was_copied_or_moved_runs_its_own_code(how, course, tmp_path):
    course.clone("first", "first/.venv")
    course.begin("first", "first/.venv")
    assert course.found("first/.venv") == "first"
    how(tmp_path / "first", tmp_path / "second")
    assert course.found("second/.venv") == "second"


def test_an_environment_apart_runs_the_clone_that_was_started_last(course):
    for name in ("first", "second"):
        course.clone(name, "apart")
        course.begin(name, "apart")
        assert course.found("apart") == name


@pytest.mark.skipif(
    int(version("jupyter_client").split(".")[0]) < 8,
    reason="the environment of the commands has a newer one",
)
def test_commands_run_this_clone_and_the_environments_own_kernel(tmp_path, monkeypatch):
    """Whatever else is on the search paths: another clone, a kernel `python3` of another Python."""
    from coursekit.__main__ import _variables

    kernel = tmp_path / "share" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    foreign = {"argv": ["/another/python", "{connection_file}"], "display_name": "x"}
    (kernel / "kernel.json").write_text(json.dumps(foreign), encoding="utf-8")
    (tmp_path / "coursekit").mkdir()
    (tmp_path / "coursekit" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "import coursekit, jupyter_client as j; print(coursekit.__file__)\n"
    code += "print(j.KernelManager(kernel_name='python3').format_kernel_cmd()[0])"
    variables = {**os.environ, **_variables(Path(sys.executable))}
    package, python = output_of(
        [sys.executable, "-c", code], cwd=tmp_path / "share", env=variables
    ).splitlines()
    assert Path(package).parent == ROOT / "coursekit" and python == sys.executable


@pytest.mark.parametrize("variable", ["COURSE_ARTIFACTS", "COURSE_VENV"])
@pytest.mark.parametrize(
    ("value", "meant"),
    [("here/runs", "{root}/here/runs"), ("~/runs", "{home}/runs"), ("{home}/x", "{home}/x")],
)
def test_a_folder_means_the_same_from_everywhere(variable, value, meant, tmp_path, monkeypatch):
    from coursekit.common.profile import folder_of, load_profile

    places = {"root": ROOT, "home": tmp_path}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(variable, value.format(**places))
    for folder in (ROOT, ROOT / "notebooks", tmp_path):
        monkeypatch.chdir(folder)
        assert folder_of(variable, "artifacts") == Path(meant.format(**places))
    if variable == "COURSE_ARTIFACTS":
        assert load_profile().artifacts == Path(meant.format(**places))


def without_encoding(path):
    """Lines that read or write text in whatever encoding the machine happens to prefer."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            of_path = isinstance(node.func, ast.Attribute)
            name = node.func.attr if of_path else getattr(node.func, "id", None)
            mode = node.args[0 if of_path else 1 :][:1] if name == "open" else []
            binary = any("b" in str(getattr(value, "value", "")) for value in mode)
            text = name in (("read_text", "write_text", "open") if of_path else ("open",))
            text = text and not binary
            if text and "encoding" not in {keyword.arg for keyword in node.keywords}:
                yield node


def test_text_has_an_encoding():
    sources = [path for folder in ("coursekit", "tests") for path in (ROOT / folder).rglob("*.py")]
    found = [f"{path}:{node.lineno}" for path in sources for node in without_encoding(path)]
    assert not found
