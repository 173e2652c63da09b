"""Run the sessions from first to last: `python -m coursekit course`.

Leaves, in the artifacts folder: the executed notebooks, an HTML copy of each to read, the models
and triples, and the three-way table, which is also printed.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jupytext
import latex2mathml.converter
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter

from ..common.profile import ROOT
from ..workspace import Workspace

NOTEBOOKS = ROOT / "notebooks"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="write the outputs into the notebooks themselves (for instructors)",
    )
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
    for source in sorted(NOTEBOOKS.glob(f"{options.only}*.py")):
        target = (NOTEBOOKS if options.in_place else folder) / f"{source.stem}.ipynb"
        if not run_notebook(source, target, folder / f"{source.stem}.html"):
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


def run_notebook(source: Path, target: Path, page: Path) -> bool:
    """Execute the percent-format `source` in a fresh kernel; write `target` and the HTML `page`.

    What was executed is written even if a cell fails or the run is stopped. Returns whether it ran
    through.
    """
    # To be told to stop (`kill`, systemd, docker) is Ctrl-C. The client sets both anew in the end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    notebook = jupytext.read(source)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    done = 0
    start = time.monotonic()

    def show(cell, cell_index, **_) -> None:
        nonlocal done
        done += cell.cell_type == "code"
        if sys.stdout.isatty():
            seconds = time.monotonic() - start
            print(f"\r{source.stem}: cell {done} of {cells}, {seconds:.0f} s", end="", flush=True)

    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        on_cell_start=show,
        extra_arguments=["--log-level=CRITICAL"],  # no warning that a local kernel is local
    )
    failed = None
    try:
        client.execute()
    except CellExecutionError as error:
        failed = error
    except (DeadKernelError, AssertionError, asyncio.CancelledError) as error:
        # Ctrl-C: nbclient ends the kernel, and then stumbles over its absence.
        raise KeyboardInterrupt from error
    except RuntimeError as error:  # before the first cell
        failed = f"The kernel does not start: {error}. Delete .venv (or COURSE_VENV) and run again."
    finally:
        _tidy(notebook)
        nbformat.write(notebook, target)
        html, _ = HTMLExporter().from_notebook_node(with_mathml(notebook))
        page.write_text(html, encoding="utf-8")
    seconds = time.monotonic() - start
    result = "failed" if failed else f"{done} cells"
    print(f"\r{source.stem}: {result} in {seconds:.0f} s", flush=True)
    if failed:
        print(f"\n{failed}\nThe notebook as far as it ran: {target}", file=sys.stderr)
    return failed is None


def with_mathml(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy whose formulas are MathML, which browsers draw without a script from the network."""

    def formula(display: str) -> Callable[[re.Match[str]], str]:
        # Signs that markdown would take for emphasis become entities.
        return lambda match: (
            latex2mathml.converter.convert(match[1].strip(), display=display)
            .replace("*", "&#x2217;")
            .replace("_", "&#x5f;")
        )

    result = copy.deepcopy(notebook)
    for cell in result.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"\$\$(.+?)\$\$", formula("block"), cell.source, flags=re.DOTALL)
            cell.source = re.sub(r"(?<![\\$])\$([^$`]+?)\$", formula("inline"), text)
    return result


def _tidy(notebook: nbformat.NotebookNode) -> None:
    """Remove what makes every run differ or needs a live kernel: timings, views of widgets."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(
            "\nThe notebook's kernel has stopped: by Ctrl-C, or because memory ran out. What was "
            "finished is kept. Run the same command again.",
            file=sys.stderr,
        )
        sys.exit(130)
