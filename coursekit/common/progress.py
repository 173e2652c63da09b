"""One line that says how far a wait has come, in a notebook, a terminal or a log.

In a notebook the line is updated in place and ends as a plain sentence, so that a saved notebook
holds no half-drawn bar and no widget state. A terminal gets the same line on stderr; a log gets
nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_EVERY = 0.3  # seconds between two updates


@contextmanager
def progress(
    label: str | None, total: int, unit: str, after: float = 0.0
) -> Iterator[Callable[..., None]]:
    """Show progress through `total` units; yields `advance(n=1, note="")`. No label, no line.

    after: seconds before which nothing is shown, for what is mostly done by then.

    >>> with progress("sampling", 3, "responses") as advance:
    ...     for _ in range(3):
    ...         advance()
    """
    write: Callable[[str, bool], None] | None = None
    start = last = time.monotonic()
    done = 0

    def show(line: str, ends: bool) -> None:
        nonlocal write
        if label and time.monotonic() - start >= after:
            write = write or _writer()
            write(line, ends)

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            left = (now - start) / max(done, 1) * (total - done)
            show(f"{label}: {done:,} of {total:,} {unit}, {left:.0f} s left {note}".rstrip(), False)

    show(f"{label}: 0 of {total:,} {unit}", False)
    try:
        yield advance
    finally:
        stopped = "" if done >= total else f" of {total:,}, stopped"
        seconds = time.monotonic() - start
        show(f"{label}: {done:,}{stopped} {unit} in {seconds:.1f} s", True)


def told(items: Iterable[Item], advance: Callable[..., None]) -> Iterator[Item]:
    """The items, one by one; each is told to `advance`."""
    for item in items:
        advance()
        yield item


def _writer() -> Callable[[str, bool], None]:
    """How to show a line here: `write(line, last)`."""
    if in_notebook():
        from IPython.display import TextDisplayObject, display

        class Line(TextDisplayObject):
            def __repr__(self) -> str:
                return self.data

        handle = display(Line(""), display_id=True)
        return lambda line, last: handle.update(Line(line))
    if sys.stderr.isatty():
        return lambda line, last: print(
            f"\r\x1b[K{line}", end="\n" if last else "", file=sys.stderr, flush=True
        )
    return lambda line, last: None


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel (JupyterLab, Colab, VS Code, nbconvert)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
