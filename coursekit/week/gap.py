"""Does the reward gap predict the win? Over many checkpoints of many runs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..common.statistics import Estimate, bootstrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .gallery import Recorded


def checkpoints(runs: Sequence[Recorded]) -> pd.DataFrame:
    """Every point at which a recorded run was compared with SFT: a line each.

    Columns `run`, `seed`, `step`, `gap` (held-out margin without beta, nats), `accuracy` (held-out
    pairs ranked right), `kl` (k1), `win_rate`.
    """
    lines: list[dict[str, Any]] = []
    for run in runs:
        if "contest/win_rate" not in run.metrics:
            continue
        for _, row in run.metrics[run.metrics["contest/win_rate"].notna()].iterrows():
            lines.append(
                {
                    "run": run.condition.name,
                    "seed": run.seed,
                    "step": int(row["step"]),
                    "gap": row["held/margin"] / run.beta,
                    "accuracy": row["held/accuracy"],
                    "kl": row["kl/k1"],
                    "win_rate": row["contest/win_rate"],
                }
            )
    return pd.DataFrame(lines)


def gap_and_win(points: pd.DataFrame, healthy: float) -> pd.DataFrame:
    """`points` with a column `lied`: the gap is at least `healthy`, and yet it loses to SFT.

    Args:
        points: with `gap`, `win_rate`. healthy: the gap of a healthy run, in nats.
    """
    return points.assign(lied=(points["gap"] >= healthy) & (points["win_rate"] < 0.5))


def rank_correlation(points: pd.DataFrame, name: str, draws: int = 1000, seed: int = 0) -> Estimate:
    """Spearman's rank correlation of the column `name` with `win_rate`, with its 95 % interval.

    The bootstrap draws whole runs (`run`, `seed`): the checkpoints of one run are not independent.

    Raises ValueError for fewer than three runs.
    """
    groups = [rows[[name, "win_rate"]].to_numpy() for _, rows in points.groupby(["run", "seed"])]
    if len(groups) < 3:
        raise ValueError(f"{len(groups)} runs: a correlation between runs needs at least three")
    pairs = np.concatenate(groups)  # (points, 2)
    sizes = [len(group) for group in groups]
    ends = bootstrap(
        lambda taken: [_spearman(pairs.repeat(np.repeat(each, sizes), axis=0)) for each in taken],
        len(groups),
        draws=draws,
        seed=seed,
    )
    return Estimate(_spearman(pairs), *ends)


def _spearman(pairs: np.ndarray) -> float:
    """Of (points, 2); NaN where one value stands throughout: there is no order to compare."""
    from scipy.stats import ConstantInputWarning, spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(spearmanr(pairs).statistic)
