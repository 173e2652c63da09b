"""What the figures of `results` show, in words: of the same arguments, with the data's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from ...preferences import Audit

Curves = Mapping[str, Sequence[Mapping[str, float]]]


def listed(values: Mapping[str, str]) -> str:
    """`{"a": "1", "b": "2"}` -> "a 1; b 2"."""
    return "; ".join(f"{name} {value}" for name, value in values.items())


def comparison(table: pd.DataFrame, models: Sequence[str]) -> str:
    metrics = table[table[list(models)].apply(lambda row: row.between(0, 1).all(), axis="columns")]
    means = {
        str(name): ", ".join(f"{value:.2f}" for value in row)
        for name, row in zip(metrics.index, metrics[list(models)].to_numpy(), strict=True)
    }
    return f"Bars: mean scores of {', '.join(models)}, in this order: {listed(means)}."


def audit(audit: Audit) -> str:
    faults = {each.check: f"{len(each.rows)}" for each in audit.findings if each.outcome == "fault"}
    wins = {
        name: f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
        for name, share in audit.shares.items()
        if share.n
    }
    means = {
        name: f"{np.mean(values):+.2g} {unit}"
        for name, values, unit in (
            ("length", audit.length_differences, "characters"),
            ("judge's score", audit.margins, "points"),
        )
        if values
    }
    return (
        f"Four panels on {audit.n} triples. Rows with a fault: {listed(faults) or 'none'}. "
        f"What wins how often: {listed(wins) or 'not measured'}. "
        f"Chosen less rejected, on average: {listed(means) or 'not in the data'}."
    )


def label_noise(table: pd.DataFrame, margin: float) -> str:
    rates = [f"{rate:.0%}" for rate in sorted(table["rate"].unique())]
    won = {
        str(loss): ", ".join(f"{rate:.0%}" for rate in rows.sort_values("rate")["win_rate"])
        for loss, rows in table.groupby("loss", sort=False)
    }
    return (
        f"Left, win rate over SFT with {', '.join(rates)} wrong labels: {listed(won)}. Right, how "
        "hard each loss pulls over the margin of a pair, 1 at a margin of 0: these runs' mean "
        f"margins stay within {margin:.2f} of it."
    )


def _ends(values: pd.Series, digits: int = 2) -> str:
    values = values.dropna()
    return f"{values.iloc[0]:.{digits}f} to {values.iloc[-1]:.{digits}f}" if len(values) else "none"


def monitor(metrics: pd.DataFrame) -> str:
    measured = metrics[metrics["kl/k1"].notna()]
    last = measured.iloc[-1]
    return (
        f"Six curves up to step {metrics['step'].max():.0f}, from the first value to the last: "
        f"held-out margin {_ends(measured['held/margin'])} nats times beta; "
        f"KL from the reference {_ends(measured['kl/k1'])} nats (k1), {last['kl/k3']:.2f} (k3) at "
        f"the end; held-out log-ratio {_ends(measured['held/chosen_shift'], 3)} (chosen) and "
        f"{_ends(measured['held/rejected_shift'], 3)} (rejected) nats a token; "
        f"entropy {_ends(measured['policy/entropy'])} nats a token; "
        f"length {_ends(measured['policy/length'], 0)} tokens."
    )


def frontier(table: pd.DataFrame, default: tuple[float, float]) -> str:
    points = "; ".join(
        f"beta {row['beta']:g} at rate {row['learning_rate']:g}: {row['win_rate']:.0%}, "
        f"{row['kl']:.2g} and {row['gap']:.2g} nats"
        for _, row in table.sort_values("kl").iterrows()
    )
    return (
        "Win rate over SFT against KL (left) and against margin divided by beta (right), one point "
        f"for each setting, by KL: {points}."
    )


def exhibit(metrics: pd.DataFrame) -> str:
    return f"Five curves of a recorded run, at its last step: {_at_the_end(metrics)}."


def _at_the_end(metrics: pd.DataFrame) -> str:
    def last(name: str) -> float:
        values = metrics[name].dropna() if name in metrics else metrics["step"][:0]
        return float(values.iloc[-1]) if len(values) else float("nan")

    start = metrics[metrics["kl/k1"].notna()].iloc[0]
    said = {
        "margin": f"{last('rewards/margins'):.2f} (held out {last('held/margin'):.2f})",
        "held-out pairs ranked right": f"{last('held/accuracy'):.0%}",
        "KL": f"{last('kl/k1'):.2g} nats",
        "entropy": f"{last('policy/entropy') / start['policy/entropy']:.2f} of its start",
        "length": f"{last('policy/length') / start['policy/length']:.2f} of its start",
    }
    if "contest/win_rate" in metrics and metrics["contest/win_rate"].notna().any():
        said["wins over SFT"] = f"{last('contest/win_rate'):.0%}"
    return ", ".join(f"{name} {value}" for name, value in said.items())


def intervals(table: pd.DataFrame, what: str) -> str:
    sizes = "; ".join(
        f"with {row['n']:.0f} prompts from {100 * row['low']:+.1f} to {100 * row['high']:+.1f}, "
        f"above zero in {row['shown']:.0%} of the samples"
        for _, row in table.iterrows()
    )
    return f"{what[:1].upper()}{what[1:]}, the mean 95 % interval: {sizes}."


def gap_and_win(runs: pd.DataFrame) -> str:
    lied = runs[runs["lied"]]
    falls = ", ".join(
        f"{name} {runs[column].corr(runs['win_rate'], method='spearman'):+.2f}"
        for column, name in (("gap", "gap"), ("accuracy", "pairs ranked right"), ("kl", "KL"))
    )
    return (
        f"Win rate over SFT of {len(runs)} checkpoints, {runs['win_rate'].min():.0%} to "
        f"{runs['win_rate'].max():.0%}, against held-out gap, pairs ranked right, and KL; rank "
        f"correlations: {falls}. {len(lied)} points are crosses: their gap is as wide as a healthy "
        "run's, and they lose."
    )


def cases(cases: Mapping[str, pd.DataFrame]) -> str:
    said = ". ".join(f"{title}: {_at_the_end(metrics)}" for title, metrics in cases.items())
    return f"Curves of {len(cases)} recorded runs, a column each. At the last step, {said}."


def weeks(weeks: Mapping[str, Curves]) -> str:
    said = []
    for model, curves in weeks.items():
        parts = []
        if curves["SFT"]:
            parts.append(f"SFT's loss {_ends(pd.DataFrame(curves['SFT'])['loss'])} nats a token")
        if curves["SFT+DPO"]:
            dpo = pd.DataFrame(curves["SFT+DPO"])
            parts.append(f"DPO's margin {_ends(dpo['rewards/margins'])}")
            tenth = max(1, len(dpo) // 10)
            right = dpo["rewards/accuracies"].dropna().tail(tenth).mean()
            parts.append(f"{right:.0%} of its pairs ranked right in the last tenth of the steps")
        said.append(f"{model}: {', '.join(parts) or 'no curves'}")
    return f"Training, from the first step to the last. {'. '.join(said)}."
