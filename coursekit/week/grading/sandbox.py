"""Run one answer on test inputs, in a process of its own behind a fence; bring back its numbers.

The process says what the answer gave and nothing else: whether that is right is found by whoever
asked, so an answer that changes builtins, libraries or the checks' own code changes nothing.
"""

from __future__ import annotations

import json
import linecache
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import open as open_descriptor
from pathlib import Path
from typing import Any

import torch
from IPython.utils.capture import CapturedIO

from ..exercises.answers import Answer, answer_of
from .fence import close_in

MOST_BYTES = 4_000_000  # of what a process may bring back
MOST_NUMBERS = 20_000  # in one answer
MOST_PRINTED = 2_000  # characters
_FILE = "<the answer>"


@dataclass(frozen=True)
class Limits:
    """What one answer may take: seconds on the clock (as many of computing), and memory."""

    seconds: float = 10
    memory_mb: int = 1024


@dataclass(frozen=True)
class Program:
    """An answer to be run: code that leaves a function called `name`."""

    name: str
    code: str


def run(
    program: Program,
    cases: Sequence[Mapping[str, Any]],
    gradients: Sequence[str],
    limits: Limits,
) -> list[Answer] | str:
    """What the program's function gives for each case, or a sentence that says why nothing.

    Needs `os.fork`: Linux or macOS.
    """
    scratch = Path(tempfile.mkdtemp(prefix="answer-"))
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        _work(program, cases, gradients, limits, scratch, theirs)  # does not return
    os.close(theirs)
    try:
        said, late = _listen(ours, limits.seconds)
        status = _end(child)
    finally:
        os.close(ours)
        shutil.rmtree(scratch, ignore_errors=True)
    if late or status == -signal.SIGXCPU:
        return f"it did not end within {limits.seconds:g} seconds. Is there an endless loop?"
    return _understood(said, len(cases)) or _ended(status)


def _listen(pipe: int, seconds: float) -> tuple[bytes, bool]:
    """What comes until the pipe is closed, and whether that took too long (or was too much)."""
    said, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and len(said) <= MOST_BYTES:
        if select.select([pipe], [], [], left)[0]:
            if not (part := os.read(pipe, 1 << 16)):
                return said, False
            said += part
    return b"", len(said) <= MOST_BYTES


def _end(child: int) -> int:
    """End the process and whatever it has started; its exit status, negative for a signal."""
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _ended(status: int) -> str:
    how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
    return f"its process ended {how} before there was an answer (too much memory, or an exit)."


# In the process of the answer.


def _work(
    program: Program,
    cases: Sequence[Mapping[str, Any]],
    gradients: Sequence[str],
    limits: Limits,
    scratch: Path,
    pipe: int,
) -> None:
    """Run the answer and write down what it gave; ends this process in any case."""
    try:
        _leave_the_parent(scratch, pipe)
        close_in(scratch, int(limits.seconds) + 1, limits.memory_mb)
        function = _function(program)
        answers = (
            [function] if isinstance(function, Answer) else _answers(function, cases, gradients)
        )
        text = json.dumps([_written(answer) for answer in answers]).encode()
        while text:
            text = text[os.write(pipe, text) :]
        os._exit(0)
    finally:
        os._exit(1)


def _answers(
    function: Any, cases: Sequence[Mapping[str, Any]], gradients: Sequence[str]
) -> list[Answer]:
    found = []
    for case in cases:
        try:
            found.append(answer_of(function, case, gradients))
        except BaseException as error:  # `answer_of` has caught all but exits
            return [Answer(error=RuntimeError(f"it ends the program ({type(error).__name__})"))]
    return found


def _leave_the_parent(scratch: Path, pipe: int) -> None:
    """A session, a folder and an environment of its own, and no file of the parent but the pipe."""
    os.setsid()
    nothing = open_descriptor(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, 4096)
    os.chdir(scratch)
    os.environ.clear()
    os.environ.update({"HOME": str(scratch), "TMPDIR": str(scratch), "PATH": os.defpath})
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


def _function(program: Program) -> Any:
    """The function that the code leaves, or an Answer with the error that it raised."""
    linecache.cache[_FILE] = (len(program.code), None, program.code.splitlines(True), _FILE)
    names: dict[str, Any] = {"__name__": "__answer__"}
    try:
        exec(compile(program.code, _FILE, "exec"), names)
        return names[program.name]
    except BaseException as error:
        kind = type(error) if isinstance(error, Exception) else RuntimeError
        return Answer(error=kind(str(error)) if kind is RuntimeError else error)


def _written(answer: Answer) -> dict[str, Any]:
    """An answer as JSON can hold it."""
    numbers = answer.numbers
    if numbers is not None and numbers.numel() > MOST_NUMBERS:
        numbers = None
    return {
        "kind": type(answer.value).__name__,
        "numbers": None if numbers is None else _plain(numbers),
        "gradients": {name: _plain(tensor) for name, tensor in answer.gradients.items()},
        "error": answer.error and [type(answer.error).__name__, str(answer.error)[:500]],
        "line": answer.line[:200],
        "printed": answer.printed.stdout[:MOST_PRINTED] if answer.printed else "",
    }


def _plain(tensor: torch.Tensor) -> list[Any]:
    tensor = tensor.detach().double()
    return [list(tensor.shape), tensor.flatten().tolist()]


# Back here: what the process said is read as what it is, somebody else's text.


def _understood(said: bytes, cases: int) -> list[Answer] | str:
    """The answers; an empty text where nothing was said, a sentence where it is no answer."""
    if not said:
        return ""
    try:
        answers = [_read(one) for one in json.loads(said)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, RuntimeError):
        answers = []
    if len(answers) != cases and not (len(answers) == 1 and answers[0].error):
        return "what it gave cannot be read as answers."
    return answers * cases if len(answers) != cases else answers


def _read(said: Mapping[str, Any]) -> Answer:
    numbers = None if said["numbers"] is None else _tensor(said["numbers"])
    error = said["error"] and _error(*map(str, said["error"]))
    kind = str(said["kind"])[:60]
    return Answer(
        value=numbers if kind == "Tensor" else None if kind == "NoneType" else _of_kind(kind),
        numbers=numbers,
        gradients={str(name): _tensor(values) for name, values in said["gradients"].items()},
        error=error or None,
        line=str(said["line"])[:200],
        printed=CapturedIO(_Text(str(said["printed"])[:MOST_PRINTED]), None),
    )


class _Text(str):
    """Text in the form in which `CapturedIO` wants it."""

    def getvalue(self) -> str:
        return str(self)


def _tensor(said: Sequence[Any]) -> torch.Tensor:
    shape, values = said
    return torch.tensor([float(value) for value in values], dtype=torch.float64).reshape(shape)


def _of_kind(name: str) -> Any:
    """Something whose type has that name."""
    return type(name.replace("\0", ""), (), {})()


def _error(name: str, message: str) -> Exception:
    if name == "NotImplementedError":
        return NotImplementedError(message[:500])
    return type(name.replace("\0", "")[:60], (Exception,), {})(message[:500])
