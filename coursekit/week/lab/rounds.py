"""Iterative DPO: rounds of answering, judging and training."""

from __future__ import annotations

from pathlib import Path

from ...preferences import split_by_prompt, to_triples
from ...training import train_dpo
from .points import Checkpoint, Spent
from .start import Start, sample_and_judge, whole_model
from .train import STEPS, settings_of


def iterate(
    start: Start,
    folder: Path,
    times: int,
    *,
    renew: bool,
    beta: float = 0.1,
    learning_rate: float | None = None,
    steps: int = STEPS,
) -> list[Checkpoint]:
    """Iterative DPO in `times` rounds: the policy answers new prompts, is judged, and trains on it.

    Each round has its share of the prompts, so that all rounds together ask the judge as often as
    one offline round on all. renew: whether the reference is the policy that the round began with;
    otherwise it stays the SFT model.
    """
    profile, policy, spent, kept = start.profile, start.model, Spent(), []
    for number in range(times):
        place = folder / f"round-{number + 1}"
        share = start.prompts[number::times]
        candidates, pairs = sample_and_judge(start, policy, share, place)
        spent = Spent(
            spent.samples + sum(len(row["candidates"]) for row in candidates),
            spent.labels + len(pairs),
        )
        run = train_dpo(
            policy,
            split_by_prompt(to_triples(pairs))[0],
            place / "run",
            profile,
            settings=settings_of(start, learning_rate, beta),
            seed=start.seed,
            wrong_reference=None if renew or number == 0 else start.model,
            max_steps=steps // times,
            save_strategy="no",
        )
        policy = whole_model(run.folder, place / "policy", profile)
        kept.append(Checkpoint(policy, (number + 1) * (steps // times), spent))
    return kept
