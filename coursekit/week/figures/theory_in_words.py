"""What the figures of `theory` show, in words: of the same arguments, with the data's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...lm.losses import cdpo_loss, dpo_loss, ipo_loss, robust_dpo_loss
from ..bandit import World, expected_reward, kl_divergence, optimal_policy

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

# The stages of RLHF, and the one that is left of them.
STAGES = (
    "1 · SFT\nimitate demonstrations",
    "2 · reward model\nfit Bradley-Terry to pairs",
    "3 · RL with a KL term\nmaximise E[r] − β KL",
)
DPO_STAGE = "DPO: one supervised stage on the same pairs"


def pipeline() -> str:
    stages = " → ".join(text.replace("\n", ": ") for text in STAGES)
    return f"Boxes and arrows: {stages}. A second arrow leads from SFT straight to {DPO_STAGE}."


def reward_fit(rewards: Mapping[str, Tensor], truth: Tensor) -> str:
    true = (truth - truth.mean(-1, keepdim=True)).flatten()
    fits = []
    for name, fitted in rewards.items():
        centred = (fitted - fitted.mean(-1, keepdim=True)).flatten()
        r = torch.corrcoef(torch.stack([true, centred]))[0, 1].item()
        error = (centred - true).abs().mean().item()
        fits.append(f"{name}, correlation {r:.2f}, mean error {error:.2f}")
    return f"Fitted against true reward of {true.numel()} responses: {'; '.join(fits)}."


def _term(beta: float) -> str:
    return "KL term off" if beta == 0 else f"beta {beta:g}"


def overoptimisation(paths: Mapping[float, pd.DataFrame]) -> str:
    said = []
    for beta, path in paths.items():
        mean = path.groupby("step")[["proxy", "true"]].mean()
        said.append(
            f"{_term(beta)}, proxy {mean['proxy'].iloc[-1]:.2f} at the end, true reward at most "
            f"{mean['true'].max():.2f} (step {mean['true'].idxmax()}), "
            f"{mean['true'].iloc[-1]:.2f} at the end"
        )
    return f"Proxy and true reward over optimisation steps, means over worlds: {'; '.join(said)}."


def frontier(paths: Mapping[float, pd.DataFrame]) -> str:
    said = []
    for beta, path in paths.items():
        mean = path.groupby("step")[["kl", "true"]].mean()
        top, end = mean.loc[mean["true"].idxmax()], mean.iloc[-1]
        said.append(
            f"{_term(beta)}, at most {top['true']:.2f} at {top['kl']:.1f} nats, ends at "
            f"{end['true']:.2f} at {end['kl']:.1f} nats"
        )
    return f"True reward over KL from the reference, means over worlds: {'; '.join(said)}."


def _optimum(world: World, beta: float) -> Tensor:
    return optimal_policy(world.log_reference, world.reward, beta)


def optimum(world: World, beta: float, prompt: int = 0) -> str:
    best = world.reward[prompt].argmax()
    before = world.log_reference[prompt, best].exp().item()
    after = _optimum(world, beta)[prompt, best].exp().item()
    return (
        f"Probabilities of {world.reward.shape[1]} responses under reference and optimum at beta "
        f"{beta:.3g}: that of the best response goes from {before:.2f} to {after:.2f}."
    )


def optima(world: World, betas: Sequence[float]) -> str:
    best = world.reward[0].argmax()
    before = world.log_reference[0, best].exp().item()
    after = ", ".join(
        f"{_optimum(world, beta)[0, best].exp().item():.2f} at beta {beta:g}" for beta in betas
    )
    return (
        f"Probabilities of {world.reward.shape[1]} responses under the reference and the optimum: "
        f"the response with the highest reward has {before:.2f} under the reference, then {after}."
    )


def beta(world: World, betas: Sequence[float], mark: float | None = None) -> str:
    ends = []
    for value in (min(betas), max(betas)):
        policy = _optimum(world, value)
        kl = kl_divergence(policy, world.log_reference).mean().item()
        reward = expected_reward(policy, world.reward).mean().item()
        ends.append(
            f"at beta {value:.3g} the first gradient is {value / 2:.3g}, the optimum {kl:.2g} nats "
            f"from the reference, its expected reward {reward:.2f}"
        )
    return f"Three curves over beta: {'; '.join(ends)}."


def estimators(results: pd.DataFrame) -> str:
    summary = results.groupby(["condition", "method"], sort=False)["regret"].agg(["mean", "sem"])
    names = {"reference": "no training", "DPO": "DPO", "RLHF": "reward model + policy gradient"}
    said = []
    for condition in dict.fromkeys(results["condition"]):
        rows = summary.loc[condition]
        each = (
            f"{name} {rows.loc[method, 'mean']:.2f} ± {1.96 * rows.loc[method, 'sem']:.2f}"
            for method, name in names.items()
        )
        said.append(f"{' '.join(condition.split())}: {', '.join(each)}")
    return f"Mean regret over worlds with its 95 % interval. {'; '.join(said)}."


def loss_family(beta: float = 0.3, label_smoothing: float = 0.1) -> str:
    h = torch.tensor([-10.0, 0.0, 10.0], dtype=torch.float64)
    zero = torch.zeros_like(h)
    smooth = {"beta": beta, "label_smoothing": label_smoothing}
    losses = {
        "DPO": dpo_loss(h, zero, zero, zero, beta=beta)[0],
        "cDPO": cdpo_loss(h, zero, zero, zero, **smooth)[0],
        "robust DPO": robust_dpo_loss(h, zero, zero, zero, **smooth)[0],
        "IPO divided by 50": ipo_loss(h, zero, zero, zero, beta=beta)[0] / 50,
    }
    said = "; ".join(
        f"{name} {', '.join(f'{value:.2f}' for value in loss)}" for name, loss in losses.items()
    )
    return (
        f"Left, losses of a pair at h = -10, 0 and 10 nats: {said}; IPO is least at "
        f"{1 / (2 * beta):.2f}. Middle, KTO's losses of one response: falling for a desirable one, "
        "rising for an undesirable one. Right, SimPO's loss, falling over the difference of means."
    )


def margins(paths: Mapping[str, Sequence[float]], targets: Mapping[str, float]) -> str:
    said = []
    for name, path in paths.items():
        goes = f" (it settles at {targets[name]:.2f})" if name in targets else ""
        said.append(f"{name} {path[-1]:.2f} after {len(path):,} steps{goes}")
    return f"h of one pair over gradient steps, in nats: {'; '.join(said)}."


def group_advantages(rewards: Sequence[float]) -> str:
    values = np.asarray(rewards, dtype=float)
    spread = values.std()
    advantages = (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
    given, pushed = (
        ", ".join(form.format(value) for value in numbers)
        for form, numbers in (("{:.2f}", values), ("{:+.2f}", advantages))
    )
    return (
        f"Left, rewards of a group of {len(values)} responses: {given}; their mean is "
        f"{values.mean():.2f}. Right, their advantages: {pushed}."
    )
