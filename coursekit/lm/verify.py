"""Is what was saved what was trained? Ask a process that has never seen it in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.parallel import run_apart
from ..common.profile import Profile
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

    Raises RuntimeError, with what went wrong there, if it cannot load or answer.
    """
    job = str(folder), list(prompts), list(answers), profile
    with progress("a new process loads and answers", len(prompts), "prompts") as advance:
        try:
            found, same = run_apart(_answer, job)
        except Exception as error:  # what a model may raise, or that the process was killed
            raise RuntimeError(
                f"a new process cannot use the model in {folder}: {error or type(error).__name__}"
            ) from error
        advance(len(prompts))
    differ = [
        pair for pair, ok in zip(zip(answers, found, strict=True), same, strict=True) if not ok
    ]
    return Verified(sum(same), len(same), differ[0] if differ else None)


def _answer(job: tuple[str, list[str], list[str], Profile]) -> tuple[list[str], list[bool]]:
    """In the new process: its answers, and which of them are the same."""
    from .generation import generate
    from .loading import load_model, load_tokenizer

    folder, prompts, answers, profile = job
    model, tokenizer = (load(folder, profile) for load in (load_model, load_tokenizer))
    found = generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch,
        label=None,
    )
    same = [
        ours == theirs or is_tie(model, tokenizer, prompt, ours, theirs)
        for prompt, ours, theirs in zip(prompts, found, answers, strict=True)
    ]
    return found, same


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
