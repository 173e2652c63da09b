"""What a trainer is told: the profile's settings in the words of TRL and peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common import ranks
from ..common.profile import Profile, TrainingSettings
from .run import CHECKPOINTS

if TYPE_CHECKING:
    from peft import LoraConfig


def run_arguments(
    settings: TrainingSettings, profile: Profile, folder: str | Path, seed: int
) -> dict[str, Any]:
    """The arguments that all stages share, right for this machine."""
    rows, accumulation = share_out(settings.batch_size, settings.accumulation, ranks.processes())
    return {
        "output_dir": str(Path(folder) / CHECKPOINTS),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "warmup_steps": settings.warmup,
        "max_length": settings.max_length,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 0.2,  # of the run
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        **machine_arguments(profile.dtype),
    }


def share_out(batch_size: int, accumulation: int, processes: int) -> tuple[int, int]:
    """Rows a process and a step, and steps an update, for `processes` that train together.

    An update sees as many rows as with one process (batch_size * accumulation), and the same ones:
    the k-th batch of one is the k-th batches of all, side by side. No step of a process has more
    rows than `batch_size`, so none needs more memory than one alone would.

    Raises ValueError if the rows cannot be shared out evenly.
    """
    update = batch_size * accumulation
    if update % processes:
        shares = ", ".join(str(n) for n in range(1, update + 1) if update % n == 0)
        raise ValueError(
            f"an update of {update} rows (batch_size {batch_size} × accumulation {accumulation}) "
            f"cannot be shared out evenly among {processes} processes: take {shares} of them, or "
            "train anew with another batch_size"
        )
    share = update // processes
    rows = max(n for n in range(1, min(batch_size, share) + 1) if share % n == 0)
    return rows, share // rows


def machine_arguments(dtype: str = "float32") -> dict[str, bool]:
    """Where and in which number format is computed.

    TRL's defaults are made for a GPU: bf16 (a T4 has none) and activation checkpointing (slower,
    and on a small model for nothing).
    """
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "use_cpu": not on_gpu,
        "bf16": on_gpu and dtype == "bfloat16",
        "fp16": on_gpu and dtype == "float16",
        "activation_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
    }


def validation_arguments(rows: int, batch_size: int, processes: int = 1) -> dict[str, Any]:
    """Evaluate each epoch, in batches of even size.

    TRL averages the means of the batches: of 65 rows in batches of 32, the last row would count as
    much as 32 others, and an accuracy of 0.78 is logged as 0.53 if that row is ranked wrong.
    batch_size: rows of all `processes` together. Where they cannot be shared out evenly, some rows
    count twice.
    """
    if rows == 0:
        return {}
    batches = -(-rows // batch_size)
    return {
        "eval_strategy": "epoch",
        "per_device_eval_batch_size": -(-rows // (batches * processes)),
    }


def lora_config(
    settings: TrainingSettings, task: str = "CAUSAL_LM", **more: Any
) -> LoraConfig | None:
    """The adapter to train, or None if all weights are.

    task: what the model is for, in peft's words; more: further fields of `LoraConfig`.
    """
    from peft import LoraConfig

    if settings.lora_rank == 0:
        return None
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(settings.lora_targets),
        task_type=task,
        **more,
    )
