"""The three-way table: metric by model, the paired difference, and what may be concluded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..common.markup import as_markdown
from ..common.statistics import Estimate, bootstrap_mean, mcnemar
from ..tasks import Task


def comparison_table(
    scores: pd.DataFrame,
    *,
    task: Task | None = None,
    candidate: str,
    baseline: str,
    metrics: Sequence[str] | None = None,
    drop_missing: bool = False,
) -> pd.DataFrame:
    """metric x models, and the paired difference of `candidate` over `baseline` with interval.

    Args:
        scores: as from `score_responses`, or any frame with `model`, `row` and a column a metric.
        task: which tells of what kind its metrics are.
        metrics: columns of `scores`; without, all.
        drop_missing: leave out, metric by metric, the prompts on which a score is missing (a judge
            that gave no verdict); `n` tells how many are left.

    Returns:
        One row a metric: `kind` (`heuristic`, `truth` or `judge`), the mean of each model, then
        `difference`, `low`, `high` (95 % interval), `p` (McNemar's exact test, where every score is
        0 or 1; else missing), `n` (prompts) and `conclusion`, a sentence. Its `attrs` tell
        `candidate` and `baseline`.

    Raises ValueError where a score is missing: a difference needs both models on every prompt.
    """
    models = list(dict.fromkeys(scores["model"]))
    kinds = {metric.name: metric.kind for metric in task.metrics} if task else {}
    kinds["overall"] = "truth"
    metrics = metrics or [name for name in scores.columns if name not in ("model", "row")]
    lines = []
    for metric in metrics:
        wide = _by_row(scores, metric, drop_missing)[models]
        about = {"metric": metric, "kind": kinds.get(metric, "judge")}
        lines.append({**about, **wide.mean(), **_difference(wide, candidate, baseline)})
    table = pd.DataFrame(lines).set_index("metric")
    table.attrs |= {"candidate": candidate, "baseline": baseline}
    return table


def _by_row(scores: pd.DataFrame, metric: str, drop_missing: bool) -> pd.DataFrame:
    """A metric's scores, a line a row, a column a model. ValueError where one is missing."""
    wide = scores.pivot(index="row", columns="model", values=metric)
    if drop_missing:
        return wide.dropna()
    for model in wide:
        if wide[model].isna().any():
            row = wide.index[wide[model].isna()][0]
            raise ValueError(f"{model} has no {metric} for row {row}: score every model on it")
    return wide


def _difference(wide: pd.DataFrame, candidate: str, baseline: str) -> dict[str, Any]:
    """The paired difference on one metric, and what may be concluded from it."""
    ours, theirs = wide[candidate], wide[baseline]
    share = bool(((wide >= 0) & (wide <= 1)).all(axis=None))
    found = bootstrap_mean(ours - theirs, within=(-1, 1) if share else None)
    return {
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": mcnemar(ours, theirs) if wide.isin([0, 1]).all(axis=None) else float("nan"),
        "n": len(wide),
        "conclusion": _conclusion(found, share, candidate, baseline),
    }


def _conclusion(found: Estimate, share: bool, candidate: str, baseline: str) -> str:
    """What the interval allows to say, in words; no direction where it does not give one."""
    unit = (lambda x: f"{100 * x:.1f} points") if share else (lambda x: f"{x:.1f}")
    if found.low > 0:
        return f"{candidate} is higher, by at least {unit(found.low)}"
    if found.high < 0:
        return f"{candidate} is lower, by at least {unit(-found.high)}"
    return (
        f"no difference shown: {candidate} may be {unit(max(0.0, -found.low))} lower "
        f"or {unit(max(0.0, found.high))} higher than {baseline}"
    )


def to_markdown(table: pd.DataFrame) -> str:
    """`comparison_table` as a markdown table, for a README or a model card.

    The difference is headed "candidate over baseline", or "difference" where a frame made by hand
    does not tell them.
    """
    models = list(table.columns[1 : table.columns.get_loc("difference")])
    candidate, baseline = table.attrs.get("candidate"), table.attrs.get("baseline")
    difference = f"{candidate} over {baseline}" if candidate and baseline else "difference"
    head = ["metric", *models, difference, "95 % interval", "what it shows"]
    lines = [[as_markdown(name) for name in head], ["---", *["---:"] * (len(models) + 2), "---"]]
    for metric, row in table.iterrows():
        digits = 0 if (row[models].abs() >= 10).any() else 2
        lines.append(
            [
                as_markdown(metric),
                *(f"{row[model]:.{digits}f}" for model in models),
                f"{row['difference']:+.{digits}f}",
                f"{row['low']:+.{digits}f} to {row['high']:+.{digits}f}",
                as_markdown(row["conclusion"]),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval_by_prompts(
    differences: Sequence[float], sizes: Sequence[int], repeats: int = 200, seed: int = 0
) -> pd.DataFrame:
    """How wide the interval is with fewer prompts, and how often it then leaves out zero.

    Args:
        differences: N paired differences (or points of a win rate less one half).
        sizes: numbers of prompts, each at most N; so many are drawn without replacement, `repeats`
            times.

    Returns a line a size: `n`; `low`, `high`: ends of the interval, mean over the draws; `estimate
    low`, `estimate high`: within these lie 95 % of the *estimates*; `shown`: share of the draws
    whose interval lies above zero.
    """
    values, rng = np.asarray(differences, dtype=float), np.random.default_rng(seed)
    lines = []
    for n in sizes:
        drawn = [rng.permutation(values)[:n] for _ in range(repeats)]
        found = [bootstrap_mean(part, draws=500, within=(-1, 1)) for part in drawn]
        means = [estimate.value for estimate in found]
        lines.append(
            {
                "n": n,
                "low": np.mean([estimate.low for estimate in found]),
                "high": np.mean([estimate.high for estimate in found]),
                "estimate low": np.quantile(means, 0.025),
                "estimate high": np.quantile(means, 0.975),
                "shown": np.mean([estimate.low > 0 for estimate in found]),
            }
        )
    return pd.DataFrame(lines)
