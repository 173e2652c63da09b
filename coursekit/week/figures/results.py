"""Figures from plain data, in one style, with colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...preferences import Audit

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


def plot_comparison(table: pd.DataFrame, models: Sequence[str]) -> Figure:
    """The mean of each metric for each model, side by side.

    `table`: as from `evaluation.comparison_table`; metrics on a scale from 0 to 1 only.
    """
    metrics = [name for name in table.index if table.loc[name, models].between(0, 1).all()]
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


def plot_monitor(metrics: pd.DataFrame) -> Figure:
    """What a watched run recorded, a line a step, as from `training.load_metrics`."""
    trained = metrics[metrics["rewards/margins"].notna()] if "rewards/margins" in metrics else None
    measured = metrics[metrics["kl/k1"].notna()]
    steps = measured["step"]
    # Laid out by hand: the solver takes half the time of drawing, which a training run waits for.
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure, axes = plt.subplots(2, 3, figsize=(11, 5.2), sharex=True)
        figure.subplots_adjust(0.07, 0.09, 0.99, 0.94, wspace=0.28, hspace=0.22)
        gap, rewards, kl, shift, entropy, length = axes.flat
        if trained is not None:
            gap.plot(trained["step"], trained["rewards/margins"], color=BLUE, lw=1, label="train")
            for side, colour, line in (("chosen", GREEN, "-"), ("rejected", VERMILION, "--")):
                values = trained[f"rewards/{side}"]
                rewards.plot(trained["step"], values, line, color=colour, lw=1, label=side)
        gap.plot(steps, measured["held/margin"], "o-", color=ORANGE, label="held out")
        gap.set(title="Margin (reward gap)", ylabel="nats, times beta")
        rewards.axhline(0, color=GREY, linestyle=":")
        rewards.set(title="Implicit rewards, training", ylabel="nats, times beta")
        for name, colour, marker in (("k1", BLUE, "o"), ("k3", GREY, "s")):
            kl.errorbar(
                steps,
                measured[f"kl/{name}"],
                2 * measured[f"kl/{name}_se"],
                color=colour,
                marker=marker,
                markersize=4,
                label=name,
            )
        kl.set(title="KL from the reference", ylabel="nats a response, ± 2 SE")
        for side, colour, line in (("chosen", GREEN, "-"), ("rejected", VERMILION, "--")):
            shift.plot(steps, measured[f"held/{side}_shift"], "o" + line, color=colour, label=side)
        shift.axhline(0, color=GREY, linestyle=":")
        shift.set(title="Held-out log-ratio", xlabel="step", ylabel="nats a token")
        entropy.plot(steps, measured["policy/entropy"], "o-", color=BLUE)
        entropy.set(title="Entropy of the policy", xlabel="step", ylabel="nats a token")
        length.plot(steps, measured["policy/length"], "o-", color=BLUE)
        length.set(title="Length of responses", xlabel="step", ylabel="tokens")
        for panel, name in ((entropy, "entropy"), (length, "length")):
            panel.set_ylim(0, 1.15 * measured[f"policy/{name}"].max())
        for panel in (gap, rewards, kl, shift):
            if panel.get_legend_handles_labels()[0]:  # before the first step there is no reward
                panel.legend()
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_frontier(table: pd.DataFrame, default: tuple[float, float]) -> Figure:
    """What each setting paid in KL, and showed as margin, for its win rate.

    table: as from `sweep.beta_sweep`. default: the (beta, learning rate) that both series share.
    """
    beta, rate = default
    series = {
        "beta": (table[np.isclose(table["learning_rate"], rate)], BLUE, "o"),
        "learning rate": (table[np.isclose(table["beta"], beta)], VERMILION, "s"),
    }
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), sharey=True)
        for name, (rows, colour, marker) in series.items():
            column = name.replace(" ", "_")
            rows = rows.sort_values(column)
            for axes, x in ((left, "kl"), (right, "gap")):
                errors = 100 * np.array(
                    [rows["win_rate"] - rows["low"], rows["high"] - rows["win_rate"]]
                )
                axes.errorbar(
                    rows[x],
                    100 * rows["win_rate"],
                    errors,
                    color=colour,
                    marker=marker,
                    linestyle=":",
                    label=f"{name} changed",
                )
                for place, (_, row) in enumerate(rows.iterrows()):
                    axes.annotate(
                        f"{row[column]:.2g}",
                        (row[x], 100 * row["win_rate"]),
                        # Betas lie close together: their labels are stacked.
                        xytext=(8, 8 + 11 * place if name == "beta" else -14),
                        textcoords="offset points",
                        color=colour,
                        fontsize=9,
                    )
        for axes in (left, right):
            axes.axhline(50, color=GREY, linestyle=":")
        left.set(title="What it paid", xlabel="KL from SFT, nats a response", ylabel="win rate, %")
        right.set(title="What the gap said", xlabel="margin / beta on training triples, nats")
        left.legend()
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_exhibit(metrics: pd.DataFrame) -> Figure:
    """One recorded run in a row of panels: margins, ranking, KL, text, and wins over SFT.

    metrics: a line a step, with `contest/win_rate` where the policy was compared. The KL's axis is
    logarithmic above 1, and the same for all runs.
    """
    trained = metrics[metrics["rewards/margins"].notna()]
    measured = metrics[metrics["kl/k1"].notna()]
    compared = metrics[metrics["contest/win_rate"].notna()]
    steps = measured["step"]
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure, axes = plt.subplots(1, 5, figsize=(12, 2.1))
        figure.subplots_adjust(0.04, 0.2, 0.995, 0.87, wspace=0.3)
        margin, ranked, kl, text, wins = axes
        margin.plot(trained["step"], trained["rewards/margins"], color=BLUE, lw=1, label="train")
        margin.plot(steps, measured["held/margin"], "o-", color=ORANGE, ms=3, label="held out")
        margin.set(title="margin, nats times beta")
        margin.legend(fontsize=8)
        smooth = trained["rewards/accuracies"].rolling(5, min_periods=1).mean()
        ranked.plot(trained["step"], 100 * smooth, color=BLUE, lw=1)
        ranked.plot(steps[1:], 100 * measured["held/accuracy"][1:], "o-", color=ORANGE, ms=3)
        ranked.set(title="ranked right, %", ylim=(0, 104))
        kl.plot(steps, measured["kl/k1"], "o-", color=BLUE, ms=3)
        # One axis for all runs, so that they can be compared.
        kl.set_yscale("symlog", linthresh=1)
        kl.set(title="KL from the reference, nats", ylim=(-0.5, 1500), yticks=[0, 1, 10, 100, 1000])
        kl.set_yticklabels(["0", "1", "10", "100", "1000"])
        for name, colour, line in (("entropy", VERMILION, "--"), ("length", GREEN, "-")):
            values = measured[f"policy/{name}"] / measured[f"policy/{name}"].iloc[0]
            text.plot(steps, values, line, color=colour, label=name)
        text.set(title="text, 1 at the start", ylim=(0, None))
        text.legend(fontsize=8)
        wins.plot(compared["step"], 100 * compared["contest/win_rate"], "D-", color=BLUE, ms=4)
        wins.axhline(50, color=GREY, linestyle=":")
        wins.set(title="wins over SFT, %", ylim=(0, 100), xlim=(0, steps.max() * 1.04))
        for panel in axes:
            panel.tick_params(labelsize=8)
            panel.title.set_fontsize(9)
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_intervals(table: pd.DataFrame, what: str) -> Figure:
    """How the interval narrows with more prompts.

    table: as from `evaluation.interval_by_prompts`; what: is on the axis.
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
        middle = (table["low"] + table["high"]) / 2
        left.errorbar(
            table["n"],
            100 * middle,
            100 * (table["high"] - table["low"]) / 2,
            fmt="o",
            color=BLUE,
            capsize=4,
            label="95 % interval, on average",
        )
        left.fill_between(
            table["n"],
            100 * table["estimate low"],
            100 * table["estimate high"],
            color=GREY,
            alpha=0.25,
            label="where 95 % of the estimates fall",
        )
        left.axhline(0, color=GREY, linestyle=":")
        left.set(xlabel="prompts", ylabel=what, title="What so many prompts show")
        left.legend()
        right.plot(table["n"], 100 * table["shown"], "o-", color=BLUE)
        right.set(
            xlabel="prompts",
            ylabel="% of the samples",
            ylim=(0, 104),
            title="How often the interval lies above zero",
        )
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_gap_and_win(runs: pd.DataFrame) -> Figure:
    """Gap, ranking and KL, each against the win rate: a point a checkpoint.

    runs: as from `gap.gap_and_win`, columns `gap`, `accuracy`, `kl`, `win_rate`, `lied`.
    """
    panels = (
        ("gap", "held-out gap / beta, nats"),
        ("accuracy", "held-out pairs ranked right, %"),
        ("kl", "KL from the reference, nats"),
    )
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True)
        for panel, (name, label) in zip(axes, panels, strict=True):
            scale = 100 if name == "accuracy" else 1
            for lied, colour, marker, text in (
                (False, BLUE, "o", "as it said"),
                (True, VERMILION, "X", "gap as wide as a healthy run's, and loses"),
            ):
                rows = runs[runs["lied"] == lied]
                panel.plot(
                    scale * rows[name],
                    100 * rows["win_rate"],
                    marker,
                    color=colour,
                    alpha=0.7,
                    label=text,
                )
            panel.axhline(50, color=GREY, linestyle=":")
            if name != "accuracy":
                panel.set_xscale("symlog", linthresh=1)
                panel.set_xlim(left=-2)
            panel.set(xlabel=label)
        axes[0].set(ylabel="win rate over SFT, %", ylim=(-4, 100))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_cases(cases: Mapping[str, pd.DataFrame]) -> Figure:
    """Recorded runs beside each other, a column each: margins, accuracies, KL, entropy and length.

    cases: metrics (a line a step) by the title of the column. The panels of a row share their axis,
    so that sizes can be compared; the KL's is logarithmic above 1.
    """
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            4, len(cases), figsize=(2.8 * len(cases), 7.4), sharey="row", squeeze=False
        )
        for column, (title, metrics) in enumerate(cases.items()):
            trained = metrics[metrics["rewards/margins"].notna()]
            measured = metrics[metrics["kl/k1"].notna()]
            steps = measured["step"]
            margin, accuracy, kl, text = grid[:, column]
            margin.plot(trained["step"], trained["rewards/margins"], color=BLUE, lw=1)
            margin.plot(steps, measured["held/margin"], "o-", color=ORANGE, markersize=4)
            smooth = trained["rewards/accuracies"].rolling(5, min_periods=1).mean()
            accuracy.plot(trained["step"], smooth, color=BLUE, lw=1, label="train")
            accuracy.plot(
                steps[1:],
                measured["held/accuracy"][1:],
                "o-",
                color=ORANGE,
                markersize=4,
                label="held out",
            )
            kl.plot(steps, measured["kl/k1"], "o-", color=BLUE, markersize=4)
            kl.set_yscale("symlog", linthresh=1)
            for name, colour, line in (("entropy", VERMILION, "--"), ("length", GREEN, "-")):
                values = measured[f"policy/{name}"] / measured[f"policy/{name}"].iloc[0]
                text.plot(steps, values, line, color=colour, label=name)
            text.set(xlabel="step")
            margin.set(title=title)
        for axes, label in zip(
            grid[:, 0], ("margin", "ranked right", "KL, nats", "of the start"), strict=True
        ):
            axes.set_ylabel(label)
        grid[1, 0].legend()
        grid[3, 0].legend()
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure


def plot_weeks(weeks: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> Figure:
    """Training of several models beside each other, each over its own share of the steps.

    weeks: by the model's name the curves of its stages `SFT` and `SFT+DPO`, an entry a step, with
    TRL's names (see `week.recorded.curve_of`). Left SFT's loss, then DPO's reward margin and the
    share of pairs ranked right, as a running mean over a tenth of the steps; a dot: held out.
    """
    panels = (
        ("SFT", "loss", "SFT: loss, nats a token"),
        ("SFT+DPO", "rewards/margins", "DPO: reward margin"),
        ("SFT+DPO", "rewards/accuracies", "DPO: ranked right"),
    )
    with plt.rc_context(STYLE):
        figure, row = plt.subplots(1, len(panels), figsize=(9.5, 3))
        for axes, (stage, name, label) in zip(row, panels, strict=True):
            for (model, curves), colour in zip(
                weeks.items(), (BLUE, VERMILION, GREEN), strict=False
            ):
                if not curves[stage]:
                    continue  # a model that came as it is
                entries = pd.DataFrame(curves[stage])
                share = entries["step"] / entries["step"].max()
                values = entries[name].dropna()
                smooth = values.rolling(max(1, len(values) // 10), min_periods=1).mean()
                axes.plot(share[values.index], smooth, color=colour, label=model)
                if (held := name.replace("rewards/", "held/")) != name and held in entries:
                    axes.plot(share, entries[held], "o", color=colour, markersize=5)
            axes.set(xlabel="share of the steps", title=label)
        drawn = [axes for axes in row if axes.get_lines()]
        if drawn:
            drawn[0].legend()
    plt.close(figure)  # a cell that ends in the figure would show it twice
    return figure
