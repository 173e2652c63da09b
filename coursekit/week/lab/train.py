"""Training with checkpoints that are kept, whatever the trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ...training.loop import run_training
from ...training.run import name_base
from .points import Checkpoint, Spent

if TYPE_CHECKING:
    from .start import Start


class Keep(TrainerCallback):
    """Saves the adapter about `times` times, evenly, the last step among them: `kept`.

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
        # Without False, peft looks on the hub whether the base's vocabulary has grown.
        model.save_pretrained(place, selected_adapters=["default"], save_embedding_layers=False)
        name_base(place, self.base, self.folder)
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
    run_training(trainer, None, start.profile, folder, {})
    return keep.kept
