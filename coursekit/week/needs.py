"""Cells that need something a task may not have: they run where it is there, and say why not else.

A cell that begins with `%%needs truth` runs as if that line were not there, if a program knows the
truth of the task; else it prints what is missing and what stands in, and nothing of it runs.
"""

from __future__ import annotations

from collections.abc import Callable

from ..tasks import DEFAULT
from ..workspace import Workspace

_MARK = "%%needs "

# What a cell may need: whether it is there, and what is said where it is not.
NEEDS: dict[str, tuple[Callable[[Workspace], bool], str]] = {
    "own": (
        lambda workspace: workspace.task.name == DEFAULT,
        "this is about the course's own task and has no counterpart in another",
    ),
    "truth": (
        lambda workspace: workspace.task.knows_truth,
        "no program knows what is right in this task. Elsewhere your judge stands in, and your own "
        "labels (session B, section 4); here it would be asked too often, or cannot tell",
    ),
    "copied facts": (
        lambda workspace: bool(workspace.task.copied(*_first(workspace))),
        "this task does not say which facts a response has to repeat",
    ),
    "references": (
        lambda workspace: workspace.task.reference(_first(workspace)[0]) is not None,
        "no response without fault is known (references.jsonl)",
    ),
    "demonstrations": (
        lambda workspace: bool(workspace.task.rows("demonstrations", 1, workspace.profile)),
        "this task has no demonstrations (demonstrations.jsonl)",
    ),
    "probes": (
        lambda workspace: bool(workspace.task.probes(1)),
        "this task does not say what else a model should still be able to do (probes.jsonl): ask a "
        "benchmark, as below",
    ),
}


def _first(workspace: Workspace) -> tuple[dict, str]:
    """A row to ask about, and a response."""
    (row,) = workspace.task.rows("preferences", 1, workspace.profile)
    return row, ""


def heed_needs(workspace: Workspace) -> None:
    """From the next cell on, leave out cells whose needs this workspace does not meet."""
    from IPython import get_ipython

    missing = {name: why for name, (there, why) in NEEDS.items() if not there(workspace)}

    def transform(lines: list[str]) -> list[str]:
        if not lines or not lines[0].startswith(_MARK):
            return lines
        need = lines[0].removeprefix(_MARK).strip()
        if need not in NEEDS:
            raise ValueError(f"{lines[0].strip()!r}: needs is one of {', '.join(NEEDS)}")
        if need not in missing:
            return ["\n", *lines[1:]]
        return [f"print({f'Left out: {missing[need]}.'!r})\n"]

    shell = get_ipython()
    shell.input_transformers_cleanup[:] = [
        other
        for other in shell.input_transformers_cleanup
        if getattr(other, "__name__", "") != "heeds_needs"
    ]
    transform.__name__ = "heeds_needs"
    shell.input_transformers_cleanup.insert(0, transform)
