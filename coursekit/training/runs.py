"""SFT and DPO: thin layers over TRL's trainers that keep one promise.

The promise: **the reference is the SFT model**, and it stays that. It is easy to break: TRL reloads
the model from disk when it is given neither adapter nor reference, and a copy of a model that went
through a trainer computes with the original's weights. So everything here goes through folders: a
run starts from a saved model, saves its result, and leaves nothing patched in memory; what you
evaluate is what you saved. `train_dpo` checks the reference before the first step and after the
last one.

Beside the weights lies a record of what they were made from. Called again with the same of
everything, a run that was stopped or killed goes on from its last checkpoint, and a finished one is
given back. If anything differs, what lies in the folder is set aside and the run starts anew.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import save_jsonl
from ..common.made_from import (
    MadeFrom,
    differences,
    fingerprint,
    only_here,
    read_record,
    record_path,
    set_aside,
    versions,
    write_record,
)
from ..common.profile import Profile, TrainingSettings
from ..common.progress import progress
from ..common.quiet import quiet
from ..lm.identity import model_identity
from ..lm.loading import adapter_config, base_name, load_model, load_tokenizer, merge_adapter
from ..lm.logprobs import context_of, encode_whole, sequence_logps
from ..lm.weights import check_checksums, write_checksums
from ..preferences import COLUMNS, check_triples, to_trl
from ..preferences.triples import sft_row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback
    from trl import DPOTrainer, SFTTrainer

    from .monitor import Monitor

HISTORY_FILE = "history.jsonl"
CHECKPOINTS = "checkpoints"  # in a run's folder, while it runs
# A folder with one of these holds a model, whoever has put it there.
_SIGNS = (HISTORY_FILE, "adapter_config.json", "config.json")
ASKED_FILE = "asked.jsonl"  # in an SFT run's: some of its prompts, for what is asked later
PROBES = 8  # rows on which the reference is checked
_known: set[Path] = set()  # runs that this process has finished, or has told to be


@dataclass(frozen=True)
class TrainingRun:
    """A finished run: `folder` holds the adapter and tokenizer (`load_model(run.folder)`), and
    `history.jsonl` what the trainer logged: one dict a logging step, with TRL's metric names.

    made_from: the run's own record. `stage` (`SFT`, `DPO`, `reward model`); what it started from,
        by its identity (`models.identity`): `base` of SFT, else `sft`; `rows` (a fingerprint) and
        `n`; `settings` (the fields of `TrainingSettings`); `seed`; for DPO `validation` and
        `options`, and `watched` if a monitor was; `versions` of the libraries.
    """

    folder: Path
    history: list[dict[str, Any]]
    made_from: MadeFrom = field(default_factory=dict)


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

    A run that is finished in `folder`, from the same of everything, is given back.

    Raises ValueError if there are no rows, or for a row that is too long.
    """
    if not demonstrations:
        raise ValueError("no demonstrations: SFT needs rows with a prompt and a response")
    settings, folder = settings or profile.sft, Path(folder)
    with only_here(folder):
        tokenizer = load_tokenizer(base, profile)  # also fetches what tells a hub model's commit
        made_from = {
            "stage": "SFT",
            "base": model_identity(base, profile),
            "rows": fingerprint([[row["prompt"], row["response"]] for row in demonstrations]),
            "n": len(demonstrations),
            "settings": asdict(settings),
            "seed": seed,
        }
        if run := finished_run(folder, made_from):
            return run
        trainer = _sft_trainer(base, tokenizer, demonstrations, folder, profile, settings, seed)
        run_training(trainer, "SFT", profile, folder, made_from)
        asked = ({"prompt": row["prompt"]} for row in demonstrations[:PROBES])
        save_jsonl(asked, asked_path(folder))
        return _save(trainer, tokenizer, folder, made_from, base, profile.artifacts)


def _sft_trainer(
    base: str | Path,
    tokenizer: Any,
    demonstrations: Sequence[dict[str, Any]],
    folder: Path,
    profile: Profile,
    settings: TrainingSettings,
    seed: int,
) -> SFTTrainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = load_model(base, profile)
    chat = bool(tokenizer.chat_template)
    rows = [sft_row(row, chat) for row in demonstrations]
    check_rows_fit(model, tokenizer, demonstrations, ("response",), settings.max_length)
    with quiet():
        return SFTTrainer(
            model=model,
            args=SFTConfig(**run_arguments(settings, profile, folder, seed)),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_lora(settings),
        )


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

    A run that is finished in `folder`, from the same of everything, is given back; with a monitor,
    if it was watched alike.

    Args:
        validation: triples on which the same metrics are logged (prefix `eval_`) each epoch.
        precompute_reference: compute the reference's log-probabilities once, before training.
        monitor: measures the KL and more on the way; see `monitoring.Monitor`.
        wrong_reference: another model's folder, to see what a wrong reference does; not checked.
        overrides: further fields of TRL's `DPOConfig` (`loss_type`, `label_smoothing`, ...).

    Raises:
        ValueError: a row that is no triple, or is too long.
        ReferenceError: the reference is not the SFT model, or changed while the policy trained.
    """
    triples = check_triples(triples)
    validation = check_triples(validation, "the validation triples") if validation else None
    settings, folder = settings or profile.dpo, Path(folder)
    with only_here(folder), quiet():
        tokenizer = load_tokenizer(sft, profile)
        made_from = {
            "stage": "DPO",
            "sft": model_identity(sft, profile),
            "rows": rows_fingerprint(triples),
            "n": len(triples),
            "validation": rows_fingerprint(validation) if validation else None,
            "settings": asdict(settings),
            "seed": seed,
            "options": {
                "precompute_reference": precompute_reference,
                "wrong_reference": wrong_reference and model_identity(wrong_reference, profile),
                **overrides,
            },
            **({"watched": monitor.watches} if monitor else {}),
        }
        if run := finished_run(folder, made_from):
            if adapter_config(folder):  # which may stand on an equal model that was set aside
                _name_base(folder, _stands_on(sft, profile.four_bit), profile.artifacts)
            return run
        probes = triples[:PROBES]
        chat = bool(tokenizer.chat_template)
        expected = pair_logps(load_model(sft, profile), tokenizer, probes)
        model, peft_config, reference = policy_and_reference(sft, settings, profile)
        limit = overrides.get("max_length", settings.max_length)
        for rows in (triples, validation or []):
            check_rows_fit(model, tokenizer, rows, ("chosen", "rejected"), limit)
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
            monitor.attach(trainer, tokenizer, profile, folder)
        run_training(trainer, "DPO", profile, folder, made_from)
        if not wrong_reference:
            assert_reference(trainer, tokenizer, probes, expected, "after training")
        return _save(trainer, tokenizer, folder, made_from, sft, profile.artifacts)


def rows_fingerprint(triples: Sequence[dict[str, Any]]) -> str:
    """What a run's record says of its triples: their prompts and responses, in order."""
    return fingerprint([[row[name] for name in COLUMNS] for row in triples])


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


def check_rows_fit(
    model: PreTrainedModel,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    sides: Sequence[str],
    max_length: int | None,
) -> None:
    """Raise ValueError if a response is too long with its prompt, in any row.

    A trainer would cut it unseen, and its end token with it; beyond the context it would train on
    positions that the model does not have. `sides`: the columns that hold responses.
    """
    limit = min((bound for bound in (max_length, context_of(model)) if bound), default=math.inf)
    prompts = [row["prompt"] for row in rows]
    over = [
        (number, side, len(ids))
        for side in sides
        for number, ids in enumerate(
            encode_whole(tokenizer, prompts, [row[side] for row in rows]), start=1
        )
        if len(ids) > limit
    ]
    if over:
        number, side, length = over[0]
        raise ValueError(
            f"row {number}, column {side!r}: {length} tokens with its prompt, where max_length is "
            f"{max_length} and the model's context {context_of(model)} ({len(over)} of "
            f"{len(sides) * len(rows)} responses are too long): the end would be cut unseen. Raise "
            "max_length (up to the context), or shorten or leave out the rows"
        )


def asked_path(folder: str | Path) -> Path:
    """Where an SFT run notes some of its prompts."""
    return Path(folder) / ASKED_FILE


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


def finished_run(folder: Path, made_from: MadeFrom) -> TrainingRun | None:
    """The run in `folder` if it is finished and was made from the same.

    A run of something else, finished or not, is set aside. The adapters beside it that were trained
    on it follow: none of them is ever put on the weights that take its place.
    """
    checkpoints = folder / CHECKPOINTS
    try:
        if is_finished(folder):
            run = load_run(folder)
            check_checksums(folder)
            differ = differences(run.made_from, made_from)
            if not differ:
                if folder.absolute() not in _known:
                    print(f"{folder.name}: finished before, from the same; not made anew")
                    _known.add(folder.absolute())
                return run
        elif record_path(checkpoints).is_file() or any(checkpoints.glob("checkpoint-*")):
            differ = differences(read_record(checkpoints), made_from)
        elif any((folder / name).is_file() for name in _SIGNS):
            differ = differences(None, made_from)
        else:
            return None
        why = differ and f"made from something else ({'; '.join(differ)})"
    except (ValueError, FileNotFoundError) as error:
        why = f"not whole ({error})"
    if why:
        _follow(folder, set_aside(folder, why))
    return None


def _follow(folder: Path, aside: Path) -> None:
    """Let the adapters beside `folder` that name it as their base name `aside`."""
    for path in aside.parent.glob("*/adapter_config.json"):
        try:
            base = adapter_config(path.parent)["base_model_name_or_path"]
        except ValueError:  # a damaged one belongs to nothing
            continue
        if Path(base).absolute() == folder.absolute():
            _name_base(path.parent, aside, aside.parent)


def _name_base(folder: Path, base: str | Path, artifacts: Path) -> None:
    """Write into the adapter in `folder` what it stands on."""
    path = folder / "adapter_config.json"
    text = path.read_text(encoding="utf-8")
    config = json.loads(text) | {"base_model_name_or_path": base_name(base, folder, artifacts)}
    new = json.dumps(config, indent=2, sort_keys=True)
    if new != text:
        path.write_text(new, encoding="utf-8")


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


def _save(
    trainer: Any,
    tokenizer: Any,
    folder: Path,
    made_from: MadeFrom,
    started_from: str | Path,
    artifacts: Path,
) -> TrainingRun:
    """Save adapter (or model), tokenizer and history; say what the adapter belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "peft_config"):
        # Only the trained adapter: TRL's frozen copy of an SFT adapter is not part of the result.
        # Without False, peft looks on the hub whether the base's vocabulary has grown.
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        _name_base(folder, _stands_on(started_from, "ref" in model.peft_config), artifacts)
    else:
        trainer.save_model(folder)
    return close_run(trainer, tokenizer, folder, made_from)


def _stands_on(started_from: str | Path, continued: bool) -> str | Path:
    """What an adapter is loaded onto: a continued one onto the base of the one it continues."""
    link = adapter_config(started_from) if continued else None
    return link["base_model_name_or_path"] if link else started_from


def close_run(trainer: Any, tokenizer: Any, folder: Path, made_from: MadeFrom) -> TrainingRun:
    """What every run saves after its weights; from then on it counts as finished."""
    write_checksums(folder)
    tokenizer.save_pretrained(folder)
    # The trainer's last entry is the run's summary, not a step.
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    save_jsonl(history, folder / HISTORY_FILE)
    tracked = folder / CHECKPOINTS / "runs"
    if tracked.is_dir():  # TensorBoard's, where `report_to` named it: kept
        shutil.copytree(tracked, folder / "runs", dirs_exist_ok=True)
    notes = {"versions": versions(), "history": fingerprint(history)}
    made_from = write_record(folder, made_from | notes)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    _known.add(folder.absolute())
    return TrainingRun(folder, history, made_from)


def is_finished(folder: str | Path) -> bool:
    """Whether a training run was finished and saved in `folder`: its record is written last."""
    return record_path(folder).is_file()


def load_run(folder: str | Path) -> TrainingRun:
    """A finished run from its folder, with the record of what it was made from.

    Raises FileNotFoundError if none has finished there, ValueError if its history or its record
    are damaged.
    """
    folder = Path(folder)
    made_from = read_record(folder)
    if made_from is None:
        raise FileNotFoundError(
            f"no finished run in {folder} ({record_path(folder).name} is missing): train it first"
        )
    path = folder / HISTORY_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        history = [json.loads(line) for line in lines]
        if fingerprint(history) != made_from.get("history"):
            raise ValueError(f"its {len(history)} lines are not those that the run has written")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): move {folder.name} away and train it again"
        ) from error
    return TrainingRun(folder, history, made_from)
