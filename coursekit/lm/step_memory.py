"""What one DPO step needs, predicted: weights and states, activations and logits, at the peak.

`memory_budget` counts what is there whatever the batch; here batch and length come on top. Read in
transformers 5.23 (Llama's, Qwen's, Gemma's blocks), peft 0.21, bitsandbytes 0.50 and TRL 1.16:

- Chosen and rejected are one batch of `2 * batch` sequences of `length` tokens, which has padding:
  attention takes a mask, keys and values are repeated for every head of queries.
- **TRL never holds the logits.** They are made in tiles of at most 4,096 tokens by 32,768 words, of
  response tokens alone (on a CPU by `trl_compat.score_labels_alone`), folded into
  log-probabilities, and made again for the backward pass. On a GPU one tile is there at a time, on
  a CPU seven in fp32. Held at once, as many loops do, they would be `logits_at_once`.
- The policy's pass comes first, the reference's while the policy's activations wait, then the
  backward pass. AdamW is fused and needs nothing beside its states.

Tests compare it with what is measured on a CPU. Not counted: the CUDA context; what the allocator
keeps in reserve; the frozen copy of an SFT adapter that is trained on (four bytes a parameter of
it); the reference that `train_dpo` keeps, to check it after training, where all weights are trained
on precomputed log-probabilities; and that all gradients wait where batches are accumulated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from .memory_budget import (
    BYTES_BF16,
    BYTES_FP32,
    BYTES_NF4,
    MASTER_COPY,
    RECIPES,
)
from .shapes import Shape

SIXTEEN_BIT, FP32 = "all bf16", "all fp32"
METHODS = {  # and the recipes that make a difference to each: an adapter is always kept in fp32
    "full": (SIXTEEN_BIT, MASTER_COPY, FP32),
    "LoRA": (SIXTEEN_BIT, FP32),
    "QLoRA": (SIXTEEN_BIT,),
}
PARTS = ("weights", "reference", "adapters", "optimiser", "gradients", "activations", "logits")

# TRL 1.16, `trl.kernels.chunked_logprob` and `trl.trainer.utils`.
TILE_TOKENS, TILE_WORDS = 4096, 32768
# Of each tile on a CPU, in fp32: logits twice, log-probabilities, probabilities, gradient, targets
# and a difference; and a mask.
CPU_TILES = 7.25
# A byte for 64 weights, four for 64 * 256 (Dettmers et al. 2023, arXiv:2305.14314, section 3).
NF4_SCALES = 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Plan:
    """How DPO is run: what its memory depends on, beside the model's shape.

    method: of `METHODS`; recipe: of `RECIPES`, for QLoRA of what is not quantised (fp16 counts as
    bf16). checkpointing: of activations, block by block. precomputed: no reference in memory, its
    log-probabilities are there. batch: pairs a step; length: tokens of the longest sequence, half
    of them the response's. rank: of LoRA on all linear layers.
    """

    method: str = "LoRA"
    recipe: str = SIXTEEN_BIT
    checkpointing: bool = True
    precomputed: bool = True
    batch: int = 1
    length: int = 1024
    rank: int = 16

    @property
    def tokens(self) -> int:
        """Of chosen and rejected together, padding included."""
        return 2 * self.batch * self.length

    @property
    def computed(self) -> int:
        """Bytes a number of the activations: weights and computation share their format."""
        return BYTES_FP32 if self.recipe == FP32 else BYTES_BF16


Device = Literal["cuda", "cpu"]


def predict(shape: Shape, plan: Plan, device: Device = "cuda") -> dict[str, float]:
    """Bytes at the peak of one DPO step, by `PARTS`.

    The peak is the most needy of five moments, so `gradients` are those that are there at that one.
    """
    moments = (
        _head(shape, plan, device),
        _last_block(shape, plan),
        _first_block(shape, plan),
        _end(shape, plan),
        _reference(shape, plan),
    )
    found = kept(shape, plan) | max(moments, key=lambda moment: sum(moment.values()))
    return {part: found.get(part, 0.0) for part in PARTS}


def logits_at_once(shape: Shape, plan: Plan) -> float:
    """Bytes of the logits and their log-softmax in fp32, of all tokens, if they were held."""
    return 2 * plan.tokens * shape.vocab * BYTES_FP32


def kept(shape: Shape, plan: Plan) -> dict[str, float]:
    """Bytes that are there during the whole step: weights, reference, adapters, optimiser."""
    recipe = asdict(RECIPES[plan.recipe])
    if plan.method == "full":
        weights = shape.parameters * recipe["weights"]
        return {
            "weights": weights,
            "reference": 0.0 if plan.precomputed else weights,
            "optimiser": shape.parameters * recipe["optimiser"],
        }
    weights = shape.parameters * plan.computed
    if plan.method == "QLoRA":
        quantised = shape.layers * shape.block
        weights = quantised * (BYTES_NF4 + NF4_SCALES) + shape.unquantised * plan.computed
    adapters = shape.adapter(plan.rank) * BYTES_FP32
    return {"weights": weights, "adapters": adapters, "optimiser": 2 * adapters}


def _gradients(shape: Shape, plan: Plan) -> float:
    """Bytes of all gradients, which are there when the backward pass ends."""
    if plan.method == "full":
        return shape.parameters * RECIPES[plan.recipe].gradients
    return shape.adapter(plan.rank) * BYTES_FP32


def block_activations(shape: Shape, plan: Plan) -> float:
    """Bytes that one block's forward pass keeps for its backward pass.

    Norms keep their inputs, in fp32. Attention keeps queries, keys, values (repeated) and outputs,
    the mask, and a sum a head; the MLP keeps gate, its SiLU, and up. A linear layer keeps its input
    if its weight is trained. So does an adapter beside it; in 16 bit each keeps a copy of its own.
    """
    h, q, f, byte = shape.hidden, shape.queries, shape.intermediate, plan.computed
    normed = shape.norms * h + shape.head_norms * (q + shape.keys)
    norms = normed * BYTES_FP32
    attention = (4 * q + plan.length) * byte + shape.heads * BYTES_FP32
    mlp = 3 * f * byte
    if plan.method == "full":
        inputs = (normed + 2 * h + f) * byte  # what norms scale; q's, k's and v's; gate's and up's
    else:
        own = 5 * h + q if _copies(plan) else 2 * h
        inputs = (own + f + len(shape.linears) * plan.rank) * byte
    return plan.tokens * (norms + attention + mlp + inputs)


def _copies(plan: Plan) -> bool:
    """Whether adapters, which are kept in fp32, compute with 16-bit copies, of themselves too."""
    return plan.method != "full" and plan.computed == BYTES_BF16


def _waiting(shape: Shape, plan: Plan) -> float:
    """Bytes of activations that wait when the forward pass ends: by checkpointing, blocks' inputs.

    Of the last norm, too: its input, its output, and what it scales.
    """
    final = plan.tokens * shape.hidden * (BYTES_FP32 + 2 * plan.computed)
    checkpoint = plan.tokens * shape.hidden * plan.computed
    block = checkpoint if plan.checkpointing else block_activations(shape, plan)
    casts = shape.adapter(plan.rank) * BYTES_BF16 if _copies(plan) else 0.0  # made once a step
    return shape.layers * block + final + casts


def _in_flight(shape: Shape, plan: Plan, widths: int) -> float:
    """Bytes of what a block computes with: `widths` times the MLP's width, two residual streams.

    Or, in 4 bit, the MLP's width and the widest layer's weights, restored.
    """
    stream, mlp = (
        plan.tokens * size * plan.computed for size in (shape.hidden, shape.intermediate)
    )
    restored = 0.0
    if plan.method == "QLoRA":
        restored = shape.hidden * shape.intermediate * plan.computed
    return 2 * stream + max(widths * mlp, mlp + restored)


def _head(shape: Shape, plan: Plan, device: Device) -> dict[str, float]:
    """When the head's backward pass runs, before that of any block: all activations wait."""
    full, byte = plan.method == "full", plan.computed
    tokens = plan.tokens // 2  # the responses'
    rows, words = min(tokens, TILE_TOKENS), min(shape.vocab, TILE_WORDS)
    cast = full * shape.embedding * byte * (byte != BYTES_FP32)  # of a gradient summed in fp32
    folding = 0.0
    if device == "cpu":  # or a tile, and the head's weights for it, multiplied in fp32
        tile, weights = rows * words * BYTES_FP32, words * shape.hidden * BYTES_FP32
        folding = max(CPU_TILES * tile, tile + weights * (byte != BYTES_FP32))
    streams = tokens * shape.hidden * (byte + BYTES_FP32)
    return {
        "gradients": full * shape.embedding * BYTES_FP32,
        "activations": _waiting(shape, plan) + streams,
        "logits": rows * TILE_WORDS * byte + max(folding, cast),
    }


def _last_block(shape: Shape, plan: Plan) -> dict[str, float]:
    """When the backward pass enters the blocks: with checkpointing, that one is computed again."""
    again = block_activations(shape, plan) if plan.checkpointing else 0.0
    head = shape.embedding * RECIPES[plan.recipe].gradients if plan.method == "full" else 0.0
    return {
        "gradients": head,
        "activations": _waiting(shape, plan) + again + _in_flight(shape, plan, 2 + _copies(plan)),
    }


def _first_block(shape: Shape, plan: Plan) -> dict[str, float]:
    """When it leaves them, amid the MLP: the gradients before it, and the embedding's, come yet."""
    missing = 0.0
    if plan.method == "full":
        weights = shape.block - shape.hidden * shape.intermediate
        weights += 0 if shape.tied else shape.embedding
        missing = weights * RECIPES[plan.recipe].gradients
    return {
        "gradients": _gradients(shape, plan) - missing,
        "activations": block_activations(shape, plan) + _in_flight(shape, plan, 2 + _copies(plan)),
    }


def _end(shape: Shape, plan: Plan) -> dict[str, float]:
    """When all gradients are there; that of an embedding which is the head too comes in two."""
    gradients = _gradients(shape, plan)
    if plan.method == "full" and shape.tied:
        gradients += shape.embedding * RECIPES[plan.recipe].gradients
    return {"gradients": gradients}


def _reference(shape: Shape, plan: Plan) -> dict[str, float]:
    """When the reference computes, while the policy's activations wait."""
    if plan.precomputed:
        return {"activations": 0.0}
    return {"activations": _waiting(shape, plan) + _in_flight(shape, plan, 3)}
