"""What a process needs at least, by arithmetic: weights, gradients, optimiser states."""

from __future__ import annotations

from dataclasses import dataclass

from ...lm.loading import adapter_config
from ...lm.memory_budget import (
    BYTES_BF16,
    BYTES_FP32,
    MASTER_COPY,
    RECIPES,
    adapter_training,
    frozen,
    frozen_4_bit,
    full_training,
)
from ...lm.weights import ADAPTER_WEIGHTS
from ..dpo import DpoJob
from .configurations import Configuration


@dataclass(frozen=True)
class Parameters:
    """How many numbers: of the whole model, of its embeddings and head, of the trained adapter."""

    all: int
    embeddings: int
    adapter: int


def parameters_of(job: DpoJob) -> Parameters:
    """Counted without loading the model: from its configuration, and from the run's adapter."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    source, profile = job.sft, job.profile
    while link := adapter_config(source):
        source = link["base_model_name_or_path"]
    revision = profile.revision if str(source) == profile.base_model else None
    config = AutoConfig.from_pretrained(str(source), revision=revision, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    ends = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    return Parameters(
        model.num_parameters(), sum(weight.numel() for weight in ends), _adapter_parameters(job)
    )


def _adapter_parameters(job: DpoJob) -> int:
    from math import prod

    from safetensors import safe_open

    if not job.settings.lora_rank:
        return 0
    with safe_open(job.folder / ADAPTER_WEIGHTS, "pt") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def gib_a_process(job: DpoJob, size: Parameters, to: Configuration) -> float:
    """GiB of a process, without activations; where weights are shared, its share of everything."""
    in_full = to.number_format(job.profile) == "float32"
    model = frozen(size.all, BYTES_FP32 if in_full else BYTES_BF16)
    if job.settings.lora_rank:
        base = frozen_4_bit(size.all, size.embeddings) if job.profile.four_bit else model
        parts = [base, adapter_training(size.adapter)]
    else:
        parts = [full_training(size.all, RECIPES[_recipe(to, in_full)])]
        if not (job.precompute_reference and to.keeps_precomputed):
            parts.append(model)  # the reference
    total = sum(sum(part.values()) for part in parts)
    return total / to.in_all if to.shards else total


def _recipe(to: Configuration, in_full: bool) -> str:
    """How all weights are trained: accelerate keeps FSDP's in fp32, DeepSpeed a copy of them."""
    if in_full or to.shards == "FSDP":
        return "all fp32"
    return MASTER_COPY if to.shards else "all bf16"
