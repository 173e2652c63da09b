"""The figures of session A, in the style of `results`: the pipeline, the optimum, the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...lm.losses import cdpo_loss, dpo_loss, ipo_loss, robust_dpo_loss, simpo_loss
from ..bandit import World, expected_reward, kl_divergence, optimal_policy
from . import theory_in_words as words
from .labels import label_points
from .told import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, subplots, told

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor


@told(words.pipeline, **{"axes.grid": False})
def plot_pipeline() -> Figure:
    """The three stages of RLHF, and what DPO leaves of them."""
    boxes = [
        *zip((0, 1, 2), (1, 1, 1), words.STAGES, (GREY, ORANGE, VERMILION), strict=True),
        (1.5, 0, words.DPO_STAGE, BLUE),
    ]
    figure, axes = subplots(figsize=(9, 2.6))
    for x, y, text, colour in boxes:
        axes.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize=10,
            bbox={"boxstyle": "round,pad=0.6", "fc": "white", "ec": colour, "lw": 2},
        )
    arrow = {"arrowstyle": "->", "color": "#444", "lw": 1.5, "shrinkA": 4, "shrinkB": 4}
    for start, end in (((0.34, 1), (0.6, 1)), ((1.4, 1), (1.64, 1)), ((0.2, 0.72), (0.9, 0.1))):
        axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
    axes.set(xlim=(-0.45, 2.5), ylim=(-0.4, 1.5))
    axes.axis("off")
    return figure


@told(words.reward_fit)
def plot_reward_fit(rewards: Mapping[str, Tensor], truth: Tensor) -> Figure:
    """Fitted against true rewards of every response, one panel for each number of pairs.

    Both are shifted to mean 0 at each prompt: only differences within a prompt mean anything.
    """
    figure, panels = subplots(
        1, len(rewards), figsize=(3.2 * len(rewards), 3.1), sharex=True, sharey=True
    )
    true = truth - truth.mean(-1, keepdim=True)
    for axes, (name, fitted) in zip(panels, rewards.items(), strict=True):
        centred = fitted - fitted.mean(-1, keepdim=True)
        axes.axline((0, 0), slope=1, color=GREY, linestyle=":")
        axes.scatter(true.flatten(), centred.flatten(), s=16, color=ORANGE, edgecolor="#5a3d00")
        axes.set(title=name, xlabel="true reward")
    panels[0].set_ylabel("fitted reward")
    return figure


@told(words.overoptimisation)
def plot_overoptimisation(paths: Mapping[float, pd.DataFrame]) -> Figure:
    """Proxy and true reward along the optimisation, one panel for each beta.

    `paths`: for each beta, as from `bandit.overoptimise`; thin lines are single worlds' true
    rewards, thick ones means over worlds.
    """
    figure, panels = subplots(
        1, len(paths), figsize=(3.4 * len(paths), 3.1), sharey=True, sharex=True
    )
    for axes, (beta, path) in zip(panels, paths.items(), strict=True):
        for _, world in path.groupby("seed"):
            axes.plot(world["step"], world["true"], color=BLUE, alpha=0.15, linewidth=0.8)
        mean = path.groupby("step")[["proxy", "true"]].mean()
        axes.plot(mean["proxy"], "--", color=ORANGE, lw=2, label="reward model (proxy)")
        axes.plot(mean["true"], color=BLUE, lw=2, label="true reward")
        axes.axhline(0, color=GREY, linestyle=":")
        title = "KL term off" if beta == 0 else f"KL term on, beta = {beta:g}"
        axes.set(title=title, xlabel="optimisation step")
    panels[0].set_ylabel("expected reward")
    panels[-1].legend(loc="upper left")
    return figure


@told(words.frontier)
def plot_frontier(paths: Mapping[float, pd.DataFrame]) -> Figure:
    """What each nat of KL buys in true reward, a line for each beta; a dot is where it ends.

    `paths`: for each of up to three betas, as from `bandit.overoptimise`; means over worlds at
    each step.
    """
    looks = zip((GREY, VERMILION, BLUE), (5, 2.5, 2.5), ("-", "--", ":"), strict=True)
    figure, axes = subplots(figsize=(6.5, 3.2))
    for (beta, path), (colour, width, line) in zip(paths.items(), looks, strict=False):
        mean = path.groupby("step")[["kl", "true"]].mean()
        label = "KL term off" if beta == 0 else f"beta = {beta:g}"
        axes.plot(mean["kl"], mean["true"], line, color=colour, lw=width, label=label)
        axes.plot(mean["kl"].iloc[-1], mean["true"].iloc[-1], "o", color=colour, ms=8)
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="KL from pi_ref, nats", ylabel="expected true reward")
    axes.legend()
    return figure


def draw_optimum(axes: Axes, world: World, beta: float, prompt: int = 0) -> None:
    """The reference and the optimal policy at one prompt, responses sorted by reward."""
    order = world.reward[prompt].argsort()
    best = optimal_policy(world.log_reference, world.reward, beta)[prompt, order].exp()
    places = np.arange(len(order))
    axes.bar(
        places - 0.2, world.log_reference[prompt, order].exp(), 0.4, color=GREY, label="pi_ref"
    )
    axes.bar(places + 0.2, best, 0.4, color=BLUE, label="optimum")
    axes.set(ylim=(0, 1), xlabel="responses, by true reward", xticks=[])
    axes.set_title(f"beta = {beta:.3g}")


@told(words.optimum)
def plot_optimum(world: World, beta: float, prompt: int = 0) -> Figure:
    """The reference and the optimal policy at one prompt."""
    figure, axes = subplots(figsize=(5, 2.8))
    draw_optimum(axes, world, beta, prompt)
    axes.legend(loc="upper left")
    return figure


@told(words.optima)
def plot_optima(world: World, betas: Sequence[float]) -> Figure:
    """How far the optimum lies from the reference, as small multiples over beta."""
    figure, panels = subplots(1, len(betas), figsize=(2.8 * len(betas), 2.8), sharey=True)
    for axes, beta in zip(panels, betas, strict=True):
        draw_optimum(axes, world, beta)
    panels[0].set_ylabel("probability")
    panels[0].legend(loc="upper left")
    return figure


@told(words.beta)
def plot_beta(world: World, betas: Sequence[float], mark: float | None = None) -> Figure:
    """Beta from both sides: the first gradient, the distance of the optimum, and the frontier."""
    kl, reward = [], []
    for beta in betas:
        best = optimal_policy(world.log_reference, world.reward, beta)
        kl.append(kl_divergence(best, world.log_reference).mean().item())
        reward.append(expected_reward(best, world.reward).mean().item())
    figure, (left, middle, right) = subplots(1, 3, figsize=(11, 3.1))
    left.loglog(betas, [beta / 2 for beta in betas], color=VERMILION)
    left.set(title="First gradient", xlabel="beta", ylabel="|d loss / d h| at the start")
    middle.loglog(betas, kl, color=BLUE)
    middle.set(title="Distance of the optimum", xlabel="beta", ylabel="KL from pi_ref, nats")
    right.plot(kl, reward, color=BLUE)
    right.set(title="The frontier", xlabel="KL from pi_ref, nats", ylabel="expected reward")
    labels: list[tuple[float, float, str, str]] = []
    labelled = [mark] if mark else [b for b in betas if b in (0.1, 0.3, 1, 3, 10)]
    for beta in labelled:
        best = optimal_policy(world.log_reference, world.reward, beta)
        point = (
            kl_divergence(best, world.log_reference).mean().item(),
            expected_reward(best, world.reward).mean().item(),
        )
        left.plot(beta, beta / 2, "o", color=VERMILION)
        middle.plot(beta, point[0], "o", color=BLUE)
        right.plot(*point, "o", color=BLUE)
        labels.append((*point, f"beta {beta:g}", INK[BLUE]))
    label_points(right, labels)
    return figure


@told(words.estimators)
def plot_estimators(results: pd.DataFrame) -> Figure:
    """Mean regret and its 95 % interval over worlds, for each condition and method."""
    summary = results.groupby(["condition", "method"], sort=False)["regret"].agg(["mean", "sem"])
    conditions = list(dict.fromkeys(results["condition"]))
    style = {"reference": (GREY, "s"), "DPO": (BLUE, "o"), "RLHF": (VERMILION, "^")}
    figure, axes = subplots(figsize=(8.5, 3.4))
    for shift, (method, (colour, marker)) in zip((-0.2, 0, 0.2), style.items(), strict=True):
        rows = summary.xs(method, level="method").loc[conditions]
        axes.errorbar(
            np.arange(len(conditions)) + shift,
            rows["mean"],
            1.96 * rows["sem"],
            fmt=marker,
            color=colour,
            capsize=3,
            label={"reference": "no training", "RLHF": "reward model + policy gradient"}.get(
                method, method
            ),
        )
    axes.set_xticks(np.arange(len(conditions)), conditions)
    axes.set(ylabel="regret (0: optimal)", ylim=(-0.02, None))
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    return figure


@told(words.loss_family)
def plot_loss_family(beta: float = 0.3, label_smoothing: float = 0.1) -> Figure:
    """The losses of a pair against h, KTO's of one response, SimPO's against means."""
    h = torch.linspace(-15, 15, 301, dtype=torch.float64)
    zero = torch.zeros_like(h)
    smooth = {"beta": beta, "label_smoothing": label_smoothing}
    curves = {
        "DPO": (dpo_loss(h, zero, zero, zero, beta=beta)[0], BLUE, "-"),
        "cDPO": (cdpo_loss(h, zero, zero, zero, **smooth)[0], GREEN, "--"),
        "robust DPO": (robust_dpo_loss(h, zero, zero, zero, **smooth)[0], VERMILION, "-."),
        "IPO, divided by 50": (ipo_loss(h, zero, zero, zero, beta=beta)[0] / 50, ORANGE, ":"),
    }
    figure, (left, middle, right) = subplots(1, 3, figsize=(11, 3.3))
    for name, (loss, colour, line) in curves.items():
        left.plot(h, loss, line, color=colour, label=name)
    left.axvline(1 / (2 * beta), color=ORANGE, linewidth=0.8)
    left.set(
        title=f"Of a pair (beta {beta:g}, e {label_smoothing:g})",
        xlabel="h, nats (sums)",
        ylabel="loss",
        ylim=(-0.6, 5),
    )
    for name, sign, colour, line in (
        ("desirable", 1, GREEN, "-"),
        ("undesirable", -1, VERMILION, "--"),
    ):
        middle.plot(h, 1 - torch.sigmoid(sign * beta * (h - 2)), line, color=colour, label=name)
    middle.axvline(2, color=GREY, linestyle=":", label="z = 2")
    middle.set(title="KTO: of one response", xlabel="log-ratio, nats (sum)")
    m = torch.linspace(-3, 3, 121, dtype=torch.float64)
    simpo = simpo_loss(m, torch.zeros_like(m), beta=2.0, gamma=1.0)[0]
    right.plot(m, simpo, color=BLUE, label="SimPO, beta 2, gamma 1")
    right.axvline(0.5, color=GREY, linestyle=":", label="gamma / beta")
    right.set(title="SimPO: no reference", xlabel="difference, nats a token (means)")
    for axes in (left, middle, right):
        axes.legend()
    return figure


@told(words.margins)
def plot_margins(paths: Mapping[str, Sequence[float]], targets: Mapping[str, float]) -> Figure:
    """h over gradient steps on one pair whose preference never varies; dotted: where it settles."""
    lines = {"DPO": (BLUE, "-"), "cDPO": (GREEN, "--"), "IPO": (ORANGE, "-.")}
    figure, axes = subplots(figsize=(6.5, 3.2))
    for name, path in paths.items():
        colour, line = lines[name]
        axes.plot(range(1, len(path) + 1), path, line, color=colour, label=name)
        if name in targets:
            axes.axhline(targets[name], color=colour, linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel="gradient step (log scale)", ylabel="h, nats")
    axes.legend()
    return figure


@told(words.group_advantages)
def plot_group_advantages(rewards: Sequence[float]) -> Figure:
    """GRPO in one figure: a group's rewards, its mean, and each response's advantage."""
    values = np.asarray(rewards, dtype=float)
    spread = values.std()
    advantages = (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
    figure, (left, right) = subplots(1, 2, figsize=(8.5, 2.8))
    places = np.arange(1, len(values) + 1)
    left.bar(places, values, color=GREY)
    left.axhline(values.mean(), color=BLUE, linestyle="--", label="the group's mean")
    left.set(title="Rewards of one group", xlabel="response", ylabel="reward", xticks=places)
    left.set_ylim(0, values.max() * 1.3 or 1)
    left.legend(loc="upper right")
    colours = [GREEN if advantage > 0 else VERMILION for advantage in advantages]
    right.bar(places, advantages, color=colours)
    right.axhline(0, color="#444", linewidth=0.8)
    right.set(
        title="Advantages: push up, push down",
        xlabel="response",
        ylabel="(reward − mean) / std",
        xticks=places,
    )
    return figure
