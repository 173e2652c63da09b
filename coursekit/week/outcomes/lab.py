"""What the lab's studies show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ...common.statistics import bootstrap_mean
from ..lab.record import SFT_ITSELF, reward_at
from . import Claim, Outcome

# 1. The frontier. points: as of `lab.record.points_of`.

LEVELS = (0.25, 0.5, 1.0)  # nats
TRUE, LEARNED = "RLOO, true reward", "RLOO, learned reward"


def sft_reward(points: pd.DataFrame) -> float:
    """The true reward of the SFT model itself, mean over seeds."""
    itself = points[(points["curve"] == SFT_ITSELF) & (points["place"] == 1)]
    return float(itself["reward"].mean())


def _highest(points: pd.DataFrame, method: str, kl: float) -> pd.Series:
    """Of a method's settings the highest reward at that KL, by seed."""
    found = reward_at(points[points["curve"].str.startswith((method, SFT_ITSELF))], kl)
    return found[found["curve"].str.startswith(method)].groupby("seed")["reward"].max()


def _leads(points: pd.DataFrame, method: str, other: str) -> dict[float, pd.Series]:
    """By KL, where both get so far: how much higher `method` is than `other`, by seed."""
    leads = {kl: _highest(points, method, kl) - _highest(points, other, kl) for kl in LEVELS}
    return {kl: lead.dropna() for kl, lead in leads.items() if len(lead.dropna())}


def _as_text(leads: Mapping[float, pd.Series]) -> str:
    return "; ".join(
        f"{lead.mean():+.3f} at {kl:g} nats (seeds {lead.min():+.3f} to {lead.max():+.3f})"
        for kl, lead in leads.items()
    )


def dpo_against_rlhf(points: pd.DataFrame) -> Outcome:
    """a: DPO is higher in each seed at each KL, b: RLHF with the true reward is, c: neither."""
    leads = _leads(points, "DPO", TRUE)
    every = pd.concat(leads.values())
    option = "a" if (every > 0).all() else "b" if (every < 0).all() else "c"
    return Outcome(option, f"DPO over RLHF with the true reward: {_as_text(leads)}")
