"""What can be had from the SFT model's samples, without training: best of n, and the optimum.

Everything is computed from N samples a prompt, of the SFT model at temperature 1, and their true
rewards: an array (X, N) for X prompts.
"""

from __future__ import annotations

from math import comb, log

import numpy as np


def best_of_n_kl(n: int) -> float:
    """How far the best of `n` samples is from a single one, at most: log n - (n - 1) / n, nats.

    An upper bound on KL(best of n || SFT), and its value where no two responses have the same score
    (Beirami et al. 2024, arXiv:2401.01879, theorem 1). With equal scores the KL is less.

    Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: the best of at least one sample")
    return log(n) - (n - 1) / n


def best_of_n_reward(rewards: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """The expected reward of the sample with the highest score among `n`, for each prompt, (X,).

    Averaged over all ways to draw n of the N samples without replacement, which has less variance
    than one draw and no bias: the sample of rank i, from 1, is the best of comb(i - 1, n - 1) of
    the comb(N, n) draws.

    Args:
        rewards: the true ones, (X, N). scores: what the choice is made by, (X, N); of equal ones
            the order is the samples' own.

    Raises ValueError for n outside 1 to N.
    """
    total = rewards.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"n is {n}, with {total} samples a prompt: from 1 to that many")
    shares = np.array([comb(rank, n - 1) / comb(total, n) for rank in range(total)])
    order = np.argsort(scores, axis=1, kind="stable")
    return np.take_along_axis(rewards, order, axis=1) @ shares


def best_trade(rewards: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Reward and KL of the optimal policy pi_SFT exp(r / beta) / Z, for each prompt, (X,) each.

    No policy has a higher reward at this KL (DPO paper, arXiv:2305.18290, equation 4): what every
    method is to be compared with. Estimated by weighting the samples (self-normalised importance
    sampling). Of N samples it sees a KL of log N at most, and finds too little of both where the
    best responses are rarer than one in N.

    Raises ValueError unless beta > 0.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}: it must be greater than 0")
    tilted = np.exp((rewards - rewards.max(1, keepdims=True)) / beta)
    weights = tilted / tilted.sum(1, keepdims=True)  # (X, N)
    ratio = np.where(weights > 0, weights * rewards.shape[1], 1.0)  # pi / pi_SFT
    return (weights * rewards).sum(1), (weights * np.log(ratio)).sum(1)
