"""The lab's figures: reward against KL, as the DPO paper's figure 2 (left), and win rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from .results import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILION

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PURPLE, SKY = "#CC79A7", "#56B4E9"  # Okabe and Ito's too
# By how a curve's name begins: colour, marker, line.
LOOKS = {
    "DPO": (BLUE, "o", "-"),
    "preferred-FT": (GREEN, "s", "-"),
    "unlikelihood": (PURPLE, "v", "-"),
    "RLOO, learned": (ORANGE, "D", "-"),
    "RLOO, true": (VERMILION, "D", "-"),
    "SFT, cooler": (GREY, "x", "--"),
    "best of n, learned": (ORANGE, "", ":"),
    "best of n, true": (VERMILION, "", ":"),
}
OPTIMUM = "optimum"


def plot_frontier(means: pd.DataFrame, sft_reward: float, most: float | None = None) -> Figure:
    """Expected true reward against KL from the SFT model: a point a checkpoint, a line a curve.

    Args:
        means: as from `lab.record.mean_over_seeds`; bars reach from the least seed to the greatest.
        sft_reward: of the SFT model, at a KL of 0.
        most: the right end of the left panel, nats; the right one shows all, on a logarithmic axis.
    """
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, 2, figsize=(11, 4.6), sharey=True, width_ratios=[3, 2], layout="constrained"
        )
        near, far = panels
        for axes in panels:
            _draw_optimum(axes, means, sft_reward)
            for curve, points in means.groupby("curve", sort=False):
                if curve != OPTIMUM:
                    _draw_curve(axes, curve, points, sft_reward)
            axes.axhline(sft_reward, color=GREY, lw=0.8)
        near.set(
            title="The frontier",
            xlabel="KL(policy || SFT), nats a response",
            ylabel="true reward, mean of unseen prompts",
            xlim=(0, most or _typical(means)),
        )
        far.set(title="All of it", xlabel="the same, logarithmic", xscale="log")
        far.set_xlim(left=max(0.01, means["kl"].clip(lower=0.01).min()))
        figure.legend(*near.get_legend_handles_labels(), loc="outside right center")
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def _typical(means: pd.DataFrame) -> float:
    """A KL that three quarters of the checkpoints keep below."""
    return float(np.quantile(means["kl"], 0.75)) * 1.1


def _draw_optimum(axes: Axes, means: pd.DataFrame, sft_reward: float) -> None:
    """The most that any policy can have, as the edge of a shaded region."""
    best = means[means["curve"] == OPTIMUM].sort_values("kl")
    if best.empty:
        return
    kl, reward = [0.0, *best["kl"]], [sft_reward, *best["reward"]]
    axes.plot(kl, reward, color="black", lw=1.2, label="optimum: no policy is above")


def _draw_curve(axes: Axes, curve: str, points: pd.DataFrame, sft_reward: float) -> None:
    """A method's checkpoints in their order, from the SFT model on."""
    colour, marker, line = next(
        (look for name, look in LOOKS.items() if curve.startswith(name)), (SKY, "^", "-")
    )
    setting = curve.rsplit(" ", 1)[-1]
    alpha = {"0.05": 1.0, "0.1": 0.8, "1": 0.6, "5": 0.4}.get(setting, 1.0)
    ordered = points.sort_values("place")
    axes.plot(
        [0, *ordered["kl"]], [sft_reward, *ordered["reward"]], line, color=colour, alpha=alpha, lw=1
    )
    axes.errorbar(
        ordered["kl"],
        ordered["reward"],
        yerr=_reach(ordered, "reward"),
        xerr=_reach(ordered, "kl"),
        fmt=marker or ".",
        ms=4,
        color=colour,
        alpha=alpha,
        elinewidth=0.7,
        label=curve,
    )


def _reach(points: pd.DataFrame, name: str) -> np.ndarray:
    """How far the least and the greatest seed lie from the mean, (2, N)."""
    below, above = points[name] - points[f"{name}_low"], points[f"{name}_high"] - points[name]
    return np.array([below, above]).clip(min=0)


def plot_wins(table: pd.DataFrame, title: str) -> Figure:
    """Win rate over the SFT model, a line a curve: interval over rows, and single seeds.

    table: as from `lab.record.win_table`.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 0.8 + 0.38 * len(table)))
        places = np.arange(len(table))
        values = 100 * table["win rate"]
        reach = 100 * np.array(
            [table["win rate"] - table["low"], table["high"] - table["win rate"]]
        )
        axes.errorbar(values, places, xerr=reach, fmt="o", color=BLUE, label="mean, 95 % interval")
        for place, seeds in zip(places, table["seeds"], strict=True):
            axes.plot([100 * one for one in seeds], [place] * len(seeds), "|", color=GREY)
        axes.plot([], [], "|", color=GREY, label="single seeds")
        axes.axvline(50, color=GREY, linestyle=":", label="no better than SFT")
        axes.set_yticks(places, table["curve"])
        axes.set(title=title, xlabel="win rate over SFT, %", ylim=(len(table) - 0.5, -0.5))
        axes.legend(loc="best")
    plt.close(figure)
    return figure
