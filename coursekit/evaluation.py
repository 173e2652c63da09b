"""Evaluation: scores of the same prompts under several models, compared with intervals.

Everything here takes and gives plain data frames. Intervals are for 95 %, and paired wherever two
models answered the same prompts: the prompts' difficulty then cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .judging import Judge, both_orders
from .triage import Alert, fact_accuracy, score_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def score_responses(
    rows: Sequence[Mapping[str, Any]], responses: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """The rubric's scores of every model on every row, one line each.

    Args:
        rows: N rows with `prompt` and `alert`.
        responses: for each model's name, its N responses.

    Returns:
        Columns `model`, `row`, the rubric's scores, and `length` (characters).
    """
    records = [
        {
            "model": model,
            "row": index,
            **score_report(Alert(**row["alert"]), text).to_dict(),
            "length": len(text),
        }
        for model, texts in responses.items()
        for index, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]
    return pd.DataFrame(records)


def copy_accuracy(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> pd.Series:
    """For each fact of the alert, the share of reports that give it right."""
    right = [
        fact_accuracy(Alert(**row["alert"]), text) for row, text in zip(rows, texts, strict=True)
    ]
    return pd.DataFrame(right).mean()


def bootstrap_mean(values: Sequence[float], seed: int = 0, draws: int = 10_000) -> Estimate:
    """The mean and its percentile bootstrap interval (Efron 1979). For paired data: differences.

    Raises ValueError if there are no values.
    """
    values = np.asarray(values, dtype=float)  # (N,)
    if values.size == 0:
        raise ValueError("no values: an interval needs at least one")
    rng = np.random.default_rng(seed)
    # Resampling N values is drawing how often each is taken: cheaper than an index for each draw.
    counts = rng.multinomial(values.size, np.full(values.size, 1 / values.size), size=draws)
    means = counts @ values / values.size  # (draws,)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def comparison_table(
    scores: pd.DataFrame, *, candidate: str, baseline: str, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """metric x models, and the paired difference of `candidate` over `baseline` with interval.

    Args:
        scores: as from `score_responses`.
        metrics: columns of `scores`; without, all the rubric's and `length`.

    Returns:
        One row a metric: the mean of each model, then `difference`, `low`, `high`.
    """
    models = list(dict.fromkeys(scores["model"]))
    metrics = metrics or [name for name in scores.columns if name not in ("model", "row")]
    lines = []
    for metric in metrics:
        wide = scores.pivot(index="row", columns="model", values=metric)
        difference = bootstrap_mean(wide[candidate] - wide[baseline])
        lines.append(
            {
                "metric": metric,
                **{model: wide[model].mean() for model in models},
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
            }
        )
    return pd.DataFrame(lines).set_index("metric")


@dataclass(frozen=True)
class WinRate:
    """How often one model's response beat another's: a tie counts half.

    estimate: the win rate with its interval; wins, ties, losses: counts, ties with contradictions
    between the two orders among them; inconsistent: how many contradictions there were; points: for
    each row 1 for a win, 0.5 for a tie, 0 for a loss.
    """

    estimate: Estimate
    wins: int
    ties: int
    losses: int
    inconsistent: int
    points: tuple[float, ...] = ()

    def __str__(self) -> str:
        n = self.wins + self.ties + self.losses
        return (
            f"win rate {self.estimate.value:.1%} "
            f"[{self.estimate.low:.1%}, {self.estimate.high:.1%}] on {n} prompts "
            f"({self.wins} won, {self.ties} tied, {self.losses} lost)"
        )


def win_rate(
    rows: Sequence[Mapping[str, Any]],
    candidate: Sequence[str],
    baseline: Sequence[str],
    judge: Judge,
) -> WinRate:
    """Compare two models' responses to the same rows, prompt by prompt, in both orders."""
    verdicts = [
        both_orders(judge, row, one, other)
        for row, one, other in zip(rows, candidate, baseline, strict=True)
    ]
    points = [{"first": 1.0, "tie": 0.5, "second": 0.0}[verdict.winner] for verdict in verdicts]
    return WinRate(
        estimate=bootstrap_mean(points),
        wins=points.count(1.0),
        ties=points.count(0.5),
        losses=points.count(0.0),
        inconsistent=sum(not verdict.consistent for verdict in verdicts),
        points=tuple(points),
    )


def kl_from_reference(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    seed: int = 0,
) -> Estimate:
    """KL(pi_theta || pi_ref) of a whole response, in nats, averaged over prompts.

    The estimator k1 of `monitoring.kl` on one response a prompt, with a bootstrap interval. Of
    responses that are cut at `max_new_tokens` it counts the part that was sampled.
    """
    from .logprobs import score_tokens, token_logps
    from .monitoring.kl import sample_responses

    pairs = sample_responses(
        policy,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
    )
    ours, theirs = (
        score_tokens(model, pairs, token_logps, batch_size=batch_size)
        for model in (policy, reference)
    )
    return bootstrap_mean([(a - b).sum().item() for a, b in zip(ours, theirs, strict=True)])
