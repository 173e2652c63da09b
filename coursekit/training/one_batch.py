"""TRL's own loss on a few triples, without training: for comparing and for checking."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..common.quiet import quiet
from ..preferences import to_trl
from .dpo import dpo_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import DPOTrainer


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
    plain = {
        "output_dir": folder,
        "per_device_train_batch_size": len(triples),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": "none",
    }
    return dpo_trainer(
        processing_class=tokenizer,
        train_dataset=to_trl(triples, bool(tokenizer.chat_template)),
        options=plain | options,
        **parts,
    )


def one_batch_loss(trainer: DPOTrainer) -> float:
    """The loss of the trainer's first batch, as it computes it."""
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return trainer.compute_loss(trainer.model, inputs).item()
