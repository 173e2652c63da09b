"""Who is in memory: arithmetic for PPO, DPO and DPO with LoRA, item by item.

Counts what must be there whatever the batch: weights, gradients, optimiser states. Activations and
the key/value cache come on top; they depend on batch, length and checkpointing: measure them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

BYTES_BF16, BYTES_FP32, BYTES_NF4 = 2, 4, 0.5
GIB = 2**30


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


def full_training(parameters: float) -> dict[str, float]:
    """GiB for a model whose every weight is trained with Adam in mixed precision.

    weights: bf16, 2 bytes a parameter; gradients: bf16, 2 bytes; optimiser: Adam's two moments and
    the master copy of the weights, fp32, 3 * 4 bytes (ZeRO, arXiv:1910.02054, section 3.1).
    """
    return {
        "weights": parameters * BYTES_BF16 / GIB,
        "gradients": parameters * BYTES_BF16 / GIB,
        "optimiser": parameters * 3 * BYTES_FP32 / GIB,
    }


def frozen(parameters: float, bytes_per_weight: float = BYTES_BF16) -> dict[str, float]:
    """GiB for a model that is only read: its weights."""
    return {"weights": parameters * bytes_per_weight / GIB, "gradients": 0.0, "optimiser": 0.0}


def adapter_training(adapter_parameters: float) -> dict[str, float]:
    """GiB for LoRA's own parameters: fp32 weights and gradients, Adam's two fp32 moments."""
    return {
        "weights": adapter_parameters * BYTES_FP32 / GIB,
        "gradients": adapter_parameters * BYTES_FP32 / GIB,
        "optimiser": adapter_parameters * 2 * BYTES_FP32 / GIB,
    }


def memory_table(sizes: dict[str, float], adapter_share: float = 0.005) -> pd.DataFrame:
    """GiB by model size and method, without activations.

    - PPO: policy and value model trained, reference and reward model frozen, all of one size.
    - DPO: policy trained, reference frozen. With the reference's log-probabilities computed
      beforehand, the reference falls away.
    - DPO + LoRA: one frozen copy, which is the reference when the adapter is switched off.
    - DPO + QLoRA: the same with the frozen copy in 4-bit NF4 (half a byte; scales not counted).

    Args:
        sizes: parameters by name, as `{"7B": 7e9}`.
        adapter_share: the adapter's parameters as a share of the model's.

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
            "DPO + QLoRA": (1, [frozen(n, BYTES_NF4), adapter]),
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
