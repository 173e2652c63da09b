"""Figures from plain data, in one style, with colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .preferences import Audit

# Okabe and Ito's palette: blue, vermilion, green, grey, orange.
BLUE, VERMILION, GREEN, GREY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#7F7F7F", "#E69F00"

STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def plot_training(history: Sequence[dict[str, Any]]) -> Figure:
    """What a DPO run logged: the loss, the two implicit rewards, and the margin between them.

    `history`: TRL's metrics a step, as in `TrainingRun.history`; validation points where logged.
    """
    frame = pd.DataFrame(history)
    train = frame[frame["loss"].notna()]
    validation = frame[frame["eval_loss"].notna()] if "eval_loss" in frame else None
    steps = range(1, len(train) + 1)
    with plt.rc_context(STYLE):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2))
        left.plot(steps, train["loss"], color=BLUE, label="train")
        left.axhline(0.6931, color=GREY, linestyle=":", label="ln 2, no preference")
        left.set(title="Loss", xlabel="step", ylabel="nats")
        middle.plot(steps, train["rewards/chosen"], color=GREEN, label="chosen")
        middle.plot(
            steps, train["rewards/rejected"], color=VERMILION, linestyle="--", label="rejected"
        )
        middle.axhline(0, color=GREY, linestyle=":")
        middle.set(title="Implicit rewards", xlabel="step", ylabel="nats, times beta")
        right.plot(steps, train["rewards/margins"], color=BLUE, label="train")
        right.set(title="Margin (reward gap)", xlabel="step", ylabel="nats, times beta")
        if validation is not None and len(validation):
            at = [(train["epoch"] <= epoch).sum() for epoch in validation["epoch"]]
            marks = {"color": ORANGE, "marker": "o", "linestyle": "none", "label": "validation"}
            left.plot(at, validation["eval_loss"], **marks)
            right.plot(at, validation["eval_rewards/margins"], **marks)
        for axes in (left, middle, right):
            axes.legend()
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_comparison(table: pd.DataFrame, models: Sequence[str]) -> Figure:
    """The mean of each metric for each model, side by side.

    `table`: as from `evaluation.comparison_table`; metrics on a scale from 0 to 1 only.
    """
    metrics = [name for name in table.index if name != "length"]
    colours = [GREY, ORANGE, BLUE, GREEN]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 3.4))
        width = 0.8 / len(models)
        for index, model in enumerate(models):
            positions = [at + (index - (len(models) - 1) / 2) * width for at in range(len(metrics))]
            bars = axes.bar(
                positions,
                table.loc[metrics, model],
                width * 0.92,
                color=colours[index],
                label=model,
            )
            axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
        axes.set(ylabel="mean score", ylim=(0, 1.12), yticks=[0, 0.25, 0.5, 0.75, 1.0])
        axes.set_xticks(range(len(metrics)), metrics)
        axes.grid(axis="x", visible=False)
        axes.legend(ncols=len(models), loc="upper center", bbox_to_anchor=(0.5, 1.16))
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_audit(audit: Audit) -> Figure:
    """An audit in four pictures: faulty rows, what wins how often, lengths, the judge's margins."""
    with plt.rc_context(STYLE):
        figure, ((faults, shares), (lengths, margins)) = plt.subplots(
            2, 2, figsize=(10, 6), height_ratios=[3, 2]
        )
        _draw_faults(faults, audit)
        _draw_shares(shares, audit)
        for axes, values, title, unit in (
            (lengths, audit.length_differences, "Length: chosen less rejected", "characters"),
            (margins, audit.margins, "Judge's score: chosen less rejected", "points"),
        ):
            axes.set(title=title, xlabel=unit, ylabel="triples")
            axes.grid(axis="x", visible=False)
            if not values:
                axes.text(0.5, 0.5, "not in the data", ha="center", transform=axes.transAxes)
                continue
            axes.hist(values, bins=30, color=BLUE)
            axes.axvline(0, color=GREY, linestyle=":")
            mean = float(np.mean(values))
            axes.axvline(mean, color=ORANGE, label=f"mean {mean:+.2g}")
            axes.legend()
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def _draw_faults(axes: Axes, audit: Audit) -> None:
    found = [item for item in audit.findings if item.outcome == "fault"]
    axes.set(title="Rows with a fault", xlabel="% of the triples")
    axes.grid(axis="y", visible=False)
    if not found:
        axes.set(yticks=[], xlim=(0, 5))
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
        return
    percent = [100 * len(item.rows) / audit.n for item in found]
    bars = axes.barh([item.check for item in found], percent, color=VERMILION, height=0.6)
    axes.bar_label(bars, [f"{len(item.rows)}" for item in found], padding=3, fontsize=9)
    axes.set_ylim(max(len(found), 4) - 0.5, -0.5)  # a single bar should not fill the panel
    axes.margins(x=0.12)


def _draw_shares(axes: Axes, audit: Audit) -> None:
    measured = {name: share for name, share in audit.shares.items() if share.n}
    for place, share in enumerate(measured.values()):
        style = (
            {"color": VERMILION, "marker": "D"} if share.sure else {"color": BLUE, "marker": "o"}
        )
        axes.plot(
            [100 * share.low, 100 * share.high], [place, place], color=style["color"], linewidth=2
        )
        axes.plot(100 * share.value, place, linestyle="none", **style)
    axes.axvline(50, color=GREY, linestyle=":")
    axes.set(title="What wins how often", xlabel="% of pairs, with 95 % interval", xlim=(0, 100))
    axes.set_yticks(range(len(measured)), list(measured))
    axes.set_ylim(len(measured) - 0.5, -0.5)
    axes.plot([], [], color=VERMILION, marker="D", linestyle="none", label="not chance (p < 0.001)")
    axes.plot([], [], color=BLUE, marker="o", linestyle="none", label="could be chance")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def plot_label_noise(table: pd.DataFrame, margin: float) -> Figure:
    """Win rate against wrong labels, DPO beside robust DPO; and how hard each loss pulls.

    table: as from `label_noise.noise_table`. margin: the largest that these runs reached, to show
    which part of the right picture they saw.
    """
    styles = {"DPO": (BLUE, "o", -0.4), "robust DPO": (ORANGE, "s", 0.4)}
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
        for loss, (colour, marker, shift) in styles.items():
            rows = table[table["loss"] == loss]
            at = 100 * rows["rate"] + shift
            left.errorbar(
                at,
                100 * rows["win_rate"],
                100 * np.array([rows["win_rate"] - rows["low"], rows["high"] - rows["win_rate"]]),
                color=colour,
                marker=marker,
                label=loss,
            )
            for place, seeds in zip(at, rows["seeds"], strict=True):
                left.plot(
                    [place] * len(seeds), [100 * value for value in seeds], ".", color=GREY, ms=4
                )
        left.plot([], [], ".", color=GREY, label="single seeds")
        left.axhline(50, color=GREY, linestyle=":", label="no better than SFT")
        left.set(title="What wrong labels cost", xlabel="wrong labels, %", ylabel="win rate, %")
        left.legend()
        _draw_pulls(right, margin)
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def _draw_pulls(axes: Axes, margin: float) -> None:
    """-dL/dz of each loss, z the margin, in units of its value at z = 0."""
    z = np.linspace(-4, 4, 201)
    low, high = 1 / (1 + np.exp(z)), 1 / (1 + np.exp(-z))  # sigma(-z), sigma(z)
    axes.plot(z, low / 0.5, color=BLUE, label="DPO")
    for rate, style in ((0.1, "--"), (0.4, ":")):
        pull = ((1 - rate) * low + rate * high) / (1 - 2 * rate)
        axes.plot(
            z, pull / (0.5 / (1 - 2 * rate)), style, color=ORANGE, label=f"robust, {rate:.0%}"
        )
    axes.axvspan(-margin, margin, color=GREY, alpha=0.25, label="mean margins of these runs")
    axes.set(
        title="How hard each loss pulls",
        xlabel="margin of the pair, nats times beta",
        ylabel="pull, 1 at margin 0",
        ylim=(0, None),
    )
    axes.legend()
