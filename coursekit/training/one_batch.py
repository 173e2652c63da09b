"""TRL's own loss on a few triples, without training: for comparing and for checking."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..common.quiet import quiet
from ..lm.trl_compat import first_batch
from ..preferences import to_trl
from .arguments import machine_arguments
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
        models = {"model": policy, "ref_model": reference}
        return one_batch_loss(one_batch_trainer(tokenizer, triples, folder, options, **models))


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
        "report_to": "none",
        **machine_arguments(),
        "activation_checkpointing": False,
    }
    return dpo_trainer(
        processing_class=tokenizer,
        train_dataset=to_trl(triples, bool(tokenizer.chat_template)),
        options=plain | options,
        **parts,
    )


def one_batch_loss(trainer: DPOTrainer) -> float:
    """The loss of the trainer's first batch, as it computes it."""
    return trainer.compute_loss(trainer.model, first_batch(trainer)).item()
