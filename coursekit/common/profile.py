"""Profiles: one setting, `COURSE_PROFILE`, chooses the size at which the same cells run.

Nothing else in the course asks which profile it is: notebooks and helpers read the fields.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY_MODEL = str(ROOT / "coursekit" / "lm" / "tiny")
# Every linear layer of a Llama-like model: adapters here train best for their size.
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TrainingSettings:
    """How one adapter is trained.

    learning_rate: the peak of a linear schedule; warmup: share of the steps that climb to it;
    batch_size: rows a device and a step; accumulation: steps summed before an update;
    lora_rank, lora_alpha: rank of the adapter and its scale (alpha / rank); beta: DPO's.
    """

    learning_rate: float
    epochs: float
    batch_size: int
    accumulation: int = 1
    warmup: float = 0.1
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = LINEAR_LAYERS
    beta: float = 0.1
    max_length: int = 512


@dataclass(frozen=True)
class Profile:
    """Everything that depends on the machine and the model's size.

    base_model: a folder or a name on the hub; revision: what to load of the latter.
    dtype: of the weights (`float32`, `float16`, `bfloat16`); four_bit: load them in 4-bit NF4.
    full_instruction: say the format and the policy in every prompt, the demonstrations' included (a
    real model has not been taught them by its corpus): see `triage.ask`. max_new_tokens: room for a
    report. threads: CPU threads for torch.
    """

    name: str
    base_model: str
    sft: TrainingSettings
    dpo: TrainingSettings
    revision: str | None = None
    dtype: str = "float32"
    four_bit: bool = False
    full_instruction: bool = False
    max_new_tokens: int = 120
    generation_batch: int = 64
    threads: int | None = None
    demonstrations: int = 1000
    preference_prompts: int = 250
    temperatures: tuple[float, ...] = (0.7, 1.0)
    samples_per_temperature: int = 2
    evaluation_prompts: int = 300
    artifacts: Path = field(default_factory=lambda: artifacts_folder())


def artifacts_folder() -> Path:
    """Where runs are kept: `COURSE_ARTIFACTS`, or `artifacts` beside the package's sources."""
    return folder_of("COURSE_ARTIFACTS", "artifacts")


def folder_of(variable: str, default: str) -> Path:
    """The folder that the environment variable names, absolute; `default` if it is not set.

    `~` is the home folder. A relative path counts from the folder the package lies in, and not from
    where a process happens to run: a command and a notebook mean the same folder.
    """
    return ROOT / os.path.expanduser(os.environ.get(variable) or default)


def _profiles() -> dict[str, Profile]:
    tiny = Profile(
        name="tiny",
        base_model=TINY_MODEL,
        sft=TrainingSettings(learning_rate=2e-3, epochs=3, batch_size=32),
        dpo=TrainingSettings(learning_rate=5e-4, epochs=2, batch_size=16),
        max_new_tokens=96,
        generation_batch=512,
        threads=2,
    )
    colab = Profile(
        name="colab",
        base_model="HuggingFaceTB/SmolLM2-360M-Instruct",
        sft=TrainingSettings(2e-4, epochs=2, batch_size=8, accumulation=2, max_length=1024),
        dpo=TrainingSettings(2e-5, epochs=2, batch_size=4, accumulation=4, max_length=1024),
        dtype="float16",
        four_bit=True,
        full_instruction=True,
        generation_batch=32,
    )
    gpu = replace(
        colab,
        name="gpu",
        base_model="Qwen/Qwen2.5-1.5B-Instruct",
        sft=replace(colab.sft, batch_size=16, accumulation=1),
        dpo=replace(colab.dpo, batch_size=16, accumulation=1),
        dtype="bfloat16",
        four_bit=False,
        generation_batch=128,
    )
    return {profile.name: profile for profile in (tiny, colab, gpu)}


def load_profile(name: str | None = None) -> Profile:
    """The profile called `name`; without one, what `COURSE_PROFILE` says; without that, tiny.

    Raises ValueError for a name that is none.
    """
    name = name or os.environ.get("COURSE_PROFILE") or "tiny"
    profiles = _profiles()
    if name not in profiles:
        raise ValueError(
            f"unknown profile {name!r}: set COURSE_PROFILE to one of {', '.join(profiles)}"
        )
    return profiles[name]
