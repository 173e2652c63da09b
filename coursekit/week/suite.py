"""Run the tests in lanes, side by side: `python -m coursekit test`.

A lane is a pytest of its own with one thread, so a notebook's cells stay in their order; as many
run at once as there are cores. With further arguments, or on one core, one pytest runs all.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock

import pytest

from ..common.profile import ROOT

OPTIONS = ("--nbval-lax",)
OF_A_LANE = ("--no-header", "-p", "no:cacheprovider")  # several at once would spoil `--last-failed`
ALONE = ("tests", "notebooks")  # in one pytest
# Lanes of their own: two cores then end about together, and on more of them none waits for one long
# lane.
APART = {
    "other tasks": ("tests/test_own_task.py",),
    "training": tuple(
        f"tests/test_{name}.py"
        for name in "workspace training trials label_noise monitoring ranks export record memory "
        "publishing reward_model preflight bigger".split()
    ),
    "sessions": ("tests/test_notebooks.py",),
}
PATIENCE = 5.0  # seconds for a lane that was told to stop by the same Ctrl-C to say how it ended
COUNTED = "failed passed skipped deselected xfailed xpassed warnings errors".split()  # as pytest
_REPORT = re.compile(r"=+ (?!test session starts)")  # begins what follows the progress
_printing = Lock()


@dataclass
class Lane:
    """Tests that run one after another in a process of their own.

    arguments: for pytest; artifacts: where this lane's `artifacts` are, None for the usual place.
    """

    name: str
    arguments: Sequence[str]
    artifacts: str | None = None
    lines: list[str] = field(default_factory=list)
    status: int | None = None  # of the process, negative for a signal; None while it has none
    process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Print the progress as it comes, with the lane's name, and the report in one piece."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *OPTIONS, *OF_A_LANE, *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=self._environment(),
        )
        reporting = False
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip())
            reporting = reporting or bool(_REPORT.match(line))
            if not reporting and line.strip():
                _say(f"{self.name}: {line.rstrip()}")
        self.status = self.process.wait()
        begin = next((n for n, line in enumerate(self.lines) if _REPORT.match(line)), None)
        if begin is not None:
            _say(f"\n{self.name}:", *self.lines[begin:])

    def _environment(self) -> dict[str, str]:
        """One thread: two processes of two threads each crawl on two cores."""
        mine = {"OMP_THREAD_LIMIT": "1", "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}
        if self.artifacts:
            mine["COURSE_ARTIFACTS"] = self.artifacts
        return {**os.environ, **mine}

    def stop(self) -> None:
        """End it, unless the Ctrl-C that reached this process has reached it too."""
        if self.process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        for end in (self.process.terminate, self.process.kill):
            if self.process.poll() is None:
                end()
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(PATIENCE)

    @property
    def counts(self) -> Counter[str]:
        """What pytest counts in its closing line; an error for a lane that did not get so far."""
        try:
            return Counter(pytest.RunResult.parse_summary_nouns(self.lines))
        except ValueError:
            return Counter(errors=1)


def _say(*lines: str) -> None:
    with _printing:
        print(*lines, sep="\n", flush=True)


def lanes(scratch: str) -> list[Lane]:
    """All tests, each in one lane: what is in none of `APART` or the notebooks is in the first.

    The longest begin first, so that at the end no lane runs long alone.

    What tests leave in `artifacts` no session finds, and the sessions' own stay for the next time.
    """
    elsewhere = [f"--ignore={file}" for files in APART.values() for file in files]
    return [
        Lane("the rest", ("tests", *elsewhere), f"{scratch}/rest"),
        Lane("notebooks", ("notebooks",)),
        *(Lane(name, files, f"{scratch}/{name}") for name, files in APART.items()),
    ]


def run_lanes(lanes: Sequence[Lane], cores: int) -> int:
    """Run them, `cores` at once; print one closing line for all, and return the worst status.

    As pytest's: 0 if all passed, 1 if a test failed, 2 after Ctrl-C, more for what is worse.
    """
    start, interrupted = time.monotonic(), False
    with ThreadPoolExecutor(cores) as pool:
        running = [pool.submit(lane.run) for lane in lanes]
        try:
            for each in as_completed(running):
                each.result()  # raises what kept a lane from running at all
        except KeyboardInterrupt:
            interrupted = True
            pool.shutdown(wait=False, cancel_futures=True)
            for lane in lanes:
                lane.stop()
    for lane in lanes:
        if lane.status not in (0, 1, None):
            print(f"{lane.name}: ended with status {lane.status}")
    print(closing_line(lanes, time.monotonic() - start))
    if interrupted:
        return int(pytest.ExitCode.INTERRUPTED)
    return max(_as_shell(lane.status) for lane in lanes)


def _as_shell(status: int | None) -> int:
    """The exit status that a shell would give; 1 for a lane without one."""
    return 1 if status is None else status if status >= 0 else 128 - status


def closing_line(lanes: Sequence[Lane], seconds: float) -> str:
    """What pytest says at its end, of all lanes that have begun."""
    total = sum((lane.counts for lane in lanes if lane.process), Counter())
    parts = [
        f"{total[what]} {what.removesuffix('s') if total[what] == 1 else what}"
        for what in COUNTED
        if total[what]
    ]
    long = f" ({timedelta(seconds=int(seconds))})" if seconds >= 60 else ""
    return f" {', '.join(parts) or 'no tests ran'} in {seconds:.2f}s{long} ".center(80, "=")


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main() -> int:
    given, cores = sys.argv[1:], _cores()
    os.chdir(ROOT)
    if given or cores == 1:
        return int(pytest.main([*OPTIONS, *ALONE, *given]))
    # To be told to stop (`kill`, a CI that gives up) is Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        return run_lanes(lanes(scratch), cores)


if __name__ == "__main__":
    sys.exit(main())
