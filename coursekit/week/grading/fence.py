"""The fence around an answer that is run: no network, no writing, limits of time and memory.

Two fences, one behind the other. Python's audit hook (PEP 578) refuses, on every system and in
plain words, whatever Python code tries. Behind it stands, where the system offers it to everybody,
the kernel: limits of resources (`setrlimit`), and on Linux a network namespace without a network
and Landlock, which lets this process read what answers need and write to one folder. Native code
passes the first fence and not the second. Neither is a virtual machine: where learners may be
hostile, grade in a container without a network, as a user of its own.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterable
from os import open as open_descriptor
from pathlib import Path
from typing import Any

from ...common.profile import ROOT

PACKAGE = ROOT / "coursekit"
# Modules that hold the solutions.
SOLUTIONS = ("session_a", "session_b", "session_c", "lab", "causes", "reward")
_EXERCISES = "coursekit.week.exercises"
FILES_MB = 10  # what one file may hold


def close_in(scratch: Path, cpu_seconds: int, memory_mb: int) -> list[str]:
    """Put this process, for good, behind the fences; returns what the kernel has taken on.

    Args:
        scratch: the only folder that may be written to.
        cpu_seconds: computing time. memory_mb: beyond what is taken already.
    """
    kept = _limits(cpu_seconds, memory_mb)
    kept += ["no network (namespace)"] * _leave_network()
    kept += _landlock(scratch)
    _hide_solutions()
    sys.addaudithook(_guard(os.path.realpath(scratch)))
    return kept


def _limits(cpu_seconds: int, memory_mb: int) -> list[str]:
    megabyte = 2**20
    limits = {"CPU": cpu_seconds, "CORE": 0, "FSIZE": FILES_MB * megabyte}
    if (pages := Path("/proc/self/statm")).is_file():  # Linux; elsewhere AS is not heeded
        taken = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        limits["AS"] = taken + memory_mb * megabyte
    for name, limit in limits.items():
        what = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(what)[1]  # which cannot be raised
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (limit, limit))
    names = {"CPU": "computing time", "FSIZE": "size of files", "AS": "memory"}
    return [f"limit of {what}" for name, what in names.items() if name in limits]


def _leave_network() -> bool:
    """Move to a network namespace of its own, which has none; whether the system lets us."""
    new_user, new_network = 0x10000000, 0x40000000
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    return unshare is not None and unshare(new_user | new_network) == 0


# What an answer may read.


def _readable() -> list[Path]:
    """Folders and devices: Python, its libraries, the system's; see `_package_files` for ours."""
    places = [sys.prefix, sys.base_prefix, *(path for path in sys.path if "-packages" in path)]
    system = ["/usr", "/lib", "/lib64", "/etc/localtime", "/dev/null", "/dev/urandom"]
    return [Path(place) for place in (*places, *system) if Path(place).exists()]


def _package_files() -> list[Path]:
    """The course's own files, but for the solutions."""
    return [
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.name.split(".")[0] not in SOLUTIONS
    ]


def _hide_solutions() -> None:
    """Forget the solutions' modules here; a new import is refused."""
    package = sys.modules.get(_EXERCISES)
    for name in SOLUTIONS:
        if sys.modules.pop(f"{_EXERCISES}.{name}", None) and hasattr(package, name):
            delattr(package, name)


# The kernel's fence: Landlock (https://docs.kernel.org/userspace-api/landlock.html).

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, on every processor
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_NO_NEW_PRIVILEGES = 38
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many there are, by version


class _Rules(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def _landlock(scratch: Path) -> list[str]:
    """Let the kernel allow no more than reading what answers need and writing to `scratch`."""
    if not sys.platform.startswith("linux"):
        return []
    call = ctypes.CDLL(None).syscall
    version = call(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return []
    everything = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    sizes = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
    network, scoped = (0b11 if version >= 4 else 0), (0b11 if version >= 6 else 0)
    rules = _Rules(everything, network, scoped)
    handle = call(_CREATE_RULESET, ctypes.byref(rules), sizes.get(version, 24), 0)

    def allow(path: Path, rights: int) -> None:
        folder = open_descriptor(path, os.O_PATH)
        call(_ADD_RULE, handle, 1, ctypes.byref(_Beneath(rights, folder)), 0)
        os.close(folder)

    allow(scratch, everything)
    allow(PACKAGE, _READ_DIR)
    for path in (*_package_files(), *_readable()):
        allow(path, _READ_FILE | (_READ_DIR if path.is_dir() else 0))
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if handle < 0 or call(_RESTRICT_SELF, handle, 0) != 0:
        return []
    return ["files (Landlock)", *["signals to others (Landlock)"] * bool(scoped)]


# Python's fence.

_FORBIDDEN = {
    "socket.": "use the network",
    "subprocess.": "start programs",
    "os.system": "start programs",
    "os.exec": "start programs",
    "os.fork": "start processes",
    "os.posix_spawn": "start programs",
    "os.spawn": "start programs",
    "pty.": "start programs",
    "os.kill": "send signals",
    "signal.pthread_kill": "send signals",
    "ctypes.": "call the system's libraries",
    "resource.setrlimit": "change its limits",
    "gc.": "look at what is not its own",
}
_CHANGES = tuple(
    f"os.{name}"
    for name in (
        *("remove", "rename", "rmdir", "mkdir", "truncate", "link", "symlink", "chmod", "chown"),
        *("utime", "setxattr", "removexattr", "chflags", "lockf"),
    )
)
_LISTS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")


def _guard(scratch: str) -> Callable[[str, tuple[Any, ...]], None]:
    """The audit hook: raises PermissionError for what an answer may not do."""
    folders = tuple(os.path.realpath(path) for path in (scratch, *_readable()))
    files = {os.path.realpath(path) for path in _package_files()}
    package = os.path.realpath(PACKAGE)

    def refuse(what: str) -> None:
        raise PermissionError(f"an answer may not {what}")

    def reads(path: str) -> None:
        listed = os.path.isdir(path) and _within(path, (package,))
        if not (_within(path, folders) or path in files or listed):
            refuse(f"read {path}")

    def writes(path: str) -> None:
        if not _within(path, (scratch,)):
            refuse(f"write to {path}")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        for prefix, what in _FORBIDDEN.items():
            if event.startswith(prefix):
                refuse(what)
        if event == "open":
            path, mode, flags = arguments
            check = writes if _is_written(mode, flags) else reads
            _each(check, [path])
        elif event in _CHANGES or event.startswith("shutil."):
            _each(writes, arguments)
        elif event in _LISTS:
            _each(reads, [arguments[0] or "."])
        elif event == "import" and _is_hidden(*arguments[:2], scratch):
            refuse(f"import {arguments[0]}")

    return hook


def _each(check: Callable[[str], None], arguments: Iterable[Any]) -> None:
    for value in arguments:
        if isinstance(value, (str, bytes, os.PathLike)):
            check(os.path.realpath(os.fsdecode(value)))


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(f"{folder}{os.sep}") for folder in folders)


def _is_written(mode: str | None, flags: int) -> bool:
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    return bool(mode and set(mode) & set("wax+")) or bool(flags & writing)


def _is_hidden(module: str, file: str | None, scratch: str) -> bool:
    """Whether a module is one of the solutions, or native code that the answer has written."""
    solution = module.startswith(_EXERCISES) and module.rpartition(".")[2] in SOLUTIONS
    return solution or bool(file and _within(os.path.realpath(file), (scratch,)))
