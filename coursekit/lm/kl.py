"""KL(pi_theta || pi_ref) of a whole response, in nats, estimated from the policy's own samples.

Two estimators per token, summed over the response (Schulman 2020, "Approximating KL divergence";
d = log pi_theta - log pi_ref of the sampled token, given what was sampled before it):

k1 = d            unbiased; single responses may be negative, and the mean of few as well;
k3 = e^-d - 1 + d unbiased as well, never negative; of smaller error only where every token has
                  nearly the reference's probabilities. A token that the reference would say and
                  the policy hardly samples gives e^-d a heavy tail, at a small KL a response too:
                  then k1 is the safer of the two. k3's own standard error has not seen the tail
                  that it missed: several errors between the two estimates tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..common.prompts import Prompt
from .logprobs import EncodedPair, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class KL:
    """Mean and standard error of both estimators over n responses, in nats a response."""

    k1: float
    k1_se: float
    k3: float
    k3_se: float
    n: int

    def __str__(self) -> str:
        return (
            f"{self.k1:.2f} ± {self.k1_se:.2f} (k1), {self.k3:.2f} ± {self.k3_se:.2f} (k3) nats a "
            f"response, from {self.n}"
        )


def estimate_kl(policy_logps: Sequence[Tensor], reference_logps: Sequence[Tensor]) -> KL:
    """Both estimates from log-probabilities of *sampled* tokens.

    Args:
        policy_logps, reference_logps: for each of N responses sampled from the policy at
            temperature 1, the log-probabilities of its T tokens, end token included, (T,).

    Raises:
        ValueError: different numbers of responses or tokens, or fewer than two responses.
    """
    terms = [kl_terms(ours - theirs) for ours, theirs in zip_tokens(policy_logps, reference_logps)]
    if len(terms) < 2:
        raise ValueError(f"{len(terms)} responses: a standard error needs at least two")
    sums = torch.stack(terms).double()  # (N, 2)
    means, errors = sums.mean(0).tolist(), (sums.std(0) / len(terms) ** 0.5).tolist()
    return KL(means[0], errors[0], means[1], errors[1], len(terms))


def kl_terms(log_ratio: Tensor) -> Tensor:
    """k1 and k3 of one response, (2,), from its tokens' log-ratios d, (T,)."""
    k3 = torch.expm1(-log_ratio) + log_ratio
    return torch.stack([log_ratio.sum(), k3.sum()])


def zip_tokens(first: Sequence[Tensor], second: Sequence[Tensor]):
    """Pairs of rows, after a check that they belong together."""
    if [len(row) for row in first] != [len(row) for row in second]:
        raise ValueError(
            "the log-probabilities are of different responses or tokens: score the same token ids "
            "with both models"
        )
    return zip(first, second, strict=True)


def sample_responses(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    label: str | None = "sampling for the KL",
) -> list[EncodedPair]:
    """One response to each prompt from the policy, as the tokens that were drawn.

    At another temperature than 1 it is another policy: score it with logits divided by that.

    Not as text: a text may be tokenised otherwise when it is read again, and a response that was
    cut would gain an end token that the policy never chose.
    """
    from .generation import generate_ids

    responses = generate_ids(
        policy,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
        label=label,
    )
    return [
        EncodedPair(encode_prompt(tokenizer, prompt), ids)
        for prompt, ids in zip(prompts, responses, strict=True)
    ]
