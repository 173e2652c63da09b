"""A checkpoint measured: its true reward, and how far it is from the SFT model.

Every method's policy is measured by the same function: the same prompts and random numbers, one
response a prompt, and for the KL the estimators of `lm.kl`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.statistics import bootstrap_mean
from ...evaluation import win_rate
from ...lm.kl import estimate_kl, sample_responses
from ...lm.loading import adapter_config, load_model, load_tokenizer, merge_adapter
from ...lm.logprobs import score_tokens, sequence_logps, token_logps
from ...lm.shared import load_shared
from .start import ANSWERING, Rows, Start, responses

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Point = dict[str, Any]


@dataclass(frozen=True)
class Spent:
    """What a policy has cost so far, besides its training.

    samples: responses drawn from a model to learn from; labels: pairs judged; reward_calls: how
    often a reward, learned or true, was asked for.
    """

    samples: int = 0
    labels: int = 0
    reward_calls: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A policy on its way. folder: its model; step: updates so far; temperature: of the policy,
    whose logits are divided by it.
    """

    folder: Path
    step: int
    spent: Spent
    temperature: float = 1.0


def load_policy(checkpoint: Checkpoint, start: Start) -> PreTrainedModel:
    """The checkpoint's model, its adapter merged: it answers a third faster."""
    model = load_model(checkpoint.folder, start.profile)
    return merge_adapter(model) if adapter_config(checkpoint.folder) else model


def measure(checkpoint: Checkpoint, start: Start) -> Point:
    """What the checkpoint does on the evaluation rows, a response each.

    Returns a point: `step`, `samples`, `labels`, `reward_calls`; `reward`, the mean true one, with
    `low` and `high` (95 %, over prompts); `kl` and `kl_se` (k1), `k3` and `k3_se`, nats a response;
    `length`, tokens a response; `ended`, the share that ended by themselves; `chosen` and
    `rejected`, mean log pi - log pi_SFT of the held-out triples' responses, nats.
    """
    policy, reference = load_policy(checkpoint, start), load_shared(start.model, start.profile)
    tokenizer = load_tokenizer(start.model, start.profile)
    pairs = sample_responses(
        policy,
        tokenizer,
        [row["prompt"] for row in start.evaluation],
        max_new_tokens=start.profile.max_new_tokens,
        temperature=checkpoint.temperature,
        seed=start.seed,
        batch_size=start.profile.generation_batch,
        label=None,
    )

    def tempered(logits: Tensor, input_ids: Tensor) -> Tensor:
        return token_logps(logits / checkpoint.temperature, input_ids)

    kl = estimate_kl(
        score_tokens(policy, pairs, tempered), score_tokens(reference, pairs, token_logps)
    )
    tokens = [pair.response_ids for pair in pairs]
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return {
        "step": checkpoint.step,
        **asdict(checkpoint.spent),
        **reward_of([start.judge.score(*one) for one in zip(start.evaluation, texts, strict=True)]),
        **{"kl": kl.k1, "kl_se": kl.k1_se, "k3": kl.k3, "k3_se": kl.k3_se},
        "length": sum(map(len, tokens)) / len(tokens),
        "ended": sum(ids[-1] == tokenizer.eos_token_id for ids in tokens) / len(tokens),
        **_shifts(policy, reference, tokenizer, start.held),
    }


def reward_of(rewards: list[float]) -> Point:
    """Mean and interval of true rewards, one a prompt."""
    found = bootstrap_mean(rewards, within=(0, 1))
    return {"reward": found.value, "low": found.low, "high": found.high}


def _shifts(
    policy: PreTrainedModel, reference: PreTrainedModel, tokenizer: Any, held: Rows
) -> Point:
    """Mean log-ratio of the held-out chosen and of the rejected responses."""
    prompts = [row["prompt"] for row in held]
    found = {}
    for side in ("chosen", "rejected"):
        ours, theirs = (
            sequence_logps(model, tokenizer, prompts, [row[side] for row in held])
            for model in (policy, reference)
        )
        found[side] = (ours - theirs).mean().item()
    return found


def answered(checkpoint: Checkpoint, start: Start) -> Point:
    """As the sessions compare: answers at temperature 0.7, judged against the SFT model's.

    Returns, a number for each row, `wins` (1, a tie 0.5, else 0) and `rewards` (the true ones).
    """
    policy = load_policy(checkpoint, start)
    texts = responses(policy, start, ANSWERING * checkpoint.temperature)
    won = win_rate(start.evaluation, texts, start.answers, start.judge)
    rewards = [start.judge.score(*one) for one in zip(start.evaluation, texts, strict=True)]
    return {"wins": list(won.points), "rewards": [round(value, 4) for value in rewards]}
