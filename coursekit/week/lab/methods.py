"""The methods: each a function from a start and its settings to checkpoints.

`method(start, folder, times, **settings)` trains in `folder` and gives about `times` checkpoints,
evenly spaced. All start from the SFT model and lay an adapter of the same size on it; a step is an
update on 16 pairs (of 32 responses, where there are no pairs), at the same schedule of the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.profile import TrainingSettings
from ...lm.generation import generate
from ...lm.loading import load_model, load_tokenizer
from ...lm.losses import orpo_loss, simpo_loss, unlikelihood_loss
from ...lm.shared import load_shared
from ...lm.trl_compat import score_labels_alone
from ...preferences import ranked_samples, split_by_prompt, to_triples
from ...preferences.triples import sft_row, to_trl
from ...training import train_dpo
from ...training.arguments import lora_config, run_arguments
from ...training.reward_model import load_reward_model, train_reward_model
from .best_of_n import best_of_n_kl, best_of_n_reward, best_trade
from .online import online_trainer
from .pair_trainer import PairTrainer
from .points import Checkpoint, Point, Spent, reward_of
from .start import Rows, Start, sample_and_judge, whole_model
from .train import Keep, train

if TYPE_CHECKING:
    from ...training.reward_model import Scorer

STEPS = 72  # updates: twice through the triples of 250 prompts, as the sessions do
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
    keep = Keep(folder, start.model, times, lambda step: _labelled(start))
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
    spent = Spent() if rows == "demonstrations" else _labelled(start)
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
    return train(trainer, start, folder, times, lambda step: _labelled(start))


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
    return train(trainer, start, folder, times, lambda step: _labelled(start), base=model)


def online(
    start: Start,
    folder: Path,
    times: int,
    *,
    algorithm: str,
    reward: str,
    beta: float,
    learning_rate: float | None = None,
    steps: int = STEPS,
    prompts: int = 8,
    group: int = 4,
) -> list[Checkpoint]:
    """RLHF by TRL's `RLOO` or `GRPO`: the policy answers, a reward tells, the policy follows.

    reward: `learned`, the reward model that was trained on the triples, or `true`, the rubric.
    beta: what a nat of KL costs, in units of the reward. prompts, group: a step's prompts, and how
    many responses to each.
    """
    settings = settings_of(start, learning_rate)
    learned = reward == "learned"
    trainer = online_trainer(
        start,
        algorithm,
        _learned(start) if learned else _true(start),
        settings,
        arguments(start, folder, settings, steps) | {"beta": beta},
        prompts=prompts,
        group=group,
    )
    offline = _labelled(start) if learned else Spent()

    def spent(step: int) -> Spent:
        drawn = step * prompts * group
        return replace(offline, samples=offline.samples + drawn, reward_calls=drawn)

    return train(trainer, start, folder, times, spent)


def _true(start: Start) -> Callable[[Rows, Sequence[str]], list[float]]:
    return lambda rows, texts: [start.judge.score(*one) for one in zip(rows, texts, strict=True)]


def _learned(start: Start) -> Callable[[Rows, Sequence[str]], list[float]]:
    scores = _reward_model(start)
    return lambda rows, texts: scores([row["prompt"] for row in rows], texts)


def _reward_model(start: Start) -> Scorer:
    """The reward model of this seed's triples, trained at the first call."""
    place, profile = start.folder / "reward", start.profile
    train_reward_model(
        start.model, start.triples, place, profile, validation=start.held, seed=start.seed
    )
    return load_reward_model(place, profile).scores


def iterate(
    start: Start,
    folder: Path,
    times: int,
    *,
    renew: bool,
    beta: float = 0.1,
    learning_rate: float | None = None,
    steps: int = STEPS,
) -> list[Checkpoint]:
    """Iterative DPO in `times` rounds: the policy answers new prompts, is judged, and trains on it.

    Each round has its share of the prompts, so that all rounds together ask the judge as often as
    one offline round on all. renew: whether the reference is the policy that the round began with;
    otherwise it stays the SFT model.
    """
    profile, policy, spent, kept = start.profile, start.model, Spent(), []
    for number in range(times):
        place = folder / f"round-{number + 1}"
        share = start.prompts[number::times]
        candidates, pairs = sample_and_judge(start, policy, share, place)
        spent = Spent(
            spent.samples + sum(len(row["candidates"]) for row in candidates),
            spent.labels + len(pairs),
        )
        run = train_dpo(
            policy,
            split_by_prompt(to_triples(pairs))[0],
            place / "run",
            profile,
            settings=settings_of(start, learning_rate, beta),
            seed=start.seed,
            wrong_reference=None if renew or number == 0 else start.model,
            max_steps=steps // times,
            save_strategy="no",
        )
        policy = whole_model(run.folder, place / "policy", profile)
        kept.append(Checkpoint(policy, (number + 1) * (steps // times), spent))
    return kept


def cooler(
    start: Start, folder: Path, times: int, *, temperatures: Sequence[float]
) -> list[Checkpoint]:
    """The SFT model, sampled at lower temperatures: no training at all."""
    return [Checkpoint(start.model, 0, Spent(), temperature) for temperature in temperatures]


def best_of_n(
    start: Start, folder: Path, times: int, *, reward: str, samples: int = 32
) -> list[Point]:
    """The best of n samples of the SFT model for each answer, n = 2, 4, ... to half of `samples`.

    reward: `learned` or `true`: what chooses. The points' `kl` is the bound, without an error; what
    is spent is so for each answer anew.
    """
    rewards, texts = _sampled(start, samples)
    scores = rewards if reward == "true" else _scored(start, texts)
    counts = [2**power for power in range(1, samples.bit_length() - 1)]
    return [
        {
            "n": n,
            **reward_of(best_of_n_reward(rewards, scores, n).tolist()),
            **{"kl": best_of_n_kl(n), "kl_se": 0.0, "samples": n, "reward_calls": n},
        }
        for n in counts
    ]


def optimum(
    start: Start, folder: Path, times: int, *, betas: Sequence[float], samples: int = 32
) -> list[Point]:
    """The most true reward that any policy can have at its KL, from samples of the SFT model."""
    rewards, _ = _sampled(start, samples)
    points = []
    for beta in betas:
        reward, kl = best_trade(rewards, beta)
        error = float(kl.std(ddof=1) / len(kl) ** 0.5)
        points.append(
            {"beta": beta, **reward_of(reward.tolist()), "kl": float(kl.mean()), "kl_se": error}
        )
    return points


def _sampled(start: Start, samples: int) -> tuple[np.ndarray, list[list[str]]]:
    """True rewards, (X, N), and the texts: N responses at temperature 1 to each evaluation row."""
    rows, profile = [row for row in start.evaluation for _ in range(samples)], start.profile
    texts = generate(
        load_shared(start.model, profile),
        load_tokenizer(start.model, profile),
        [row["prompt"] for row in rows],
        max_new_tokens=profile.max_new_tokens,
        temperature=1.0,
        seed=start.seed,
        batch_size=profile.generation_batch,
        label=None,
    )
    rewards = np.array(_true(start)(rows, texts)).reshape(-1, samples)
    return rewards, [texts[at : at + samples] for at in range(0, len(texts), samples)]


def _scored(start: Start, texts: Sequence[Sequence[str]]) -> np.ndarray:
    """The reward model's scores of the responses, (X, N)."""
    prompts = [
        row["prompt"] for row, some in zip(start.evaluation, texts, strict=True) for _ in some
    ]
    scores = _reward_model(start)(prompts, [text for some in texts for text in some])
    return np.array(scores).reshape(len(texts), -1)


def settings_of(
    start: Start, learning_rate: float | None = None, beta: float | None = None
) -> TrainingSettings:
    """The profile's for DPO, with another rate or beta where one is given."""
    given = {"learning_rate": learning_rate, "beta": beta}
    return replace(
        start.profile.dpo, **{name: value for name, value in given.items() if value is not None}
    )


def arguments(start: Start, folder: Path, settings: TrainingSettings, steps: int) -> dict[str, Any]:
    """What all trainers here are told. The checkpoints that count are kept by `Keep`."""
    return run_arguments(settings, start.profile, folder, start.seed) | {
        "max_steps": steps,
        "save_strategy": "no",
    }


def _labelled(start: Start) -> Spent:
    """What the labelled pairs have cost."""
    return Spent(samples=start.samples, labels=start.labels)


METHODS = {
    "DPO": dpo,
    "preferred-FT": fine_tune,
    "unlikelihood": partial(without_reference, loss="unlikelihood"),
    "RLOO, learned reward": partial(online, algorithm="RLOO", reward="learned"),
    "RLOO, true reward": partial(online, algorithm="RLOO", reward="true"),
    "GRPO, true reward": partial(online, algorithm="GRPO", reward="true"),
    "KTO": kto,
    "ORPO": partial(without_reference, loss="ORPO"),
    "SimPO": partial(without_reference, loss="SimPO"),
    "iterative DPO": iterate,
    "SFT, cooler": cooler,
    "best of n": best_of_n,
    "optimum": optimum,
}
