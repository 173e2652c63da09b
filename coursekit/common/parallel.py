"""Independent runs side by side: two of a thread each beat two, one after the other, of two.

Not with joblib: its workers work on when their parent has been killed, and each imports everything
for itself, where a fork server does it once for all.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from typing import Any, TypeVar

from .profile import Profile

Job = TypeVar("Job")
Result = TypeVar("Result")

PRELOAD = ["coursekit.common.quiet", "trl.trainer.dpo_trainer", "peft"]  # by the fork server, once


def share_threads(profile: Profile) -> tuple[int, Profile]:
    """How many runs go side by side, and the profile for each: one for every CPU thread it names.

    Where it names none (a GPU), one run at a time, and the profile as it is.
    """
    workers = profile.threads or 1
    return workers, replace(profile, threads=1) if workers > 1 else profile


def run_all(
    run: Callable[[Job], Result], jobs: Sequence[Job], workers: int, advance: Callable[..., Any]
) -> Iterator[Result]:
    """`run(job)` of each job, as they end: in `workers` processes, or here if one is enough.

    Args:
        run: a function of a module (processes import it); with `functools.partial` for what all
            jobs share.
        advance: of `progress`: called when a job ends, and every second meanwhile.

    When the caller stops (Ctrl-C, an error) the processes are ended, and they end by themselves
    when the caller's process does, however that ends; an error in a job is raised.
    """
    workers = min(workers, len(jobs))
    if workers > 1:
        yield from _in_processes(run, jobs, workers, advance)
        return
    for job in jobs:
        yield run(job)
        advance()


def run_apart(run: Callable[[Job], Result], job: Job) -> Result:
    """`run(job)` in a process that has never held what this one holds; see `run_all`."""
    (result,) = _in_processes(run, [job], 1, lambda *_: None)
    return result


def _in_processes(
    run: Callable[[Job], Result], jobs: Sequence[Job], workers: int, advance: Callable[..., Any]
) -> Iterator[Result]:
    pool = ProcessPoolExecutor(workers, _context(), _begin_worker)
    try:
        waiting: set[Future] = {pool.submit(run, job) for job in jobs}
        start = time.monotonic()
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            # Also when nothing has ended: who waits wants to see that something happens.
            advance(len(done), f"({time.monotonic() - start:.0f} s so far)")
    except BaseException:  # Ctrl-C and a caller who stops asking, too
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def warm_up() -> None:
    """Let the fork server import in the background what runs will need, while other things wait.

    Optional: the first runs would wait for it otherwise.
    """
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def _context() -> multiprocessing.context.BaseContext:
    """How processes are started: never as copies of this one, whose threads they would lack.

    Where there is a fork server it imports what runs need once, for all processes to come. With a
    GPU it would ask for that too, as libraries do, and no copy of it could use the GPU any more.
    """
    import torch

    windows = "forkserver" not in multiprocessing.get_all_start_methods()
    if windows or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _begin_worker() -> None:
    """Ctrl-C is the parent's to handle: it ends its workers. Should it be killed, they follow.

    The libraries' objects stay for good, so a collection of garbage, with which every training
    begins, need not go through them.
    """
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the process that made the pool, and end this one: it works for nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # in a worker there is one
    parent.join()
    os._exit(1)
