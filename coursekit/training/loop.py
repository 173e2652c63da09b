"""The loop itself: progress in a line, a stop that loses nothing, and going on from there."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.made_from import MadeFrom, write_record
from ..common.profile import Profile
from ..common.progress import progress
from .run import CHECKPOINTS

if TYPE_CHECKING:
    from transformers import TrainerCallback


def run_training(
    trainer: Any, label: str, profile: Profile, folder: Path, made_from: MadeFrom
) -> None:
    """Train with a progress line in place of the trainer's bar and printed dictionaries.

    Goes on from the last whole checkpoint in `folder`, which `finished_run` has seen to be of the
    same run. Ctrl-C ends the step, saves a checkpoint and raises KeyboardInterrupt.
    """
    from transformers import PrinterCallback

    if profile.four_bit:
        # TRL casts adapters on 4-bit weights to bf16, where small updates are rounded away and
        # whose gradients fp16's loss scaler cannot take.
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    checkpoint = _last_checkpoint(folder / CHECKPOINTS)
    write_record(folder / CHECKPOINTS, made_from)
    stop = _stop_callback()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress_callback(label))
    trainer.add_callback(stop)
    with stop.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
    if stop.asked:
        done, total = trainer.state.global_step, trainer.state.max_steps
        raise KeyboardInterrupt(
            f"stopped after step {done} of {total}; what is done is kept: call the same again to "
            "go on"
        )


def _last_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint in `folder`; what a kill has left half written is deleted."""
    from transformers.trainer_utils import get_last_checkpoint

    while folder.is_dir() and (last := get_last_checkpoint(str(folder))):
        try:  # what the trainer writes last
            json.loads((Path(last) / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(last)  # a kill has left it half written
            continue
        print(f"going on from step {last.rsplit('-', 1)[1]}")
        return last
    return None


def _stop_callback() -> TrainerCallback:
    """Ends training at the end of the step in which Ctrl-C (or the kernel's stop) is pressed."""
    from transformers import TrainerCallback

    class StopAtStepEnd(TrainerCallback):
        asked = False

        def on_step_end(self, args, state, control, **kwargs):
            if self.asked:
                control.should_save = control.should_training_stop = True

        @contextmanager
        def listening(self) -> Iterator[None]:
            """Until the end of the context the first interrupt only asks; a second one raises."""
            if threading.current_thread() is not threading.main_thread():
                yield  # signals reach the main thread alone
                return

            def ask(number, frame):
                signal.signal(signal.SIGINT, before)
                self.asked = True

            before = signal.signal(signal.SIGINT, ask)
            try:
                yield
            finally:
                signal.signal(signal.SIGINT, before)

    return StopAtStepEnd()


def _progress_callback(label: str) -> TrainerCallback:
    from transformers import TrainerCallback

    class ProgressLine(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self._context = progress(label, state.max_steps, "steps")
            self._advance = self._context.__enter__()
            if state.global_step:  # resumed
                self._advance(state.global_step)

        def on_step_end(self, args, state, control, **kwargs):
            loss = next((log["loss"] for log in reversed(state.log_history) if "loss" in log), None)
            self._advance(1, "" if loss is None else f"(loss {loss:.3f})")

        def on_train_end(self, args, state, control, **kwargs):
            self._context.__exit__(None, None, None)

    return ProgressLine()
