"""What a server may cost beside money: a deadline for the whole answer, and a size it must keep to.

An HTTP client's timeout holds for each read alone, and its reads have no end: a byte a second keeps
it waiting for ever, and a small compressed reply can unfold to gigabytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import httpx2  # the client in both SDKs

Result = TypeVar("Result")

LARGEST_REPLY = 2**20  # bytes; an answer has some hundred
LARGEST_BATCH = 2**28
BATCH_SECONDS = 600.0  # to send or fetch a batch
LOOK_UP = 0.2  # seconds: how often one who waits sees whether to stop


class TooMuch(Exception):
    """A reply larger than any answer, or compressed although we asked for a plain one."""


def in_time(
    call: Callable[[], Result], seconds: float, stopped: threading.Event | None = None
) -> Result:
    """`call()`, or TimeoutError after `seconds`, whatever it waits for; or once `stopped` is set.

    It goes on in a thread that nobody waits for; `client` sees that it does not read for ever.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    until = time.monotonic() + seconds
    while stopped and not future.done() and not stopped.is_set() and time.monotonic() < until:
        wait([future], timeout=LOOK_UP)
    # Stopped, and not there: no time is left to it.
    return future.result(timeout=0 if stopped else seconds)


def client(sdk: Any, seconds: float) -> Any:
    """An SDK's own HTTP client (proxies and all) that keeps to these limits."""

    def limit(response: httpx2.Response) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise TooMuch(f"a reply compressed with {encoding}, though none was asked for")
        batch = response.request.method == "GET"
        response.stream = _Limited(
            response.stream,
            LARGEST_BATCH if batch else LARGEST_REPLY,
            BATCH_SECONDS if batch else seconds,
        )

    return sdk.DefaultHttpxClient(
        timeout=seconds,
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [limit]},
    )


class _Limited(httpx2.SyncByteStream):
    """The body of a reply, up to a size and a time."""

    def __init__(self, stream: Any, most: int, seconds: float) -> None:
        self._stream, self._most = stream, most
        self._until = time.monotonic() + seconds

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > self._most:
                raise TooMuch(f"a reply of more than {self._most:,} bytes")
            if time.monotonic() > self._until:
                raise httpx2.ReadTimeout("the reply takes too long")
            yield piece

    def close(self) -> None:
        self._stream.close()
