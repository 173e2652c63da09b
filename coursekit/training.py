"""SFT and DPO: thin layers over TRL's trainers that keep one promise.

The promise: **the reference is the SFT model**, and it stays that. It is easy to break: TRL reloads
the model from disk when it is given neither adapter nor reference, and a copy of a model that went
through a trainer computes with the original's weights. So everything here goes through folders: a
run starts from a saved model, saves its result, and leaves nothing patched in memory; what you
evaluate is what you saved. `train_dpo` checks the reference before the first step and after the
last one. A run that was stopped or killed goes on from its last checkpoint when it is called again
with the same arguments.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .logprobs import sequence_logps
from .models import adapter_config, load_model, load_tokenizer, merge_adapter
from .preferences import COLUMNS, check_triples, save_jsonl, to_trl
from .preferences.journal import fingerprint
from .profile import Profile, TrainingSettings
from .progress import progress
from .quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback
    from trl import DPOTrainer

    from .monitoring import Monitor

HISTORY_FILE = "history.jsonl"
CHECKPOINTS = "checkpoints"  # in a run's folder, while it runs
PROBES = 8  # rows on which the reference is checked


@dataclass(frozen=True)
class TrainingRun:
    """A finished run: `folder` holds the adapter and tokenizer (`load_model(run.folder)`), and
    `history.jsonl` what the trainer logged: one dict a logging step, with TRL's metric names.
    """

    folder: Path
    history: list[dict[str, Any]]


class ReferenceError(RuntimeError):
    """The reference is not the SFT model, so the loss would compare with the wrong model."""


def train_sft(
    base: str | Path,
    demonstrations: Sequence[dict[str, Any]],
    folder: str | Path,
    profile: Profile,
    *,
    settings: TrainingSettings | None = None,
    seed: int = 0,
) -> TrainingRun:
    """Train a LoRA adapter on rows `{"prompt", "response"}`; the loss counts the response only.

    Raises ValueError if there are no rows.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if not demonstrations:
        raise ValueError("no demonstrations: SFT needs rows with a prompt and a response")
    settings = settings or profile.sft
    tokenizer = load_tokenizer(base, profile)
    model = load_model(base, profile)
    chat = bool(tokenizer.chat_template)
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}] if chat else row["prompt"],
            "completion": (
                [{"role": "assistant", "content": row["response"]}] if chat else row["response"]
            ),
        }
        for row in demonstrations
    ]
    with quiet():
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**run_arguments(settings, profile, folder, seed)),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_lora(settings),
        )
        run = fingerprint(str(base), rows, asdict(settings), seed)
        run_training(trainer, "SFT", profile, Path(folder), run)
    return _save(trainer, tokenizer, folder, started_from=base)


def train_dpo(
    sft: str | Path,
    triples: Sequence[dict[str, Any]],
    folder: str | Path,
    profile: Profile,
    *,
    settings: TrainingSettings | None = None,
    validation: Sequence[dict[str, Any]] | None = None,
    precompute_reference: bool = True,
    seed: int = 0,
    monitor: Monitor | None = None,
    wrong_reference: str | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **overrides: Any,
) -> TrainingRun:
    """Train the SFT model saved in `sft` on preference triples with DPO and LoRA.

    The reference is the SFT model. Where that is whole, or an adapter that can be merged, a new
    adapter is trained on top and the reference is the model without it; on 4-bit weights the SFT
    adapter itself is trained on and TRL keeps a frozen copy of it. With `lora_rank=0` all weights
    are trained and the reference is loaded from `sft` a second time.

    Args:
        validation: triples on which the same metrics are logged (prefix `eval_`) each epoch.
        precompute_reference: compute the reference's log-probabilities once, before training.
        monitor: measures the KL and more on the way; see `monitoring.Monitor`.
        wrong_reference: another model's folder, to see what a wrong reference does; not checked.
        overrides: further fields of TRL's `DPOConfig` (`loss_type`, `label_smoothing`, ...).

    Raises:
        ValueError: a row that is no triple.
        ReferenceError: the reference is not the SFT model, or changed while the policy trained.
    """
    triples = check_triples(triples)
    validation = check_triples(validation, "the validation triples") if validation else None
    settings = settings or profile.dpo
    tokenizer = load_tokenizer(sft, profile)
    probes = triples[:PROBES]
    chat = bool(tokenizer.chat_template)
    with quiet():
        expected = pair_logps(load_model(sft, profile), tokenizer, probes)
        model, peft_config, reference = policy_and_reference(sft, settings, profile)
        if wrong_reference:
            reference = load_model(wrong_reference, profile)
        trainer = _make_dpo_trainer(
            model=model,
            ref_model=reference,
            peft_config=peft_config,
            processing_class=tokenizer,
            train_dataset=to_trl(triples, chat),
            eval_dataset=to_trl(validation, chat) if validation else None,
            callbacks=list(callbacks),
            options=run_arguments(settings, profile, folder, seed)
            | {"beta": settings.beta, "precompute_ref_log_probs": precompute_reference}
            | validation_arguments(len(validation or ()), settings.batch_size)
            | overrides,
        )
        if not wrong_reference:
            assert_reference(trainer, tokenizer, probes, expected, "before training")
        if monitor:
            monitor.attach(trainer, tokenizer, profile, Path(folder))
        probed = [round(value, 3) for side in expected for value in side]
        rows = [[row[name] for name in COLUMNS] for row in triples]
        options = [precompute_reference, seed, str(wrong_reference), str(overrides)]
        run = fingerprint(probed, rows, asdict(settings), options)
        run_training(trainer, "DPO", profile, Path(folder), run)
        if not wrong_reference:
            assert_reference(trainer, tokenizer, probes, expected, "after training")
    return _save(trainer, tokenizer, folder, started_from=sft)


def policy_and_reference(sft: str | Path, settings: TrainingSettings, profile: Profile):
    """The model to train, the new adapter's configuration, and the reference if it is a model."""
    if settings.lora_rank == 0:
        whole, reference = load_model(sft, profile), load_model(sft, profile)
        if adapter_config(sft):
            whole, reference = merge_adapter(whole), merge_adapter(reference)
        return whole.requires_grad_(True), None, reference.requires_grad_(False)
    if adapter_config(sft) and profile.four_bit:
        return load_model(sft, profile, trainable=True), None, None
    model = load_model(sft, profile)
    if adapter_config(sft):
        model = merge_adapter(model)
    return model, _lora(settings), None


def _make_dpo_trainer(*, options: dict[str, Any], **parts: Any) -> DPOTrainer:
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(args=DPOConfig(**options), **parts)


def trl_loss(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: Any,
    triples: Sequence[dict[str, Any]],
    **options: Any,
) -> float:
    """The loss that TRL's `DPOTrainer` computes on `triples` as one batch, without training.

    For comparing formulas. `options`: fields of TRL's `DPOConfig` (`beta`, `loss_type`, ...).
    """
    import tempfile

    import torch

    with quiet(), tempfile.TemporaryDirectory() as folder, torch.no_grad():
        trainer = one_batch_trainer(
            tokenizer, triples, folder, options, model=policy, ref_model=reference
        )
        return one_batch_loss(trainer)


def one_batch_trainer(
    tokenizer: Any,
    triples: Sequence[dict[str, Any]],
    folder: str,
    options: dict[str, Any],
    **parts: Any,
) -> DPOTrainer:
    """A trainer that holds `triples` as one batch, to be looked at and never trained.

    options: fields of TRL's `DPOConfig`; parts: the trainer's models and adapter configuration.
    """
    import torch

    plain = {
        "output_dir": folder,
        "per_device_train_batch_size": len(triples),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": "none",
    }
    return _make_dpo_trainer(
        processing_class=tokenizer,
        train_dataset=to_trl(triples, bool(tokenizer.chat_template)),
        options=plain | options,
        **parts,
    )


def one_batch_loss(trainer: DPOTrainer) -> float:
    """The loss of the trainer's first batch, as it computes it."""
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return trainer.compute_loss(trainer.model, inputs).item()


@contextmanager
def reference_of(trainer: DPOTrainer) -> Iterator[PreTrainedModel]:
    """The model that is the trainer's reference: its own, the policy without adapter, or `ref`.

    For computing with it; the policy is as it was when the context ends. A whole model that is
    trained on precomputed reference log-probabilities has none to compute with: ReferenceError.
    """
    from trl.trainer.utils import use_adapter

    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "peft_config"):
        with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
            yield model
        return
    if trainer.state.global_step:
        raise ReferenceError(
            "the weights have moved and no reference is kept: pass precompute_reference=False, or "
            "train an adapter"
        )
    yield model  # before the first step the starting weights are the reference


def reference_logps(trainer: DPOTrainer, tokenizer, triples) -> tuple[list[float], list[float]]:
    """log pi_ref of chosen and rejected, by the trainer's own reference (model or adapter)."""
    with reference_of(trainer) as reference:
        return pair_logps(reference, tokenizer, triples)


def assert_reference(
    trainer: DPOTrainer,
    tokenizer: Any,
    triples: Sequence[dict[str, Any]],
    expected: tuple[list[float], list[float]],
    when: str,
    tolerance: float = 0.05,
) -> None:
    """Raise `ReferenceError` unless the reference gives the SFT model's log-probabilities.

    A first-step loss of ln 2 is not enough: it also holds where policy and reference are the same
    wrong model. `tolerance` is in nats a response, relative to 100 nats above that: half precision
    moves sums that much, a wrong model far more.
    """
    found = reference_logps(trainer, tokenizer, triples)
    worst, there, here = max(
        (abs(one - other) / max(1.0, abs(one) / 100), one, other)
        for ones, others in zip(expected, found, strict=True)
        for one, other in zip(ones, others, strict=True)
    )
    if worst > tolerance:
        raise ReferenceError(
            f"{when} the reference gives a response {here:.2f} nats where the SFT model gives "
            f"{there:.2f}: the loss would compare with another model. Start from the folder the "
            "SFT model was saved in, and do not reuse a model that went through a trainer."
        )


def assert_first_loss(history: Sequence[dict[str, Any]], tolerance: float = 0.01) -> float:
    """The first logged loss, which must be ln 2: policy and reference are still the same model.

    Holds for the sigmoid loss without label smoothing when each step is logged. Raises
    `ReferenceError` otherwise.
    """
    first = next(entry["loss"] for entry in history if "loss" in entry)
    if abs(first - math.log(2)) > tolerance:
        raise ReferenceError(
            f"the first step's loss is {first:.4f}, not ln 2 = {math.log(2):.4f}: policy and "
            "reference differ before training, so the reference is not the SFT model"
        )
    return first


def pair_logps(model: PreTrainedModel, tokenizer, triples) -> tuple[list[float], list[float]]:
    """log pi(y | x) of the chosen and of the rejected responses, in nats."""
    prompts = [row["prompt"] for row in triples]
    return tuple(
        sequence_logps(model, tokenizer, prompts, [row[side] for row in triples]).tolist()
        for side in ("chosen", "rejected")
    )


def _lora(settings: TrainingSettings):
    from peft import LoraConfig

    if settings.lora_rank == 0:
        return None
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(settings.lora_targets),
        task_type="CAUSAL_LM",
    )


def run_arguments(
    settings: TrainingSettings, profile: Profile, folder: str | Path, seed: int
) -> dict[str, Any]:
    """The arguments that SFT and DPO share, right for this machine.

    TRL's defaults are made for a GPU: bf16 (a T4 has none) and activation checkpointing (slower,
    and on a small model for nothing).
    """
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(Path(folder) / CHECKPOINTS),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "warmup_steps": settings.warmup,
        "max_length": settings.max_length,
        "use_cpu": not on_gpu,
        "bf16": on_gpu and profile.dtype == "bfloat16",
        "fp16": on_gpu and profile.dtype == "float16",
        "activation_checkpointing": on_gpu,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 0.2,  # of the run
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "dataloader_pin_memory": on_gpu,
    }


def validation_arguments(rows: int, batch_size: int) -> dict[str, Any]:
    """Evaluate each epoch, in batches of even size.

    TRL averages the means of the batches: of 65 rows in batches of 32, the last row would count as
    much as 32 others, and an accuracy of 0.78 is logged as 0.53 if that row is ranked wrong.
    """
    if rows == 0:
        return {}
    batches = -(-rows // batch_size)
    return {"eval_strategy": "epoch", "per_device_eval_batch_size": -(-rows // batches)}


def run_training(trainer: Any, label: str, profile: Profile, folder: Path, run: str) -> None:
    """Train with a progress line in place of the trainer's bar and printed dictionaries.

    Goes on from a checkpoint of the same `run` if there is one. Ctrl-C ends the step, saves a
    checkpoint and raises KeyboardInterrupt.
    """
    from transformers import PrinterCallback

    if profile.four_bit:
        # TRL casts adapters on 4-bit weights to bf16, where small updates are rounded away and
        # whose gradients fp16's loss scaler cannot take.
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    checkpoint = _checkpoint_of(run, folder / CHECKPOINTS)
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


def _checkpoint_of(run: str, folder: Path) -> str | None:
    """The last whole checkpoint in `folder` if it belongs to `run`; others are deleted."""
    from transformers.trainer_utils import get_last_checkpoint

    name = folder / "run.txt"
    if not name.is_file() or name.read_text(encoding="utf-8") != run:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        name.write_text(run, encoding="utf-8")
        return None
    while last := get_last_checkpoint(str(folder)):
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


def _save(trainer: Any, tokenizer: Any, folder: str | Path, started_from: str | Path):
    """Save adapter (or model), tokenizer and history; say what the adapter belongs to."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HISTORY_FILE).unlink(missing_ok=True)  # until the new run is saved whole
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "peft_config"):
        # Only the trained adapter: TRL's frozen copy of an SFT adapter is not part of the result.
        model.save_pretrained(folder, selected_adapters=["default"])
        continued = adapter_config(started_from) if "ref" in model.peft_config else None
        belongs_to = continued["base_model_name_or_path"] if continued else str(started_from)
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {
            "base_model_name_or_path": belongs_to
        }
        path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    else:
        trainer.save_model(folder)
    return close_run(trainer, tokenizer, folder)


def close_run(trainer: Any, tokenizer: Any, folder: Path) -> TrainingRun:
    """What every run saves after its weights; from then on it counts as finished."""
    tokenizer.save_pretrained(folder)
    # The trainer's last entry is the run's summary, not a step.
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    save_jsonl(history, folder / HISTORY_FILE)
    tracked = folder / CHECKPOINTS / "runs"
    if tracked.is_dir():  # TensorBoard's, where `report_to` named it: kept
        shutil.copytree(tracked, folder / "runs", dirs_exist_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return TrainingRun(folder, history)


def is_finished(folder: str | Path) -> bool:
    """Whether a training run was finished and saved in `folder`: the history is written last."""
    return (Path(folder) / HISTORY_FILE).is_file()


def load_run(folder: str | Path) -> TrainingRun:
    """A finished run from its folder. Raises FileNotFoundError if none has finished there."""
    path = Path(folder) / HISTORY_FILE
    if not is_finished(folder):
        raise FileNotFoundError(
            f"no finished run in {folder} ({HISTORY_FILE} is missing): train it first"
        )
    return TrainingRun(
        Path(folder), [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    )
