"""Is what was saved what was trained? Ask a process that has never seen it in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.profile import Profile, TrainingSettings
from ..common.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..common.prompts import Prompt


@dataclass(frozen=True)
class Verified:
    """How many of n greedy answers were the same in the new process; `first`: one that was not.

    The same up to a tie: where two tokens are as likely but for the rounding of the weights' type,
    either may come first, and all that follows with it.
    """

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
        "answers": list(answers),
        "profile": asdict(profile) | {"artifacts": str(profile.artifacts)},
    }
    with progress("a new process loads and answers", len(prompts), "prompts") as advance:
        process = subprocess.run(
            [sys.executable, "-m", "coursekit.lm.verify"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
        )
        advance(len(prompts))
    if process.returncode:
        raise RuntimeError(
            f"a new process cannot use the model in {folder}:\n{process.stderr[-2000:]}"
        )
    found, same = json.loads(process.stdout.splitlines()[-1])
    differ = [
        pair for pair, ok in zip(zip(answers, found, strict=True), same, strict=True) if not ok
    ]
    return Verified(sum(same), len(same), differ[0] if differ else None)


def _answer() -> None:
    """The new process: reads its task; its last line holds its answers, and which are the same."""
    from .generation import generate
    from .loading import load_model, load_tokenizer

    task = json.loads(sys.stdin.read())
    profile = _profile(task["profile"])
    model, tokenizer = (load(task["folder"], profile) for load in (load_model, load_tokenizer))
    found = generate(
        model,
        tokenizer,
        task["prompts"],
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch,
    )
    same = [
        ours == theirs or is_tie(model, tokenizer, prompt, ours, theirs)
        for prompt, ours, theirs in zip(task["prompts"], found, task["answers"], strict=True)
    ]
    print(json.dumps([found, same]))


def _profile(said: dict[str, Any]) -> Profile:
    """The profile that was handed over: it holds whatever the environment says here."""
    settings = {name: TrainingSettings(**said[name]) for name in ("sft", "dpo")}
    return Profile(**said | settings | {"artifacts": Path(said["artifacts"])})


def is_tie(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    one: str,
    other: str,
) -> bool:
    """Whether `model` finds two answers' tokens equally likely, but for rounding, where they part.

    Rounding: eight steps of the type of the weights, at the size of the largest logit.
    """
    import torch

    from .logprobs import common_prefix_length, encode_pair

    pairs = [encode_pair(tokenizer, prompt, text) for text in (one, other)]
    rows = [pair.prompt_ids + pair.response_ids for pair in pairs]
    at = common_prefix_length(*rows)
    if at == min(map(len, rows)):
        return False
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([rows[0][:at]], device=model.device)).logits[0, -1]
    apart = (logits[rows[0][at]] - logits[rows[1][at]]).abs()
    return bool(apart <= 8 * torch.finfo(model.dtype).eps * logits.abs().max())


if __name__ == "__main__":
    _answer()
