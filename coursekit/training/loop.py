"""The training loop: progress in a line, a stop that loses nothing, and going on from there.

A run that was stopped or killed goes on from its last checkpoint when the same is called again.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from ..common.made_from import MadeFrom, write_record
from ..common.profile import Profile
from ..common.progress import progress
from ..common.ranks import anywhere, from_main, is_main, wait_for_everyone
from ..lm.trl_compat import is_sharded, is_whole_checkpoint, last_checkpoint, train_in_float32
from .run import CHECKPOINTS


def run_training(
    trainer: Any, label: str, profile: Profile, folder: Path, made_from: MadeFrom
) -> None:
    """Train with a progress line in place of the trainer's bar and printed dictionaries.

    Goes on from the last whole checkpoint in `folder`, which `finished_run` has seen to be of the
    same run. Ctrl-C ends the step, saves a checkpoint and raises KeyboardInterrupt.

    Several processes may train together (see `common.ranks`), each with the whole model: raises
    ValueError where a launcher shards it.
    """
    if is_sharded(trainer):
        raise ValueError(
            "FSDP or DeepSpeed shards the weights over processes, and what one of them saved here "
            "would not be whole: start with torchrun, or export the run and train it with "
            "`trl dpo` (python -m coursekit export)"
        )
    if profile.four_bit:
        train_in_float32(trainer.model)
    checkpoint = from_main(lambda: last_whole_checkpoint(folder / CHECKPOINTS))
    from_main(lambda: write_record(folder / CHECKPOINTS, made_from))
    stop = StopAtStepEnd()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressLine(label if is_main() else None))
    trainer.add_callback(stop)
    with stop.listening():
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    wait_for_everyone()  # each writes its part of a checkpoint, and the main one tidies up
    if stop.asked:
        done, total = trainer.state.global_step, trainer.state.max_steps
        raise KeyboardInterrupt(
            f"stopped after step {done} of {total}; what is done is kept: call the same again to "
            "go on"
        )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint in `folder`; what a kill has left half written is deleted."""
    while last := last_checkpoint(folder):
        if is_whole_checkpoint(last):
            print(f"going on from step {last.name.rsplit('-', 1)[1]}")
            return last
        shutil.rmtree(last)
    return None


class StopAtStepEnd(TrainerCallback):
    """Ends training at the end of the step in which Ctrl-C (or the kernel's stop) is pressed.

    Of several processes the one that hears it in this step stops all: alone it would wait for them.
    """

    asked = False

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.asked = anywhere(self.asked)
        if self.asked:
            control.should_save = control.should_training_stop = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Until the end of the context the first interrupt only asks; a second one raises."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread alone
            return

        def ask(number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, before)
            self.asked = True

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


class ProgressLine(TrainerCallback):
    """Steps done, time left and the last loss, in one line called `label`; no label, no line."""

    def __init__(self, label: str | None) -> None:
        self.label = label

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._context = progress(self.label, state.max_steps, "steps")
        self._advance = self._context.__enter__()
        if state.global_step:  # resumed
            self._advance(state.global_step)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        loss = next((log["loss"] for log in reversed(state.log_history) if "loss" in log), None)
        self._advance(1, "" if loss is None else f"(loss {loss:.3f})")

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self._context.__exit__(None, None, None)
