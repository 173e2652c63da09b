"""Red flags: what is wrong with a DPO run, read from its recorded metrics.

The rules look at what holds for any model: nats *per token* and changes relative to the run's own
start, not sums that grow with the length of the answers. The thresholds were set on two seeds of
the runs in `gallery` and tested on others; they are a place to start, not laws. A flag is a reason
to look at samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# The first log-ratio to the reference is 0 if policy and reference start equal; nats a response.
REFERENCE_OFF = 0.5
# A preference that has been learnt at all, as margin without beta; nats a response.
MARGIN_LEARNT = 0.1
# Accuracies on training triples, and on held-out ones, that clean labels pass soon.
ACCURACY_TRAIN, ACCURACY_HELD = 0.78, 0.7
# KL a token beyond which answers are no longer those of the SFT model with better manners.
KL_A_TOKEN = 0.05
COLLAPSE_A_TOKEN = 0.5
ENTROPY_TIMES = 2.5  # of the start: beyond, text falls apart
ENTROPY_FROZEN = 0.08  # of the start: below, the policy says one thing only
LENGTH_GROWTH = 0.06
DISPLACED = -0.01  # nats a token, of the chosen responses
# Held-out margin against its own maximum, and training margin against held-out margin.
FALLEN, APART = 0.8, 2.0


@dataclass(frozen=True)
class Flag:
    """One finding: what, since which step, how sure (`sure` or `likely`), why, what to try.

    harmless: it may be left alone, as the evidence says.
    """

    name: str
    since: int
    certainty: str
    evidence: str
    advice: str
    harmless: bool = False


@dataclass(frozen=True)
class _Record:
    """A run's metrics: `measured` lines (the monitor's), `trained` lines (TRL's), and beta."""

    measured: pd.DataFrame
    trained: pd.DataFrame
    beta: float

    @property
    def kl_a_token(self) -> pd.Series:
        return self.measured["kl/k1"] / self.measured["policy/length"]

    def late(self, name: str) -> float:
        """The mean of a training metric over the last quarter of the run."""
        return self.trained[name].iloc[-max(1, len(self.trained) // 4) :].mean()


def red_flags(metrics: pd.DataFrame, beta: float) -> list[Flag]:
    """The flags that a run raises, the gravest first; an empty list for a healthy one.

    Args:
        metrics: a line a step, as from `load_metrics`. beta: of the run.

    Raises ValueError if the monitor measured fewer than twice.
    """
    measured = metrics[metrics["kl/k1"].notna() | metrics["policy/length"].notna()]
    trained = metrics[metrics["rewards/margins"].notna() | metrics["loss"].notna()]
    if len(measured) < 2 or trained.empty:
        raise ValueError(
            f"{len(measured)} measurements in these metrics: train with monitor=Monitor(...), "
            "which measures before the first step and on the way"
        )
    record = _Record(measured, trained, beta)
    flags = [flag for rule in RULES for flag in rule(record)]
    # What else is out of bounds follows from it.
    if flags and flags[0].name in ("divergence", "wrong reference"):
        return flags[:1]
    return flags


def _divergence(run: _Record) -> Iterator[Flag]:
    numbers = run.trained[["loss", "grad_norm"]]
    bad = ~numbers.map(math.isfinite).all(axis=1) | (run.trained["loss"] > 3 * math.log(2))
    if bad.any():
        first = run.trained[bad].iloc[0]
        yield Flag(
            "divergence",
            int(first["step"]),
            "sure",
            f"the loss is {first['loss']:.3g}, the gradient's norm {first['grad_norm']:.3g}",
            "Divide the learning rate by ten; look for rows far longer than the others; in fp16, "
            "train in bf16 or fp32.",
        )


def _wrong_reference(run: _Record) -> Iterator[Flag]:
    first = run.trained.iloc[0]
    off = max(abs(first["rewards/chosen"]), abs(first["rewards/rejected"])) / run.beta
    if off > REFERENCE_OFF:
        yield Flag(
            "wrong reference",
            int(first["step"]),
            "sure",
            f"at the first step policy and reference differ by {off:.1f} nats a response",
            "Start policy and reference from the same SFT model: preflight(...) names the check.",
        )
        return
    still = (run.measured["held/margin"].abs() < 1e-6) & (run.measured["kl/k1"].abs() < 1e-6)
    if still.all() and (run.trained["grad_norm"] > 0).all():
        yield Flag(
            "wrong reference",
            int(first["step"]),
            "sure",
            "margins and KL are exactly 0 throughout, though gradients flow: the reference moves "
            "with the policy",
            "Do not copy a model that went through a trainer; load the reference from its folder.",
        )


def _collapse(run: _Record) -> Iterator[Flag]:
    entropy = run.measured["policy/entropy"] / run.measured["policy/entropy"].iloc[0]
    bad = (
        (run.kl_a_token > COLLAPSE_A_TOKEN)
        | (entropy > ENTROPY_TIMES)
        | (entropy < ENTROPY_FROZEN)
        | (run.measured["policy/ended"] < run.measured["policy/ended"].iloc[0] - 0.3)
    )
    if bad.iloc[1:].any():
        since = run.measured[bad].iloc[0]
        last = run.measured.iloc[-1]
        yield Flag(
            "collapse",
            int(since["step"]),
            "sure",
            f"entropy {entropy.iloc[-1]:.1f} times that of the start, KL {last['kl/k1']:.0f} nats, "
            f"{last['policy/ended']:.0%} of the responses end by themselves",
            "Read the samples. Take a checkpoint from before; divide the learning rate by five.",
        )


def _kl_running_away(run: _Record) -> Iterator[Flag]:
    lower = (run.measured["kl/k1"] - run.measured["kl/k1_se"]) / run.measured["policy/length"]
    if lower.iloc[-1] > KL_A_TOKEN or (lower > KL_A_TOKEN).sum() > 1:
        since = run.measured[lower > KL_A_TOKEN].iloc[0]
        yield Flag(
            "KL running away",
            int(since["step"]),
            "sure" if lower.iloc[-1] > 2 * KL_A_TOKEN else "likely",
            f"{run.kl_a_token.iloc[-1]:.3f} nats a token from the reference, however fine the gap",
            "Stop earlier, halve the learning rate, or raise beta; judge win rate, not the gap.",
        )


def _no_learning(run: _Record) -> Iterator[Flag]:
    held = run.measured["held/margin"].iloc[-1] / run.beta
    trained = run.late("rewards/margins") / run.beta
    if max(held, trained) < MARGIN_LEARNT and run.kl_a_token.abs().iloc[-1] < KL_A_TOKEN / 10:
        yield Flag(
            "no learning",
            0,
            "sure" if max(held, trained) < MARGIN_LEARNT / 5 else "likely",
            f"chosen and rejected are {trained:.2f} nats apart after {len(run.trained)} steps",
            "Raise the learning rate five times; check that the adapter's targets exist.",
        )


def _noisy_labels(run: _Record) -> Iterator[Flag]:
    trained, held = run.late("rewards/accuracies"), run.measured["held/accuracy"].iloc[-1]
    moved = run.late("rewards/margins") / run.beta > MARGIN_LEARNT
    if moved and trained < ACCURACY_TRAIN and held < ACCURACY_HELD:
        yield Flag(
            "noisy labels",
            0,
            "sure" if held < 0.6 else "likely",
            f"{trained:.0%} of training and {held:.0%} of held-out triples are ranked right, "
            "though the policy moves",
            "Audit the triples; ask a second judge about a sample (kappa); ask in both orders.",
        )


def _overfitting(run: _Record) -> Iterator[Flag]:
    held = run.measured.set_index("step")["held/margin"]
    trained = run.late("rewards/margins")
    peak = held.idxmax()
    fallen = held.iloc[-1] < FALLEN * held.max()
    apart = trained > APART * held.iloc[-1]
    learnt = run.late("rewards/accuracies") > 0.95
    if learnt and (fallen or apart) and trained / run.beta > MARGIN_LEARNT:
        yield Flag(
            "overfitting",
            int(peak),
            "sure" if fallen and apart else "likely",
            f"the margin is {trained:.2f} on training and {held.iloc[-1]:.2f} on held-out triples"
            + (f", where it was {held.max():.2f} at step {peak}" if fallen else ""),
            "Fewer epochs, or more triples; take the checkpoint at the held-out maximum.",
        )


def _length_growth(run: _Record) -> Iterator[Flag]:
    growth = run.measured["policy/length"] / run.measured["policy/length"].iloc[0] - 1
    if growth.iloc[-3:].mean() > LENGTH_GROWTH and growth.iloc[-1] > LENGTH_GROWTH / 2:
        since = run.measured[growth > LENGTH_GROWTH / 2].iloc[0]
        yield Flag(
            "length growth",
            int(since["step"]),
            "sure" if growth.iloc[-3:].mean() > 2 * LENGTH_GROWTH else "likely",
            f"responses are {growth.iloc[-1]:.0%} longer than at the start",
            "Audit the length bias of the triples; compare win rates at equal length.",
        )


def _displacement(run: _Record) -> Iterator[Flag]:
    shift = run.measured["held/chosen_shift"]
    if shift.iloc[-1] < DISPLACED and run.measured["held/margin"].iloc[-1] > 0:
        harmless = run.kl_a_token.iloc[-1] < KL_A_TOKEN
        yield Flag(
            "likelihood displacement",
            int(run.measured[shift < DISPLACED].iloc[0]["step"]),
            "sure" if shift.iloc[-1] < 3 * DISPLACED else "likely",
            f"chosen responses have become less likely too ({shift.iloc[-1]:+.3f} nats a token)"
            + ("; the KL is small, so the mass has not gone far" if harmless else ""),
            "Look where the mass went: read samples. Pairs that are nearly alike cause it; add an "
            "SFT term (loss_type=['sigmoid', 'sft']) or drop them.",
            harmless=harmless,
        )


RULES: tuple[Callable[[_Record], Iterator[Flag]], ...] = (
    _divergence,
    _wrong_reference,
    _collapse,
    _kl_running_away,
    _noisy_labels,
    _no_learning,
    _overfitting,
    _length_growth,
    _displacement,
)
