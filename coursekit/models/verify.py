"""Is what was saved what was trained? Ask a process that has never seen it in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..profile import Profile
from ..progress import progress


@dataclass(frozen=True)
class Verified:
    """How many of n greedy answers were the same in the new process; `first`: one that was not."""

    same: int
    n: int
    first: tuple[str, str] | None

    def __str__(self) -> str:
        return f"{self.same} of {self.n} answers are the same in a new process"


def verify_saved(
    folder: str | Path, prompts: Sequence[str], answers: Sequence[str], profile: Profile
) -> Verified:
    """Load the model in `folder` in a new process and compare its greedy answers with `answers`.

    Raises RuntimeError, with what the process said, if it cannot load or answer.
    """
    task = {
        "folder": str(folder),
        "prompts": list(prompts),
        "profile": profile.name,
        "max_new_tokens": profile.max_new_tokens,
        "threads": profile.threads,
    }
    with progress("a new process loads and answers", len(prompts), "prompts") as advance:
        process = subprocess.run(
            [sys.executable, "-m", "coursekit.models.verify"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
        )
        advance(len(prompts))
    if process.returncode:
        raise RuntimeError(
            f"a new process cannot use the model in {folder}:\n{process.stderr[-2000:]}"
        )
    found = json.loads(process.stdout.splitlines()[-1])
    pairs = list(zip(answers, found, strict=True))
    differ = [pair for pair in pairs if pair[0] != pair[1]]
    return Verified(len(pairs) - len(differ), len(pairs), differ[0] if differ else None)


def _answer() -> None:
    """The new process: reads its task, prints the answers as the last line."""
    from ..generation import generate
    from ..profile import load_profile
    from . import load_model, load_tokenizer

    task = json.loads(sys.stdin.read())
    profile = replace(load_profile(task["profile"]), threads=task["threads"])
    answers = generate(
        load_model(task["folder"], profile),
        load_tokenizer(task["folder"], profile),
        task["prompts"],
        max_new_tokens=task["max_new_tokens"],
        batch_size=profile.generation_batch,
    )
    print(json.dumps(answers))


if __name__ == "__main__":
    _answer()
