"""What the SFT model gives without training: sampled cooler, or the best of n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...lm.loading import load_tokenizer
from ...lm.shared import load_shared
from ...preferences import Design, Source, sample_candidates
from .best_of_n import best_of_n_kl, best_of_n_reward, best_trade
from .points import Checkpoint, Point, Spent, reward_of
from .rewards import Reward, learned_reward, true_reward
from .start import Start
from .train import labelled


def cooler(
    start: Start, folder: Path, times: int, *, temperatures: Sequence[float]
) -> list[Checkpoint]:
    """The SFT model, sampled at lower temperatures: no training at all."""
    return [Checkpoint(start.model, 0, Spent(), temperature) for temperature in temperatures]


def best_of_n(
    start: Start, folder: Path, times: int, *, reward: str, samples: int = 32
) -> list[Point]:
    """The best of n samples of the SFT model for each answer, n = 2, 4, ... to half of `samples`.

    reward: `learned` or `true`: what chooses. The points' `kl` is the bound, without an error. What
    choosing costs is `n` samples and calls of the reward for each answer, ever anew; what is spent
    before is what the reward model was trained on.
    """
    rewards, texts = _sampled(start, samples)
    learned = reward == "learned"
    scores = _scored(learned_reward(start), start, texts) if learned else rewards
    spent = labelled(start) if learned else Spent()
    counts = [2**power for power in range(1, samples.bit_length() - 1)]
    return [
        {
            "n": n,
            **reward_of(best_of_n_reward(rewards, scores, n).tolist()),
            **{"kl": best_of_n_kl(n), "kl_se": 0.0},
            **asdict(spent),
        }
        for n in counts
    ]


def optimum(
    start: Start, folder: Path, times: int, *, betas: Sequence[float], samples: int = 32
) -> list[Point]:
    """The most true reward that any policy can have at its KL, from samples of the SFT model."""
    rewards, _ = _sampled(start, samples)
    points = []
    for beta in betas:
        reward, kl = best_trade(rewards, beta)
        error = float(kl.std(ddof=1) / len(kl) ** 0.5)
        points.append(
            {"beta": beta, **reward_of(reward.tolist()), "kl": float(kl.mean()), "kl_se": error}
        )
    return points


def _sampled(start: Start, samples: int) -> tuple[np.ndarray, list[list[str]]]:
    """True rewards, (X, N), and the texts: N responses at temperature 1 to each evaluation row.

    Kept in the start's folder: three curves are made of the same samples.
    """
    sampled = sample_candidates(
        load_shared(start.model, start.profile),
        load_tokenizer(start.model, start.profile),
        start.evaluation,
        start.profile,
        Design(f"{samples} samples", (Source("sample", samples, 1.0),)),
        start.seed,
        start.folder / f"{samples}_samples.jsonl",
    )
    texts = [[one["response"] for one in row["candidates"]] for row in sampled]
    return _scored(true_reward(start), start, texts), texts


def _scored(reward: Reward, start: Start, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """A reward of each response, (X, N)."""
    rows = [row for row, some in zip(start.evaluation, texts, strict=True) for _ in some]
    return np.array(reward(rows, [text for some in texts for text in some])).reshape(len(texts), -1)
