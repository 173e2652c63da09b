"""A trainer for the losses that need no reference: theirs are ours, the loop is transformers'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import Trainer

from ...lm.logprobs import EncodedPair, encode_pair, pad_right, sum_over_response, token_logps

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

Loss = Callable[..., Tensor | tuple[Tensor, ...]]


class PairTrainer(Trainer):
    """Minimises a loss of the *mean* log-probabilities of chosen and rejected responses.

    Args:
        loss: from two vectors (B,) to the loss (B,), alone or first of several results.
        triples: to train on. adapter: laid on `model`; without one all weights are trained.
        options: fields of TRL's `DPOConfig`, of which those that every trainer has are used.
    """

    def __init__(
        self,
        *,
        loss: Loss,
        model: PreTrainedModel,
        tokenizer: Any,
        triples: Sequence[dict[str, Any]],
        adapter: LoraConfig | None,
        options: dict[str, Any],
    ) -> None:
        from peft import get_peft_model
        from transformers import set_seed
        from trl import DPOConfig

        set_seed(options["seed"])  # of the adapter's first weights
        self._loss = loss
        super().__init__(
            model=get_peft_model(model, adapter) if adapter else model.requires_grad_(True),
            args=DPOConfig(**options, remove_unused_columns=False),
            train_dataset=[encoded(tokenizer, row) for row in triples],
            data_collator=lambda rows: collated(rows, tokenizer.pad_token_id),
            processing_class=tokenizer,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:
        """The mean loss of the batch's pairs."""
        mask = inputs.pop("response_mask")
        per_token = token_logps(model(**inputs).logits, inputs["input_ids"])
        means = sum_over_response(per_token, mask) / mask[:, 1:].sum(-1)  # (2 B,)
        loss = self._loss(*means.chunk(2))
        return (loss[0] if isinstance(loss, tuple) else loss).mean()


def encoded(tokenizer: Any, triple: dict[str, Any]) -> tuple[EncodedPair, EncodedPair]:
    """Prompt with chosen, and with rejected response, as token ids."""
    chosen, rejected = (
        encode_pair(tokenizer, triple["prompt"], triple[side]) for side in ("chosen", "rejected")
    )
    return chosen, rejected


def collated(rows: Sequence[tuple[EncodedPair, EncodedPair]], pad_id: int) -> dict[str, Tensor]:
    """A batch of B pairs as tensors (2 B, T): first all chosen responses, then all rejected."""
    names = ("input_ids", "attention_mask", "response_mask")
    pairs = [pair for side in zip(*rows, strict=True) for pair in side]
    return dict(zip(names, pad_right(pairs, pad_id), strict=True))
