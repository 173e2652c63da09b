"""Several processes that train one model together: who is who, and what one of them does for all.

A launcher (`torchrun`, `accelerate launch`) starts them and numbers them in the environment.
Without one there is a single process, and nothing here costs anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .made_from import only_here

if TYPE_CHECKING:
    from accelerate import PartialState

Value = TypeVar("Value")

_PATIENCE = timedelta(hours=2)  # what one process does alone may take its time


def _together() -> PartialState | None:
    """accelerate's view of the processes, who meet at the first call; None for a single one."""
    if "LOCAL_RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return None
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)


def processes() -> int:
    """How many processes train together."""
    state = _together()
    return state.num_processes if state else 1


def is_main() -> bool:
    """Whether this is the process that writes and speaks for all: exactly one is."""
    state = _together()
    return state is None or state.is_main_process


def from_main(make: Callable[[], Value]) -> Value:
    """What `make()` gives in the main process, in all of them; the others wait for it.

    What it raises there is raised everywhere, so that none waits for one that has ended.
    """
    state = _together()
    if state is None:
        return make()
    from accelerate.utils import broadcast_object_list

    told: list = [None, None]
    if state.is_main_process:
        try:
            told[0] = make()
        except Exception as error:
            told[1] = error
    value, error = broadcast_object_list(told)
    if error is not None:
        raise error
    return value


def wait_for_everyone() -> None:
    """Go on when all processes have come here."""
    if state := _together():
        state.wait_for_everyone()


def anywhere(flag: bool) -> bool:
    """Whether `flag` is true in any of the processes, each of which must ask."""
    if _together() is None:
        return flag
    from accelerate.utils import gather_object

    return any(gather_object([flag]))


@contextmanager
def only_this_run(path: str | Path) -> Iterator[None]:
    """`only_here` for processes that train together: the main one holds the lock for all."""
    with only_here(path if is_main() else None):
        wait_for_everyone()
        yield
