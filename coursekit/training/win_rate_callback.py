"""Does the policy win while it trains? The margin cannot tell; letting it answer can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from ..common.profile import Profile
    from ..evaluation.judges import Judge


class WinRateCallback(TrainerCallback):
    """Lets the policy answer some rows a few times on the way, and compares with given answers.

    `measured` has a line each time: `step` and `contest/win_rate` (a tie counts half); `answers`
    are those of the last time. Pass it to `train_dpo(callbacks=[...])`.

    Args:
        rows: as the judge wants them, with `prompt`.
        baseline: the answers to beat, usually the SFT model's.
        times: about how often, evenly; the last step is always one of them.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        baseline: Sequence[str],
        judge: Judge,
        tokenizer: Any,
        profile: Profile,
        *,
        times: int = 4,
    ) -> None:
        self.rows, self.baseline, self.judge = list(rows), list(baseline), judge
        self.tokenizer, self.profile, self.times = tokenizer, profile, times
        self.measured: list[dict[str, float]] = []
        self.answers: list[str] = []

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        from ..evaluation import win_rate
        from ..lm.generation import generate

        if not state.is_world_process_zero:  # of several processes, one asks and pays
            return
        every = max(1, round(state.max_steps / self.times))
        if state.global_step % every and state.global_step != state.max_steps:
            return
        self.answers = generate(
            model,
            self.tokenizer,
            [row["prompt"] for row in self.rows],
            max_new_tokens=self.profile.max_new_tokens,
            temperature=0.7,
            batch_size=self.profile.generation_batch,
            label=None,
        )
        won = win_rate(self.rows, self.answers, self.baseline, self.judge)
        self.measured.append({"step": state.global_step, "contest/win_rate": won.estimate.value})
