"""RLHF with TRL's online trainers: the policy answers, a reward tells, the policy follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...common.profile import TrainingSettings
from ...common.prompts import as_messages, plain_prompt
from ...common.quiet import quiet
from ...lm.loading import load_model, load_tokenizer
from ...lm.trl_compat import online_classes, score_labels_alone
from ...training.arguments import lora_config
from .points import Checkpoint, Spent
from .rewards import REWARDS, Reward
from .start import Rows, Start
from .train import STEPS, arguments, labelled, settings_of, train


def online(
    start: Start,
    folder: Path,
    times: int,
    *,
    algorithm: str,
    reward: str | Reward,
    beta: float,
    learning_rate: float | None = None,
    steps: int = STEPS,
    prompts: int = 8,
    group: int = 4,
) -> list[Checkpoint]:
    """TRL's `RLOO`, `GRPO` or `OnlineDPO`: the policy answers, a reward tells, the policy follows.

    reward: `learned`, the reward model that was trained on the triples; `true`, the rubric; or a
    function of rows and texts.
    beta: what a nat of KL costs, in units of the reward; DPO's own for online DPO, which compares
    two responses to a prompt, and takes the first of two that are equally good for the better one.
    prompts, group: a step's prompts, and how many responses to each.
    """
    settings = settings_of(start, learning_rate)
    learned = reward == "learned"
    trainer = online_trainer(
        start,
        algorithm,
        REWARDS[reward](start) if isinstance(reward, str) else reward,
        settings,
        arguments(start, folder, settings, steps) | {"beta": beta},
        prompts=prompts,
        group=group,
    )
    offline = labelled(start) if learned else Spent()

    def spent(step: int) -> Spent:
        drawn = step * prompts * group
        return replace(offline, samples=offline.samples + drawn, reward_calls=drawn)

    return train(trainer, start, folder, times, spent)


def online_trainer(
    start: Start,
    algorithm: str,
    reward: Reward,
    settings: TrainingSettings,
    options: dict[str, Any],
    *,
    prompts: int,
    group: int,
) -> Any:
    """TRL's trainer of that name: `RLOO`, `GRPO` or `OnlineDPO`.

    RLOO takes beta times the sampled response's summed log-ratio (k1) off its reward; GRPO adds
    beta times k3 to the loss. The reference is the SFT model, which the adapter lies on.

    Args:
        reward: of each row and the text that answers it.
        options: fields of its configuration. prompts, group: a step's prompts, and how many
            responses each.
    """
    trainer, configuration = online_classes(algorithm)
    if algorithm == "OnlineDPO":
        options = options | _pairwise(start, prompts, group)
    else:
        options = {name: value for name, value in options.items() if name != "max_length"}
        options |= _grouped(start, prompts, group)
    score_labels_alone()
    with quiet():
        return trainer(
            model=load_model(start.model, start.profile),
            reward_funcs=_by_number(start.prompts, reward),
            args=configuration(**options),
            train_dataset=_asked(start),
            processing_class=load_tokenizer(start.model, start.profile),
            peft_config=lora_config(settings),
        )


def _grouped(start: Start, prompts: int, group: int) -> dict[str, Any]:
    """What RLOO and GRPO call a step's size, and the room for a response."""
    return {
        "per_device_train_batch_size": prompts * group,
        "num_generations": group,
        "steps_per_generation": 1,  # each response is learnt from once
        "max_completion_length": start.profile.max_new_tokens,
    }


def _pairwise(start: Start, prompts: int, group: int) -> dict[str, Any]:
    """The same for online DPO, at the temperature of the others."""
    if group != 2:
        raise ValueError(f"group is {group}: online DPO compares 2 responses to a prompt")
    return {
        "per_device_train_batch_size": prompts,
        "max_new_tokens": start.profile.max_new_tokens,
        "temperature": 1.0,
    }


def _asked(start: Start) -> Any:
    """The prompts as TRL reads them, each with its row's number."""
    from datasets import Dataset

    chat = load_tokenizer(start.model, start.profile).chat_template
    as_trl = as_messages if chat else plain_prompt
    return Dataset.from_list(
        [{"prompt": as_trl(row["prompt"]), "number": n} for n, row in enumerate(start.prompts)]
    )


def _by_number(rows: Rows, reward: Reward) -> Callable[..., list[float]]:
    """`reward` as TRL calls it: with all columns of the rows, of which ours has the number."""

    def of_completions(completions: Sequence[Any], number: Sequence[int], **others) -> list[float]:
        texts = [
            one if isinstance(one, str) else one[0]["content"] for one in completions
        ]  # a turn of the assistant, where there is a chat template
        return reward([rows[n] for n in number], texts)

    return of_completions
