"""Asking a server much at a time, at its pace: how many, how fast, and when again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from .providers import Transient

Item = TypeVar("Item")
Result = TypeVar("Result")

LONGEST_WAIT = 60.0  # seconds; a server that asks for more is asked again then


def as_they_come(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    stopped: threading.Event,
) -> Iterator[list[Result]]:
    """The results of `function(item)`, as they end; every second, though it be none.

    Only as many are begun as are under way at once. On Ctrl-C, an error, or when the caller has
    enough, `stopped` is set for those under way to see; they are waited for, and no more are begun.
    An error is raised when the results that came with it have been given.
    """
    waiting, pool = iter(items), ThreadPoolExecutor(workers)
    under_way: set[Future] = set()
    try:
        while True:
            under_way |= {
                pool.submit(function, item) for item in islice(waiting, workers - len(under_way))
            }
            if not under_way:
                return
            done, under_way = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
            failed = [future for future in done if future.exception()]
            yield [future.result() for future in done - set(failed)]
            for future in failed:
                future.result()
    except BaseException:
        stopped.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        stopped.clear()


class Limiter:
    """Lets calls pass at an even pace, and none during a pause that the server asked for."""

    def __init__(self, a_minute: float | None = None) -> None:
        self._gap = 60.0 / a_minute if a_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def turn(self) -> float:
        """Seconds to wait for one's turn."""
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._gap
        return turn - time.monotonic()

    def backoff(self, error: Transient, tries: int) -> float:
        """Seconds to wait before a server is asked again that has failed so often."""
        if error.wait is None:
            return min(0.5 * 2 ** (tries - 1), 30.0) * random.uniform(0.5, 1.0)
        # What one call was told holds for all: they share the server's limit.
        with self._lock:
            self._next = max(self._next, time.monotonic() + min(error.wait, LONGEST_WAIT))
        return 0.0
