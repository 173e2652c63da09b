"""What matters while DPO trains and TRL does not log: the KL, entropy, lengths, held-out margins.

Every few steps the policy answers some prompts at temperature 1; policy and reference score those
answers (KL, entropy, length) and a few held-out triples (margin, shift of chosen and rejected). The
numbers join TRL's own log entry of the step, so they reach `metrics.jsonl`, the run's history and
every tracker that `report_to` names.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from ..common.files import json_lines, read_text
from ..common.made_from import fingerprint
from ..common.prompts import Prompt, as_text
from ..lm.kl import estimate_kl, sample_responses
from ..lm.logprobs import EncodedPair, encode_pair, score_tokens, token_logps
from ..lm.trl_compat import bare_model, log_with_step
from .reference import reference_of

if TYPE_CHECKING:
    import pandas as pd
    from trl import DPOTrainer

    from ..common.profile import Profile

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"


class Monitor(TrainerCallback):
    """Measures the policy before the first step, about `times` times on the way, and at the end.

    Pass it to `train_dpo(monitor=...)`. What it measures, by name:

    kl/k1, kl/k3 and kl/k1_se, kl/k3_se: KL from the reference, nats a response, see `kl`.
    policy/entropy: of the next token, mean over sampled tokens, nats. policy/length: tokens a
        response. policy/ended: share of responses that ended by themselves.
    held/margin, held/accuracy: of the validation triples (beta times log-ratios, as TRL's rewards).
    held/reference_logp: log pi_ref of the chosen responses, nats *a token*.
    held/chosen_shift, held/rejected_shift: log pi_theta - log pi_ref, nats *a token*.
    monitor/seconds: what measuring cost.

    Args:
        prompts: to be answered; the first three answers are kept as samples.
        validation: held-out triples.
        times: measurements on the way.
        show: called with the metrics so far, a line a step, after each measurement
            (`widgets.live(plot_monitor)`).
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        validation: Sequence[dict[str, Any]],
        *,
        times: int = 4,
        show: Callable[[pd.DataFrame], None] | None = None,
    ) -> None:
        if len(prompts) < 2 or not validation:
            raise ValueError(
                f"{len(prompts)} prompts and {len(validation)} validation triples: the monitor "
                "needs at least two prompts (a standard error) and one triple"
            )
        self.prompts, self.validation = list(prompts), list(validation)
        self.times, self.show = times, show
        self.seconds = 0.0

    @property
    def watches(self) -> str:
        """Differs where a monitor measures something else, or at other times."""
        return fingerprint(self.prompts, self.validation, self.times)

    def attach(self, trainer: DPOTrainer, tokenizer: Any, profile: Profile, folder: Path) -> None:
        """Bind to a trainer, before training; `folder` gets `metrics.jsonl` and `samples.jsonl`."""
        self.trainer, self.tokenizer, self.profile = trainer, tokenizer, profile
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held = [
            encode_pair(tokenizer, row["prompt"], row[side])
            for side in ("chosen", "rejected")
            for row in self.validation
        ]
        self._held_reference: Tensor | None = None
        trainer.add_callback(self)

    # The trainer calls these.

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start the files, or, when a run is resumed, forget what came after its checkpoint."""
        for name in (METRICS_FILE, SAMPLES_FILE):
            path = self.folder / name
            lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
            resumed = state.global_step > 0
            kept = [line for line in lines if resumed and _step(line) <= state.global_step]
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._every = max(1, round(state.max_steps / self.times))
        if state.global_step == 0:
            self._append(METRICS_FILE, {"step": 0, **self.measure(0)})

    def on_step_end(self, args, state, control, **kwargs) -> None:
        step = state.global_step
        if step % self._every == 0 or step == state.max_steps:
            for name, value in self.measure(step).items():
                log_with_step(self.trainer, name, value)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if logs and "train_runtime" not in logs:
            self._append(METRICS_FILE, {"step": state.global_step, **logs})
            if self.show and "kl/k1" in logs:
                start = time.perf_counter()
                self.show(load_metrics(self.folder))
                self.seconds += time.perf_counter() - start

    def measure(self, step: int) -> dict[str, float]:
        """All metrics of the policy as it is now; appends the samples to their file."""
        start = time.perf_counter()
        model = bare_model(self.trainer)
        pairs = sample_responses(
            model,
            self.tokenizer,
            self.prompts,
            max_new_tokens=self.profile.max_new_tokens,
            seed=step,
            batch_size=self.profile.generation_batch,
            label=None,
        )
        scores = score_tokens(model, pairs, _logps_and_entropy)  # (T, 2) each
        held = _sums(score_tokens(model, self._held, token_logps))  # (2 R,)
        with reference_of(self.trainer) as reference:
            theirs = score_tokens(reference, pairs, token_logps)  # (T,) each
            if self._held_reference is None:
                self._held_reference = _sums(score_tokens(reference, self._held, token_logps))
        metrics = {
            **_kl_metrics([rows[:, 0] for rows in scores], theirs),
            **self._policy_metrics(pairs, [rows[:, 1] for rows in scores]),
            **self._held_metrics(held - self._held_reference),
        }
        self._keep_samples(step, pairs)
        metrics["monitor/seconds"] = time.perf_counter() - start
        self.seconds += metrics["monitor/seconds"]
        return metrics

    def _policy_metrics(
        self, pairs: Sequence[EncodedPair], entropies: Sequence[Tensor]
    ) -> dict[str, float]:
        """From the sampled responses and the entropies of their tokens, (T,) each."""
        end = self.tokenizer.eos_token_id
        return {
            "policy/entropy": torch.cat(list(entropies)).mean().item(),
            "policy/length": sum(len(pair.response_ids) for pair in pairs) / len(pairs),
            "policy/ended": sum(pair.response_ids[-1] == end for pair in pairs) / len(pairs),
        }

    def _held_metrics(self, log_ratios: Tensor) -> dict[str, float]:
        """From the summed log-ratios of the chosen and then the rejected responses, (2 R,)."""
        chosen, rejected = log_ratios.chunk(2)
        tokens = torch.tensor([len(pair.response_ids) for pair in self._held])
        per_token = log_ratios / tokens
        margins = self.trainer.beta * (chosen - rejected)
        return {
            "held/margin": margins.mean().item(),
            "held/accuracy": (margins > 0).float().mean().item(),
            "held/reference_logp": (self._held_reference / tokens).chunk(2)[0].mean().item(),
            "held/chosen_shift": per_token.chunk(2)[0].mean().item(),
            "held/rejected_shift": per_token.chunk(2)[1].mean().item(),
        }

    def _keep_samples(self, step: int, pairs: Sequence[EncodedPair]) -> None:
        for number, pair in enumerate(pairs[:3]):
            text = self.tokenizer.decode(pair.response_ids, skip_special_tokens=True)
            about = {"step": step, "prompt": number, "asked": as_text(self.prompts[number])}
            self._append(SAMPLES_FILE, about | {"response": text})

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def load_metrics(folder: str | Path) -> pd.DataFrame:
    """What a run recorded, a line a step: TRL's metrics, and the monitor's where it measured.

    `folder`: the run's, or the path of a metrics file. A last line that a kill has cut is left out.
    Raises FileNotFoundError if there is none, ValueError with the line that holds no metrics.
    """
    import pandas as pd

    path = Path(folder)
    path = path / METRICS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: train with monitor=Monitor(...) to have metrics")
    rows = _whole_lines(path)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, ValueError):
            raise row
        step = row.get("step") if isinstance(row, dict) else None
        if type(step) not in (int, float) or not 0 <= step < 1e15:
            raise ValueError(
                f"{path}, row {number} has no number of a step ('step'): give the {METRICS_FILE} "
                "of a run, or take the line out"
            )
    return pd.DataFrame(rows).groupby("step", as_index=False).first()


def _whole_lines(path: Path) -> list[Any]:
    """What the lines hold, or a ValueError in place of one, but for a last one that is cut."""
    text = read_text(path)
    rows = json_lines(text, path)
    if rows and isinstance(rows[-1], ValueError) and not text.endswith("\n"):
        print(f"{path}: the last line is cut, as a kill leaves it, and left out")
        rows.pop()
    if not rows:
        raise ValueError(f"{path} holds no metrics: train with monitor=Monitor(...) to have some")
    return rows


def _kl_metrics(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> dict[str, float]:
    """From policy's and reference's log-probabilities of the sampled tokens, (T,) a response."""
    kl = estimate_kl(ours, theirs)
    return {"kl/k1": kl.k1, "kl/k1_se": kl.k1_se, "kl/k3": kl.k3, "kl/k3_se": kl.k3_se}


def _logps_and_entropy(logits: Tensor, input_ids: Tensor) -> Tensor:
    """(B, T - 1, 2): log-probability of each token, and entropy of what it was drawn from."""
    logps = logits[:, :-1].float().log_softmax(-1)  # (B, T - 1, V)
    entropy = -(logps.exp() * logps).sum(-1)
    return torch.stack([token_logps(logits, input_ids), entropy], -1)


def _step(line: str) -> float:
    """The step of a line; infinite for one that a kill has cut, or that has none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _sums(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack([row.sum() for row in rows])
