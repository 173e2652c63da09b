"""Training as all methods do it: the same settings, and checkpoints that are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ...common.profile import TrainingSettings
from ...common.quiet import quiet
from ...lm.trl_compat import is_adapted
from ...training.arguments import run_arguments
from ...training.loop import run_training
from ...training.run import name_base
from .points import Checkpoint, Spent

if TYPE_CHECKING:
    from .start import Start

STEPS = 72  # updates: twice through the triples of 250 prompts, as the sessions do


class Keep(TrainerCallback):
    """Saves the policy about `times` times, evenly, the last step among them: `kept`.

    Its adapter, or all weights where these are trained.

    Args:
        base: the model that the adapter lies on.
        spent: what was spent after so many steps.
    """

    def __init__(
        self, folder: Path, base: str | Path, times: int, spent: Callable[[int], Spent]
    ) -> None:
        self.folder, self.base, self.times, self.spent = Path(folder), base, times, spent
        self.kept: list[Checkpoint] = []

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        step, every = state.global_step, max(1, round(state.max_steps / self.times))
        if step % every and step != state.max_steps:
            return
        place = self.folder / f"step-{step}"
        if is_adapted(model):
            # Without False, peft looks on the hub whether the base's vocabulary has grown.
            model.save_pretrained(place, selected_adapters=["default"], save_embedding_layers=False)
            name_base(place, self.base, self.folder)
        else:
            model.save_pretrained(place)
        self.kept.append(Checkpoint(place, step, self.spent(step)))


def train(
    trainer: Any,
    start: Start,
    folder: Path,
    times: int,
    spent: Callable[[int], Spent],
    base: str | Path | None = None,
) -> list[Checkpoint]:
    """Run the trainer to its end; what it kept on the way. base: the SFT model, if None."""
    keep = Keep(folder, base or start.model, times, spent)
    trainer.add_callback(keep)
    with quiet():
        run_training(trainer, None, start.profile, folder, {})
    return keep.kept


def settings_of(
    start: Start, learning_rate: float | None = None, beta: float | None = None
) -> TrainingSettings:
    """The profile's for DPO, with another rate or beta where one is given."""
    given = {"learning_rate": learning_rate, "beta": beta}
    return replace(
        start.profile.dpo, **{name: value for name, value in given.items() if value is not None}
    )


def arguments(start: Start, folder: Path, settings: TrainingSettings, steps: int) -> dict[str, Any]:
    """What all trainers here are told. The checkpoints that count are kept by `Keep`."""
    return run_arguments(settings, start.profile, folder, start.seed) | {
        "max_steps": steps,
        "save_strategy": "no",
    }


def labelled(start: Start) -> Spent:
    """What the labelled pairs have cost."""
    return Spent(samples=start.samples, labels=start.labels)
