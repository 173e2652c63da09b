"""What each process does that `test_ranks` starts: it trains with the others.

`torchrun together.py CALLS`, where CALLS holds what each function is called with; what came of it
goes into `CALLS.RANK`. And how to start it: `run_processes`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
from transformers import TrainerCallback

from coursekit.common.ranks import from_main, wait_for_everyone
from coursekit.training import train_dpo, train_sft
from coursekit.training.reward_model import train_reward_model


def run_processes(command: list[str], until: str, seconds: float = 600, **options: Any) -> str:
    """Run `command` and all that it starts until a line has `until`; returns what was printed.

    They then have 10 seconds to end. torch 2.13 may hang as it takes processes on a CPU apart, all
    work done: they are killed. Raises AssertionError, with the last lines, if no line has it.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", **options
    )
    clock = Timer(seconds, _kill, (process,))
    clock.start()
    printed = ""
    for line in process.stdout:
        printed += line
        if until in line:
            clock.cancel()
            clock = Timer(10, _kill, (process,))
            clock.start()
    process.wait()
    clock.cancel()
    assert until in printed, printed
    return printed


def _kill(process: subprocess.Popen) -> None:
    """It and all that it has started: torchrun's workers lead sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid)
        for each in (*started.children(recursive=True), started):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


class StopsAfter(TrainerCallback):
    """As a machine does that fails: without a word to the trainer."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            raise ConnectionError("stopped")


def error_of(function: Any, *arguments: Any, **options: Any) -> Exception | None:
    try:
        function(*arguments, **options)
    except Exception as error:
        return error
    return None


def main(calls: dict[str, Any]) -> dict[str, Any]:
    arguments, options = calls["DPO"]
    return {
        "error": error_of(from_main, lambda: calls["what is not there"]),
        "stopped": error_of(train_dpo, *arguments, **options, callbacks=[StopsAfter(3)]),
        "DPO": train_dpo(*arguments, **options),
        "DPO again": train_dpo(*arguments, **options),
        "SFT": train_sft(*calls["SFT"]),
        "reward model": train_reward_model(*calls["reward model"]),
    }


if __name__ == "__main__":
    path = Path(sys.argv[1])
    seen = main(pickle.loads(path.read_bytes()))
    Path(f"{path}.{os.environ['RANK']}").write_bytes(pickle.dumps(seen))
    wait_for_everyone()
    if os.environ["RANK"] == "0":
        print("all have written", flush=True)
