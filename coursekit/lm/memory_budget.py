"""Who is in memory: arithmetic for PPO, DPO and DPO with LoRA, item by item.

Counts what must be there whatever the batch: weights, gradients, optimiser states. Activations and
the key/value cache come on top; they depend on batch, length and checkpointing: `step_memory`
predicts the former.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

BYTES_BF16, BYTES_FP32, BYTES_NF4 = 2, 4, 0.5
GIB = 2**30


@dataclass(frozen=True)
class Recipe:
    """Bytes a parameter of a model that is trained: weights, gradients, optimiser states."""

    weights: float
    gradients: float
    optimiser: float


MASTER_COPY = "bf16, fp32 master copy"

RECIPES = {
    # Adam's two moments in bf16 too: updates too small for its digits are rounded away.
    "all bf16": Recipe(BYTES_BF16, BYTES_BF16, 2 * BYTES_BF16),
    # Mixed precision with Adam's two moments and a copy of the weights in fp32 (ZeRO,
    # arXiv:1910.02054, section 3.1).
    MASTER_COPY: Recipe(BYTES_BF16, BYTES_BF16, 3 * BYTES_FP32),
    # Loaded in fp32: autocast computes in bf16, but what is kept is fp32.
    "all fp32": Recipe(BYTES_FP32, BYTES_FP32, 2 * BYTES_FP32),
}


def lora_parameters(
    rank: int, layers: int, hidden: int, heads: int, key_value_heads: int, head_dim: int
) -> int:
    """Trainable parameters of LoRA on q, k, v and o of a Llama-like model.

    A layer d_in -> d_out gets rank * (d_in + d_out) (Hu et al. 2021, arXiv:2106.09685, section
    4.1). q maps hidden to heads * head_dim, k and v to key_value_heads * head_dim, o back from
    heads * head_dim.
    """
    queries, keys = heads * head_dim, key_value_heads * head_dim
    return layers * rank * 2 * ((hidden + queries) + (hidden + keys))


def full_training(parameters: float, recipe: Recipe = RECIPES[MASTER_COPY]) -> dict[str, float]:
    """GiB for a model whose every weight is trained with Adam."""
    return {name: parameters * size / GIB for name, size in asdict(recipe).items()}


def frozen(parameters: float, bytes_per_weight: float = BYTES_BF16) -> dict[str, float]:
    """GiB for a model that is only read: its weights."""
    return {"weights": parameters * bytes_per_weight / GIB, "gradients": 0.0, "optimiser": 0.0}


def frozen_4_bit(parameters: float, embeddings: float) -> dict[str, float]:
    """GiB for a frozen model in NF4, of whose `parameters` the `embeddings` stay in 16 bit.

    Only linear layers inside the blocks are quantised, not the embeddings and the head. The scales
    are not counted (1/8 of a bit a weight with double quantisation: Dettmers et al. 2023,
    arXiv:2305.14314, section 3).
    """
    quantised = frozen(parameters - embeddings, BYTES_NF4)
    return quantised | {"weights": quantised["weights"] + embeddings * BYTES_BF16 / GIB}


def adapter_training(adapter_parameters: float) -> dict[str, float]:
    """GiB for LoRA's own parameters: fp32 weights and gradients, Adam's two fp32 moments."""
    return {
        "weights": adapter_parameters * BYTES_FP32 / GIB,
        "gradients": adapter_parameters * BYTES_FP32 / GIB,
        "optimiser": adapter_parameters * 2 * BYTES_FP32 / GIB,
    }


def recipe_table(parameters: float) -> pd.DataFrame:
    """GiB of full DPO of one model by `RECIPES`, without activations.

    The reference is kept as the policy's weights are. One row for each recipe: `weights` (policy
    and reference), `gradients`, `optimiser`, `total`.
    """
    import pandas as pd

    rows = {}
    for name, recipe in RECIPES.items():
        trained = full_training(parameters, recipe)
        reference = frozen(parameters, recipe.weights)
        rows[name] = {part: trained[part] + reference[part] for part in trained}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("recipe")
    return table.assign(total=table.sum(axis=1))


def memory_table(
    sizes: dict[str, float], adapter_share: float = 0.005, embedding_share: float = 0.04
) -> pd.DataFrame:
    """GiB by model size and method, without activations.

    Full training is by the recipe `MASTER_COPY`.

    - PPO: policy and value model trained, reference and reward model frozen, all of one size.
    - DPO: policy trained, reference frozen. With the reference's log-probabilities computed
      beforehand, the reference falls away.
    - DPO + LoRA: one frozen copy, which is the reference when the adapter is switched off.
    - DPO + QLoRA: the same with the frozen copy in 4-bit NF4, but for embeddings and head.

    Args:
        sizes: parameters by name, as `{"7B": 7e9}`.
        adapter_share: the adapter's parameters as a share of the model's.
        embedding_share: the embeddings' and the head's. 0.04 is Llama-2-7B's; a large vocabulary or
            a small model has more (0.13 for Llama-3-8B).

    Returns:
        One row for each size and method: `models` in memory, `weights`, `gradients`, `optimiser`,
        `total`, in GiB.
    """
    import pandas as pd

    rows = []
    for size, n in sizes.items():
        adapter = adapter_training(adapter_share * n)
        methods = {
            "PPO": (4, [full_training(n), full_training(n), frozen(n), frozen(n)]),
            "DPO": (2, [full_training(n), frozen(n)]),
            "DPO, reference precomputed": (1, [full_training(n)]),
            "DPO + LoRA": (1, [frozen(n), adapter]),
            "DPO + QLoRA": (1, [frozen_4_bit(n, embedding_share * n), adapter]),
        }
        for method, (models, parts) in methods.items():
            sums = {name: sum(part[name] for part in parts) for name in parts[0]}
            rows.append(
                {
                    "size": size,
                    "method": method,
                    "models": models,
                    **sums,
                    "total": sum(sums.values()),
                }
            )
    return pd.DataFrame(rows).set_index(["size", "method"])
