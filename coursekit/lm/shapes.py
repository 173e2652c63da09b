"""The dimensions of Llama-like models, and how many parameters stand where.

Named shapes are those of published models, so that what a model of 8B needs can be told without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Model types of transformers whose block is counted here: attention and a gated MLP, each after an
# RMSNorm. Of these, Gemma's has a norm after each as well,
SANDWICHED = ("gemma3_text",)
# and some have one of each head's queries and keys.
HEAD_NORMS = ("qwen3", "gemma3_text")
BIASES = ("qwen2",)  # of queries, keys and values, whatever the configuration says
COUNTED = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")


@dataclass(frozen=True)
class Shape:
    """Dimensions of a decoder of `layers` equal blocks.

    name: for tables. vocab: rows of the embedding. intermediate: width of the gated MLP.
    heads, key_value_heads: of attention, `head_dim` wide each. tied: the head is the embedding.
    biases: q, k and v have one. model_type: in transformers, one of `COUNTED`.
    """

    name: str
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    tied: bool = False
    biases: bool = False
    model_type: str = "llama"

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.key_value_heads * self.head_dim

    @property
    def norms(self) -> int:
        """RMSNorms of the stream in a block."""
        return 4 if self.model_type in SANDWICHED else 2

    @property
    def head_norms(self) -> bool:
        """Whether the queries and the keys of a head are normed."""
        return self.model_type in HEAD_NORMS

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a block's linear layers: q, k, v, o, gate, up, down."""
        h, f = self.hidden, self.intermediate
        return (
            *((h, self.queries), (h, self.keys), (h, self.keys), (self.queries, h)),
            *((h, f), (h, f), (f, h)),
        )

    @property
    def block(self) -> int:
        """Weights in a block's linear layers: what 4-bit loading quantises."""
        return sum(inputs * outputs for inputs, outputs in self.linears)

    @property
    def embedding(self) -> int:
        """Weights in the embedding alone, and as many in the head."""
        return self.vocab * self.hidden

    @property
    def unquantised(self) -> int:
        """Parameters that 4-bit loading leaves as they are: embedding, head, norms, biases."""
        norms = self.norms * self.hidden + self.head_norms * 2 * self.head_dim
        biases = self.biases * (self.queries + 2 * self.keys)
        matrices = (1 if self.tied else 2) * self.embedding
        return matrices + self.layers * (norms + biases) + self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.block + self.unquantised

    def adapter(self, rank: int) -> int:
        """Parameters of LoRA on all linear layers: rank * (inputs + outputs) each."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.linears)

    def config(self) -> dict[str, Any]:
        """The fields of a transformers configuration of this shape."""
        return {
            "model_type": self.model_type,
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head_dim,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 32768,
            **({"attention_bias": self.biases} if self.model_type not in BIASES else {}),
        }


# As published with Qwen2.5-0.5B, -1.5B and -7B, and Llama-3.1-8B.
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("0.5B", 151936, 896, 4864, 24, 14, 2, 64, True, True, "qwen2"),
        Shape("1.5B", 151936, 1536, 8960, 28, 12, 2, 128, True, True, "qwen2"),
        Shape("7B", 152064, 3584, 18944, 28, 28, 4, 128, False, True, "qwen2"),
        Shape("8B", 128256, 4096, 14336, 32, 32, 8, 128),
    )
}


def shape_of(name: str, config: Mapping[str, Any]) -> Shape:
    """The shape that a model's configuration says, whole, as transformers fills it in.

    Raises ValueError for a kind of model whose block is another.
    """
    kind = config["model_type"]
    if kind not in COUNTED:
        raise ValueError(
            f"{name} is of the type {kind!r}; counted are {', '.join(COUNTED)}: name a shape of "
            f"about its size ({', '.join(SHAPES)})"
        )
    heads = config["num_attention_heads"]
    return Shape(
        name,
        config["vocab_size"],
        config["hidden_size"],
        config["intermediate_size"],
        config["num_hidden_layers"],
        heads,
        config["num_key_value_heads"],
        config.get("head_dim") or config["hidden_size"] // heads,
        config["tie_word_embeddings"],
        kind in BIASES or bool(config.get("attention_bias")),
        kind,
    )


def find_shape(model: str, revision: str | None = None) -> Shape:
    """A named shape, or that of the model in a folder or on the hub, whose config.json is read.

    Raises FileNotFoundError for a folder without one, OSError for what is no model, ValueError as
    `shape_of`.
    """
    if model in SHAPES:
        return SHAPES[model]
    folder = Path(model)
    if (folder.is_dir() or folder.is_absolute()) and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"no config.json in {folder}: give a folder with a whole model (of an adapter, the one "
            f"it was trained on), a name on the hub, or one of {', '.join(SHAPES)}"
        )
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    return shape_of(folder.name, config.to_dict())
