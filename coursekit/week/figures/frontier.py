"""The lab's figures: reward against KL, as the DPO paper's figure 2 (left), and win rates, also by
the number of pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .told import BLUE, GREEN, GREY, ORANGE, VERMILION, subplots, told

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
    "best of n, learned": (ORANGE, ".", ":"),
    "best of n, true": (VERMILION, ".", ":"),
}
SETTINGS = {"0.05": "o", "0.1": "s", "0.5": "P", "1": "^", "5": "X"}  # markers by how it ends
OPTIMUM = "optimum"


def _frontier_in_words(means: pd.DataFrame, sft_reward: float, most: float | None = None) -> str:
    best = means.loc[means.groupby("curve", sort=False)["reward"].idxmax()]
    curves = "; ".join(
        f"{row.curve} reaches {row.reward:.3f} at {row.kl:.2f}" for row in best.itertuples()
    )
    return (
        "True reward over KL from the SFT model, in nats a response, a line a method. "
        f"The SFT model has {sft_reward:.3f} at 0; {curves}."
    )


@told(_frontier_in_words)
def plot_frontier(means: pd.DataFrame, sft_reward: float, most: float | None = None) -> Figure:
    """Expected true reward against KL from the SFT model: a point a checkpoint, a line a curve.

    Args:
        means: as from `lab.record.mean_over_seeds`; bars reach from the least seed to the greatest.
        sft_reward: of the SFT model, at a KL of 0.
        most: the right end of the left panel, nats; the right one shows all, on a logarithmic axis.
    """
    most = most or _typical(means)
    figure, (near, far) = subplots(
        1, 2, figsize=(11, 4.6), width_ratios=[3, 2], layout="constrained"
    )
    for axes, start in ((near, [(0.0, sft_reward)]), (far, [])):
        for curve, points in means.groupby("curve", sort=False):
            _draw_curve(axes, curve, points.sort_values("place"), start)
        axes.axhline(sft_reward, color=GREY, lw=0.8)
    near.set(
        title="The frontier",
        xlabel="KL(policy || SFT), nats a response",
        ylabel="true reward, mean of unseen prompts",
        xlim=(0, most),
        ylim=_span(means[means["kl"] <= most], sft_reward),
    )
    far.set(title="All of it", xlabel="the same, logarithmic", xscale="log")
    figure.legend(*near.get_legend_handles_labels(), loc="outside right center")
    return figure


def _typical(means: pd.DataFrame) -> float:
    """A KL that three quarters of the checkpoints keep below."""
    return float(np.quantile(means["kl"], 0.75)) * 1.1


def _span(points: pd.DataFrame, sft_reward: float) -> tuple[float, float]:
    """The ends of an axis on which these rewards are seen, with their bars."""
    low, high = min(points["reward_low"].min(), sft_reward), points["reward_high"].max()
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _draw_curve(
    axes: Axes, curve: str, points: pd.DataFrame, start: list[tuple[float, float]]
) -> None:
    """A method's checkpoints in their order, from `start` on. The optimum is a line alone."""
    colour, marker, line = next(
        (look for name, look in LOOKS.items() if curve.startswith(name)), (SKY, "^", "-")
    )
    marker = SETTINGS.get(curve.rsplit(" ", 1)[-1], marker)
    path = np.array([*start, *zip(points["kl"], points["reward"], strict=True)])  # (N, 2)
    if curve == OPTIMUM:
        axes.plot(*path.T, color="black", lw=1.4, label="optimum: no policy is above")
        return
    axes.plot(*path.T, line, color=colour, lw=1)
    axes.errorbar(
        points["kl"],
        points["reward"],
        yerr=_reach(points, "reward"),
        xerr=_reach(points, "kl"),
        fmt=marker,
        ms=5,
        color=colour,
        elinewidth=0.6,
        alpha=0.8,
        label=curve,
    )


def _reach(points: pd.DataFrame, name: str) -> np.ndarray:
    """How far the least and the greatest seed lie from the mean, (2, N)."""
    below, above = points[name] - points[f"{name}_low"], points[f"{name}_high"] - points[name]
    return np.array([below, above]).clip(min=0)


def _wins_in_words(table: pd.DataFrame, title: str) -> str:
    lines = "; ".join(
        f"{row.curve} {row.rate:.1%} ({row.low:.1%} to {row.high:.1%})"
        for row in table.rename(columns={"win rate": "rate"}).itertuples()
    )
    end = "" if title.endswith("?") else "."
    return f"{title}{end} Win rate over the SFT model with its 95 % interval: {lines}."


@told(_wins_in_words)
def plot_wins(table: pd.DataFrame, title: str) -> Figure:
    """Win rate over the SFT model, a line a curve: interval over rows, and single seeds.

    table: as from `lab.record.win_table`.
    """
    figure, axes = subplots(figsize=(8, 0.8 + 0.38 * len(table)))
    places = np.arange(len(table))
    values = 100 * table["win rate"]
    reach = 100 * np.array([table["win rate"] - table["low"], table["high"] - table["win rate"]])
    axes.errorbar(values, places, xerr=reach, fmt="o", color=BLUE, label="mean, 95 % interval")
    for place, seeds in zip(places, table["seeds"], strict=True):
        axes.plot([100 * one for one in seeds], [place] * len(seeds), "|", color=GREY)
    axes.plot([], [], "|", color=GREY, label="single seeds")
    axes.axvline(50, color=GREY, linestyle=":", label="no better than SFT")
    axes.set_yticks(places, table["curve"])
    axes.set(title=title, xlabel="win rate over SFT, %", ylim=(len(table) - 0.5, -0.5))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _sizes_in_words(table: pd.DataFrame) -> str:
    return _wins_in_words(table, "By which pairs, and how many of them")


@told(_sizes_in_words)
def plot_sizes(table: pd.DataFrame) -> Figure:
    """Win rate over the SFT model by the number of pairs, a line a way to choose them.

    table: as from `lab.record.win_table` of the study `data`, whose curves are "choice, number".
    """
    figure, axes = subplots(figsize=(8, 4.2))
    named = table["curve"].str.rsplit(", ", n=1, expand=True)
    by_choice = table.assign(choice=named[0], pairs=named[1].astype(int)).groupby("choice")
    looks = {"all": (BLUE, "o"), "widest": (VERMILION, "^"), "one a prompt": (GREEN, "s")}
    for place, (choice, (colour, marker)) in enumerate(looks.items()):
        rows = by_choice.get_group(choice)
        at = rows["pairs"] * 1.04**place  # beside one another
        values = 100 * rows["win rate"]
        reach = 100 * np.array([rows["win rate"] - rows["low"], rows["high"] - rows["win rate"]])
        axes.errorbar(at, values, yerr=reach, fmt=f"{marker}-", color=colour, lw=1, label=choice)
        for x, seeds in zip(at, rows["seeds"], strict=True):
            axes.plot([x] * len(seeds), [100 * one for one in seeds], "_", color=colour, ms=4)
    axes.axhline(50, color=GREY, linestyle=":", label="no better than SFT")
    axes.set(xlabel="pairs to train on", ylabel="win rate over SFT, %", xscale="log")
    sizes = sorted(set(named[1].astype(int)))
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.minorticks_off()
    axes.legend(loc="lower right", title="which pairs")
    return figure
