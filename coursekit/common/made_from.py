"""What a result was made from: a record beside it, one comparison, and one process at a time.

A result is reused only where its record says what would be written for it now. Where it says
something else the result is set aside (renamed, never deleted), and made anew.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock, Timeout

from .. import __version__

RECORD = "made_from.json"  # in a result's folder; beside `x.jsonl` it is `x.made_from.json`
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets")

NOTES = "notes"  # the entry of a record that is for reading, and never compared

MadeFrom = dict[str, Any]
_notes: ContextVar[Mapping[str, Any] | None] = ContextVar("notes", default=None)


@contextmanager
def noting(notes: Mapping[str, Any]) -> Iterator[None]:
    """Let the records that are written meanwhile carry `notes`: for whoever reads them later."""
    before = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(before)


def record_path(result: str | Path) -> Path:
    """Where the record of a result lies: in its folder, or beside its file."""
    result = Path(result)
    return result.with_suffix(f".{RECORD}") if result.suffix == ".jsonl" else result / RECORD


def write_record(result: str | Path, made_from: Mapping[str, Any]) -> MadeFrom:
    """Write the record whole or not at all, with the notes there are (see `noting`).

    Returns it as it will be read.
    """
    notes = _notes.get()
    made_from = {**made_from, **({NOTES: notes} if notes else {})}
    path = record_path(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(made_from, indent=1, default=str), encoding="utf-8")
    partial.replace(path)
    return plain(made_from)


def read_record(result: str | Path) -> MadeFrom | None:
    """The record of a result, or None where there is none. Raises ValueError for a damaged one."""
    path = record_path(result)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"it holds {type(record).__name__}, not an object")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}), so nothing says what {Path(result).name} was made from: "
            f"move {Path(result).name} away, and it is made anew"
        ) from error
    return record


def plain(made_from: Any) -> Any:
    """`made_from` as it comes back from a file: tuples as lists, other objects as text."""
    return json.loads(json.dumps(made_from, default=str))


def fingerprint(*parts: Any) -> str:
    """Sixteen hexadecimal digits that differ where `parts` differ (as JSON; see `plain`)."""
    digest = hashlib.sha256()
    for piece in _as_json(parts):
        digest.update(piece.encode())
    return digest.hexdigest()[:16]


def _as_json(value: Any, levels: int = 2) -> Iterator[str]:
    """`json.dumps(plain(value), sort_keys=True)`, of long lists a row at a time."""
    if not (levels and value and isinstance(value, list | tuple)):
        yield json.dumps(plain(value), sort_keys=True)
        return
    for index, item in enumerate(value):
        yield ", " if index else "["
        yield from _as_json(item, levels - 1)
    yield "]"


def differences(record: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[str]:
    """What of `wanted` the record does not say, one sentence an entry; empty where all agree.

    Entries that only the record has are notes (versions of libraries, say) and make no difference.
    """
    if record is None:
        return ["nothing says what it was made from"]
    return _differences(record, plain(wanted))


def _differences(record: Mapping[str, Any], wanted: Mapping[str, Any], of: str = "") -> list[str]:
    found = []
    for name, now in wanted.items():
        then = record.get(name)
        if isinstance(then, dict) and isinstance(now, dict):
            found += _differences(then, now | dict.fromkeys(then.keys() - now), f"{of}{name}.")
        elif then != now:
            found.append(f"{of}{name} was {_short(then)}, now {_short(now)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def set_aside(path: str | Path, why: str, also: tuple[Path, ...] = ()) -> Path:
    """Rename a result (and what lies beside it) to the first free `NAME-oldN`, and say so."""
    path = Path(path)
    number = 1
    while (aside := path.with_name(f"{path.stem}-old{number}{path.suffix}")).exists():
        number += 1
    for one in (path, *also):
        if one.exists():
            one.replace(aside.with_name(aside.stem + one.name.removeprefix(path.stem)))
    print(f"{path.name}: {why}: kept as {aside.name}, and made anew")
    return aside


def versions() -> dict[str, str]:
    """Of the course, and of the libraries that training rests on. A note in records, which is not
    compared: another version alone does not make finished weights another result.
    """
    return {"coursekit": __version__, **{package: version(package) for package in PACKAGES}}


def code_version(*modules: ModuleType) -> str:
    """Eight hexadecimal digits for what the modules' code does: comments and docstrings apart."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(what_it_does(Path(module.__file__).read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:8]


def what_it_does(source: str) -> str:
    """A text that is the same for two sources that differ in comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


@contextmanager
def only_here(path: str | Path | None, say: Callable[[str], None] = print) -> Iterator[None]:
    """Let one process at a time work on the result at `path`; others say for whom they wait.

    The system frees the lock of a process that ends, however it ends. Without a path nothing is
    locked.
    """
    if path is None:
        yield
        return
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    holder = path.with_name(f".{path.name}.holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{path.name}: {_who(holder)} is working on it; waiting until it has ended")
        lock.acquire()
    try:
        now = datetime.now().strftime("%H:%M:%S")
        holder.write_text(
            f"process {os.getpid()} on {socket.gethostname()}, since {now}", encoding="utf-8"
        )
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8") or "another process"
    except OSError:  # it has just come, or gone
        return "another process"
