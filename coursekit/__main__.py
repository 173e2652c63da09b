"""The course's commands: `python -m coursekit course`, or another of `COMMANDS`.

Needs nothing but Python 3.11 to 3.13: this file uses the standard library alone, makes a virtual
environment beside the course, installs `requirements.txt` into it, and runs the command there. A
second run reuses the environment and needs no network.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from .common.profile import ROOT, folder_of

COMMANDS = {
    "course": "run all sessions and print the three-way table",
    "test": "run the tests and, as tests, the notebooks (further arguments go to pytest)",
    "lab": "open your copy of the notebooks (in work/) in JupyterLab",
    "student": "write such a copy: python -m coursekit student [FOLDER]",
    "grade": "grade what learners have handed in: python -m coursekit grade FOLDER",
    "bench": "measure speed on this machine, side by side",
    "seeds": "run SFT, DPO and the evaluation for five seeds and print a table",
    "record": "run the week on COURSE_MODEL, with controls, and write down what came out",
    "explore": "what is there of a run, as one HTML page to look around in (--out FILE)",
    "model": "build the tiny model anew",
    "notebooks": "execute the notebooks and save their outputs (for instructors)",
    "drift": "execute the notebooks and say what changed since they were shipped",
    "new": "write a task of your own to fill: python -m coursekit new my_task",
    "memory": "what a DPO step needs: predicted, measured (--measure), what fits (--gpu-memory 16)",
    "export": "write what trains a DPO run elsewhere: python -m coursekit export my_folder",
    "check": "say what is wrong with a task of your own: python -m coursekit check my_task",
    "address": "write where the course is published (on GitHub: OWNER/NAME) into all that says it",
    "colab-drift": "compare Colab's pip freeze with our pins: python -m coursekit colab-drift FILE",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m coursekit",
        description="Commands of the course.",
        epilog="\n".join(f"{name:11} {what}" for name, what in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    options, rest = parser.parse_known_args()
    try:
        python = environment(tests=options.command == "test")
        return run(python, options.command, rest)
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError as error:
        return error.returncode


def environment(tests: bool = False) -> Path:
    """The Python of the course's environment, which is made or updated first if need be.

    tests: with what only the tests need (`requirements-test.txt`).
    """
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            f"This is Python {sys.version.split()[0]}; the course runs on 3.11 to 3.13. Name one: "
            "`make course PYTHON=python3.12`, or `python3.12 -m coursekit course`."
        )
    folder = folder_of("COURSE_VENV", ".venv")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for name in ("requirements", *(["requirements-test"] if tests else [])):
        wanted = hashlib.sha256((ROOT / f"{name}.txt").read_bytes()).hexdigest()
        stamp = folder / f"course-{name}.sha256"
        if not (
            python.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted
        ):
            _install(ROOT / f"{name}.txt", folder, python)
            stamp.write_text(wanted, encoding="utf-8")
    with contextlib.suppress(OSError):  # an environment of somebody else: `run` names the folder
        _point_here(folder)
    return python


def _point_here(folder: Path) -> None:
    """Let the environment's Python find this package: by a path file, without a build step.

    Written anew if the course was moved or copied since. Where the environment lies in the course's
    folder the path is relative to the file, and goes along with both.
    """
    for packages in (*folder.glob("lib/python3.*/site-packages"), folder / "Lib/site-packages"):
        if packages.is_dir():
            inside = packages.resolve().is_relative_to(ROOT)
            line = f"{os.path.relpath(ROOT, packages.resolve()) if inside else ROOT}\n"
            file = packages / "coursekit.pth"  # `site` reads it in the locale's encoding
            if not file.is_file() or file.read_text(encoding="locale") != line:
                file.write_text(line, encoding="locale")


def _install(requirements: Path, folder: Path, python: Path) -> None:
    """Make the environment in `folder` if it is not there, and install what the file pins."""
    print(f"Preparing the environment in {folder} (once; needs the network)", flush=True)
    try:
        venv.create(folder, with_pip=True)
    except OSError as error:
        # A program file that is busy is there, and runs: another command of the course uses it.
        if error.errno != errno.ETXTBSY:
            sys.exit(
                f"Cannot write the environment: {error}. Set COURSE_VENV to a folder you may write."
            )
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, "-r", str(requirements)], check=True)
    except subprocess.CalledProcessError:
        sys.exit(
            "The installation did not finish. With no network it cannot; otherwise the last lines "
            "above say why. Run the same command again: what is installed is kept."
        )
    except OSError as error:
        sys.exit(f"The environment is damaged: {error}. Delete {folder} and run this again.")


def run(python: Path, command: str, rest: list[str]) -> int:
    """Run `command` with the environment's Python; returns its exit code."""
    arguments = {
        "test": ["-m", "coursekit.week.suite", *rest],
        "lab": ["-m", "coursekit.week.desk", "--lab", *rest],
        "student": ["-m", "coursekit.week.desk", *rest],
        "grade": ["-m", "coursekit.week.grading", *rest],
        "model": ["-m", "coursekit.tasks.triage.base_model", *rest],
        "notebooks": ["-m", "coursekit.week.regenerate", *rest],
        "drift": ["-m", "coursekit.week.drift", *rest],
        "course": ["-m", "coursekit.week.run_course", *rest],
        "bench": ["-m", "coursekit.week.bench", *rest],
        "seeds": ["-m", "coursekit.week.seeds", *rest],
        "record": ["-m", "coursekit.week.record", *rest],
        "explore": ["-m", "coursekit.week.explore", *rest],
        "new": ["-m", "coursekit.tasks.new", *rest],
        "export": ["-m", "coursekit.week.export", *rest],
        "check": ["-m", "coursekit.tasks.check", *rest],
        "memory": ["-m", "coursekit.week.memory", *rest],
        "address": ["-m", "coursekit.week.address", *rest],
        "colab-drift": ["-m", "coursekit.common.colab_drift", *rest],
    }[command]
    variables = {**os.environ, **_variables(python)}
    if os.name == "posix":
        # This process becomes the command: who ends it, by whatever signal, ends the command.
        os.chdir(ROOT)
        os.execve(python, [str(python), *arguments], variables)
    process = subprocess.Popen([str(python), *arguments], cwd=ROOT, env=variables)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # the command has received it too, and says what becomes of it


def _variables(python: Path) -> dict[str, str]:
    """Search paths on which this course and the environment of `python` come first.

    Its scripts (jupyter, jupytext), this package and no other clone of it, and the kernel `python3`
    that is this Python, whatever kernel of that name the user or the machine has.
    """
    first = {
        "PATH": python.parent,
        "PYTHONPATH": ROOT,
        "JUPYTER_PATH": python.parent.parent / "share" / "jupyter",
    }
    return {
        name: os.pathsep.join(filter(None, [str(path), os.environ.get(name)]))
        for name, path in first.items()
    }


if __name__ == "__main__":
    sys.exit(main())
