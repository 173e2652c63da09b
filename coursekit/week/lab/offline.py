"""Methods that learn from labels given before: each a function from a start to checkpoints."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...lm.loading import load_model, load_tokenizer
from ...lm.losses import orpo_loss, simpo_loss, unlikelihood_loss
from ...lm.trl_compat import score_labels_alone
from ...preferences import ranked_samples
from ...preferences.triples import sft_row, to_trl
from ...training import train_dpo
from ...training.arguments import lora_config
from .pair_trainer import PairTrainer
from .points import Checkpoint, Spent
from .start import Start
from .train import STEPS, Keep, arguments, labelled, settings_of, train

ONE_TEMPERATURE = ranked_samples(4, 0.85, "all")  # between the two that the profile samples at


def dpo(
    start: Start,
    folder: Path,
    times: int,
    *,
    beta: float = 0.1,
    learning_rate: float | None = None,
    steps: int = STEPS,
    wrong: float = 0.0,
    n: int | None = None,
    choice: str = "all",
    one_temperature: bool = False,
    **options: Any,
) -> list[Checkpoint]:
    """DPO, and whatever TRL's `DPOTrainer` has by another `loss_type`, through `train_dpo`.

    wrong, n, choice, one_temperature: which triples; see `Start.triples_of`. options: further
    fields of TRL's `DPOConfig`.
    """
    design = ONE_TEMPERATURE if one_temperature else None
    rows = start.triples_of(wrong=wrong, n=n, choice=choice, design=design)
    spent = labelled(start) if n is None else replace(labelled(start), labels=n)
    keep = Keep(folder, start.model, times, lambda step: spent)
    train_dpo(
        start.model,
        rows,
        folder / "run",
        start.profile,
        settings=settings_of(start, learning_rate, beta),
        seed=start.seed,
        callbacks=[keep],
        max_steps=steps,
        save_strategy="no",
        **options,
    )
    return keep.kept


def fine_tune(
    start: Start,
    folder: Path,
    times: int,
    *,
    rows: str = "chosen",
    learning_rate: float | None = None,
    steps: int = STEPS,
) -> list[Checkpoint]:
    """More SFT: on the chosen responses (Preferred-FT of the DPO paper), or on others.

    rows: `chosen`; `best of 4`, the one that the judge scores highest of each prompt's candidates
    (rejection sampling); or `demonstrations`, those that the SFT model was trained on.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = settings_of(start, learning_rate)
    tokenizer = load_tokenizer(start.model, start.profile)
    chat = bool(tokenizer.chat_template)
    score_labels_alone()
    trainer = SFTTrainer(
        model=load_model(start.model, start.profile),
        args=SFTConfig(**arguments(start, folder, settings, steps)),
        train_dataset=Dataset.from_list([sft_row(row, chat) for row in _written(start, rows)]),
        processing_class=tokenizer,
        peft_config=lora_config(settings),
    )
    spent = Spent() if rows == "demonstrations" else labelled(start)
    return train(trainer, start, folder, times, lambda step: spent)


def _written(start: Start, rows: str) -> list[dict[str, Any]]:
    """Rows `{"prompt", "response"}` to imitate."""
    if rows == "chosen":
        found = [(row["prompt"], row["chosen"]) for row in start.triples]
    elif rows == "best of 4":
        found = [
            (row["prompt"], max(texts, key=partial(start.judge.score, row)))
            for row in start.candidates
            if (texts := [one["response"] for one in row["candidates"]])
        ]
    elif rows == "demonstrations":
        n = start.profile.demonstrations
        demonstrations = start.task.rows("demonstrations", n, start.profile, 0)
        found = [(row["prompt"], row["response"]) for row in demonstrations]
    else:
        raise ValueError(f"unknown rows {rows!r}: chosen, best of 4 or demonstrations")
    return [{"prompt": prompt, "response": response} for prompt, response in found]


def kto(
    start: Start,
    folder: Path,
    times: int,
    *,
    beta: float = 0.1,
    learning_rate: float | None = None,
    steps: int = STEPS,
    wrong: float = 0.0,
) -> list[Checkpoint]:
    """KTO by TRL, on thumbs: each triple's chosen response gets one up, its rejected one down."""
    from datasets import concatenate_datasets
    from trl import KTOConfig, KTOTrainer

    settings = settings_of(start, learning_rate, beta)
    settings = replace(settings, batch_size=2 * settings.batch_size)  # responses, not pairs
    tokenizer = load_tokenizer(start.model, start.profile)
    triples = to_trl(start.triples_of(wrong=wrong), bool(tokenizer.chat_template))
    thumbs = concatenate_datasets(
        [
            triples.select_columns(["prompt", side])
            .rename_column(side, "completion")
            .add_column("label", [side == "chosen"] * len(triples))
            for side in ("chosen", "rejected")
        ]
    ).shuffle(seed=start.seed)
    trainer = KTOTrainer(
        model=load_model(start.model, start.profile),
        args=KTOConfig(**arguments(start, folder, settings, steps), beta=beta),
        train_dataset=thumbs,
        processing_class=tokenizer,
        peft_config=lora_config(settings),
    )
    return train(trainer, start, folder, times, lambda step: labelled(start))


LOSSES = {
    "unlikelihood": unlikelihood_loss,
    "ORPO": orpo_loss,
    "SimPO": simpo_loss,
}


def without_reference(
    start: Start,
    folder: Path,
    times: int,
    *,
    loss: str,
    learning_rate: float | None = None,
    steps: int = STEPS,
    wrong: float = 0.0,
    from_base: bool = False,
    **options: float,
) -> list[Checkpoint]:
    """Training by a loss of `lm.losses` that has no reference: one of `LOSSES`.

    from_base: start from the base model, as ORPO may. options: the loss's own (`weight`, ...).
    """
    settings = settings_of(start, learning_rate)
    tokenizer = load_tokenizer(start.model, start.profile)
    model = start.profile.base_model if from_base else start.model
    trainer = PairTrainer(
        loss=partial(LOSSES[loss], **options),
        model=load_model(model, start.profile),
        tokenizer=tokenizer,
        triples=start.triples_of(wrong=wrong),
        adapter=lora_config(settings),
        options=arguments(start, folder, settings, steps),
    )
    return train(trainer, start, folder, times, lambda step: labelled(start), base=model)
