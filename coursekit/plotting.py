"""Figures from plain data, in one style, with colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
