"""Run the sessions from first to last: `python -m coursekit course`. A lab runs by `--only` alone.

Leaves, in the artifacts folder: the executed notebooks, an HTML copy of each to read, the models
and triples, and the three-way table, which is also printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from ..workspace import Workspace
from .reading import as_page
from .saved import tidy
from .sources import NOTEBOOKS, named, notebook_in, sessions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="run the notebooks whose names begin so")
    options = parser.parse_args()
    os.environ["COURSE_DIARY"] = "off"  # no learner works here: nothing of theirs is shown or kept
    try:
        workspace = Workspace()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    folder = workspace.folder / "executed"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        sys.exit(f"Cannot write the results: {error}. Set COURSE_ARTIFACTS to a folder of yours.")
    shutil.copy(NOTEBOOKS / "GLOSSARY.md", folder)  # the notebooks link to it
    for source in named(options.only) if options.only else sessions():
        if not run_notebook(source, folder):
            return 1
    print(f"Notebooks to read: {folder}")
    if table := _table(workspace):
        print(f"\n{table}")
    return 0


def _table(workspace: Workspace) -> str:
    """The three-way table, if there is one, with what it was made from that is otherwise now."""
    table = workspace.folder / "three_way.txt"
    if not table.is_file():
        return ""
    text = table.read_text(encoding="utf-8").rstrip()
    try:
        why = workspace.evaluation()[1]
    except (ValueError, OSError) as error:
        why = str(error)
    return f"{text}\nunfinished: {why}: run session C again" if why else text


def run_notebook(source: Path, folder: Path) -> bool:
    """Execute the percent-format `source`; write notebook and HTML page into `folder`.

    What was executed is written even if a cell fails or the run is stopped. Returns whether it ran
    through.
    """
    notebook = jupytext.read(source)
    target = notebook_in(folder, source)
    target.parent.mkdir(exist_ok=True)
    try:
        failed = execute(notebook, source.stem, source.parent)
    finally:
        tidy(notebook)
        nbformat.write(notebook, target)
        target.with_suffix(".html").write_text(as_page(notebook), encoding="utf-8")
    if failed:
        print(f"\n{failed}\nThe notebook as far as it ran: {target}", file=sys.stderr)
    return failed is None


def execute(
    notebook: nbformat.NotebookNode,
    name: str,
    folder: Path,
    env: dict[str, str] | None = None,
    keep_going: bool = False,
) -> Exception | str | None:
    """Execute `notebook`, in place, in a fresh kernel; say how far it is and how long it took.

    Args:
        name: what the line of progress calls it.
        folder: where the kernel runs.
        env: the kernel's environment; without, this process's.
        keep_going: whether the cells after one that fails are executed too.

    Returns what failed. Raises KeyboardInterrupt if the kernel was stopped.
    """
    # To be told to stop (`kill`, systemd, docker) is Ctrl-C. The client sets both anew in the end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0
    start = time.monotonic()

    def show(cell, cell_index, **_) -> None:
        nonlocal done
        done += cell.cell_type == "code"
        if sys.stdout.isatty():
            seconds = time.monotonic() - start
            print(f"\r{name}: cell {done} of {cells}, {seconds:.0f} s", end="", flush=True)

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=show,
        allow_errors=keep_going,
        extra_arguments=["--log-level=CRITICAL"],  # no warning that a local kernel is local
    )
    failed = _failure(lambda: client.execute(env=dict(os.environ) if env is None else env))
    result = "failed" if failed else f"{done} cells"
    print(f"\r{name}: {result} in {time.monotonic() - start:.0f} s", flush=True)
    return failed


def _failure(execute: Callable[[], object]) -> Exception | str | None:
    """What goes wrong in `execute`; KeyboardInterrupt if the kernel is stopped."""
    try:
        execute()
    except CellExecutionError as error:
        return error
    except (DeadKernelError, AssertionError, asyncio.CancelledError) as error:
        # Ctrl-C: nbclient ends the kernel, and then stumbles over its absence.
        raise KeyboardInterrupt from error
    except RuntimeError as error:  # before the first cell
        return f"The kernel does not start: {error}. Delete .venv (or COURSE_VENV) and run again."
    return None


def or_stopped(main: Callable[[], int]) -> int:
    """Run `main`; if its kernel is stopped, say so and give 130, as shells do."""
    try:
        return main()
    except KeyboardInterrupt:
        print(
            "\nThe notebook's kernel has stopped: by Ctrl-C, or because memory ran out. What was "
            "finished is kept. Run the same command again.",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(or_stopped(main))
