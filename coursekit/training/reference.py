"""The reference of a DPO run: which model it is, and whether that is the SFT model.

A first-step loss of ln 2 is not enough to know: it also holds where policy and reference are the
same wrong model. So the SFT model's own log-probabilities of some triples are taken when it comes
fresh from its folder, before anything is merged into it, laid on it or trained, and compared with
those of the trainer's reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..lm.logprobs import sequence_logps
from ..lm.trl_compat import as_reference, bare_model, is_adapted

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import DPOTrainer

Logps = tuple[list[float], list[float]]  # of chosen and of rejected responses, nats


class ReferenceError(RuntimeError):
    """The reference is not the SFT model, so the loss would compare with the wrong model."""


def pair_logps(model: PreTrainedModel, tokenizer: Any, triples: Sequence[dict[str, Any]]) -> Logps:
    """log pi(y | x) of the chosen and of the rejected responses, in nats."""
    prompts = [row["prompt"] for row in triples]
    return tuple(
        sequence_logps(model, tokenizer, prompts, [row[side] for row in triples]).tolist()
        for side in ("chosen", "rejected")
    )


@contextmanager
def reference_of(trainer: DPOTrainer) -> Iterator[PreTrainedModel]:
    """The model that is the trainer's reference: its own, the policy without adapter, or `ref`.

    For computing with it; the policy is as it was when the context ends. A whole model that is
    trained on precomputed reference log-probabilities has none to compute with: ReferenceError.
    """
    if trainer.ref_model is not None:
        yield trainer.ref_model
        return
    model = bare_model(trainer)
    if is_adapted(model):
        with as_reference(model):
            yield model
        return
    if trainer.state.global_step:
        raise ReferenceError(
            "the weights have moved and no reference is kept: pass precompute_reference=False, or "
            "train an adapter"
        )
    yield model  # before the first step the starting weights are the reference


def reference_logps(
    trainer: DPOTrainer, tokenizer: Any, triples: Sequence[dict[str, Any]]
) -> Logps:
    """log pi_ref of chosen and rejected, by the trainer's own reference (model or adapter)."""
    with reference_of(trainer) as reference:
        return pair_logps(reference, tokenizer, triples)


def assert_reference(
    trainer: DPOTrainer,
    tokenizer: Any,
    triples: Sequence[dict[str, Any]],
    expected: Logps,
    when: str,
    tolerance: float = 0.05,
) -> None:
    """Raise `ReferenceError` unless the reference gives the SFT model's log-probabilities.

    Args:
        expected: by `pair_logps` of the SFT model as it came from its folder.
        tolerance: nats a response, relative to 100 nats above that: half precision moves sums that
            much, a wrong model far more.
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
