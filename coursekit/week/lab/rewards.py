"""The two rewards: the true one, and the one that a reward model has learned from the triples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...training.reward_model import load_reward_model, train_reward_model
from .start import Rows, Start

Reward = Callable[[Rows, Sequence[str]], list[float]]


def true_reward(start: Start) -> Reward:
    """The rubric, as a program: from 0 to 1 for each row and the text that answers it."""
    return lambda rows, texts: [start.judge.score(*one) for one in zip(rows, texts, strict=True)]


def learned_reward(start: Start) -> Reward:
    """The reward model of this seed's triples, trained at the first call; any real number."""
    place, profile = start.folder / "reward", start.profile
    train_reward_model(
        start.model, start.triples, place, profile, validation=start.held, seed=start.seed
    )
    model = load_reward_model(place, profile)
    return lambda rows, texts: model.scores([row["prompt"] for row in rows], texts)


REWARDS = {"learned": learned_reward, "true": true_reward}
