"""How far a policy has gone from its reference: the KL of whole responses, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..common.statistics import Estimate, bootstrap_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def kl_from_reference(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
) -> Estimate:
    """KL(pi_theta || pi_ref) of a whole response, in nats, averaged over prompts.

    The estimator k1 of `lm.kl` on one response a prompt, with a bootstrap interval. Of
    responses that are cut at `max_new_tokens` it counts the part that was sampled.
    """
    from ..lm.kl import sample_responses
    from ..lm.logprobs import score_tokens, token_logps

    pairs = sample_responses(
        policy,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
    )
    ours, theirs = (
        score_tokens(model, pairs, token_logps, batch_size=batch_size)
        for model in (policy, reference)
    )
    return bootstrap_mean([(a - b).sum().item() for a, b in zip(ours, theirs, strict=True)])
