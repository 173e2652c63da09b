"""The course's own SFT and DPO models, for those who come without: trained once, then reused.

The steps are those of session B, in its order and with its settings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .profile import TINY_MODEL, Profile


def is_the_courses_own(profile: Profile) -> bool:
    """Whether the sessions run on what the course ships: its base model and settings, its own SFT,
    its judge. What holds there was tried; with anything else, whether it holds is to be found out.
    """
    return (
        (profile.name, profile.base_model) == ("tiny", TINY_MODEL)
        and (os.environ.get("COURSE_JUDGE") or "rubric") == "rubric"
        and not _sft_of_somebody_else(profile)
    )


def _sft_of_somebody_else(profile: Profile) -> bool:
    """Whether the DPO model here was trained on another SFT model than the one made here."""
    from .models import adapter_config

    runs = profile.artifacts / profile.name
    started = (adapter_config(runs / "dpo") or {}).get("base_model_name_or_path")
    return started is not None and Path(started).resolve() != (runs / "sft").resolve()


def ensure_sft(profile: Profile, *, seed: int = 0, folder: Path | None = None) -> Path:
    """The folder of the SFT model, trained on the imperfect demonstrations if need be."""
    from .training import is_finished, train_sft
    from .triage import sample_demonstrations

    folder = (folder or profile.artifacts / profile.name) / "sft"
    if not is_finished(folder):
        demonstrations = sample_demonstrations(profile.demonstrations, seed=seed)
        train_sft(profile.base_model, demonstrations, folder, profile, seed=seed)
    return folder


def ensure_triples(
    profile: Profile, *, seed: int = 0, folder: Path | None = None
) -> list[dict[str, Any]]:
    """The preference triples, sampled from the SFT model and judged now if they are not there."""
    from .judging import RubricJudge
    from .models import load_model, load_tokenizer
    from .preferences import alert_rows, load_triples, make_triples

    path = (folder or profile.artifacts / profile.name) / "triples.jsonl"
    if not path.is_file():
        sft = ensure_sft(profile, seed=seed, folder=folder)
        rows = alert_rows("preferences", profile.preference_prompts, profile, seed=seed)
        make_triples(
            load_model(sft, profile),
            load_tokenizer(sft, profile),
            rows,
            profile,
            RubricJudge(),
            seed=seed + 1,
            folder=path.parent,
        )
    return load_triples(path)


def ensure_dpo(profile: Profile, *, seed: int = 0, folder: Path | None = None) -> Path:
    """The folder of the DPO model, trained now on the triples if it is not there."""
    from .preferences import split_by_prompt
    from .training import is_finished, train_dpo

    sft = ensure_sft(profile, seed=seed, folder=folder)
    where = (folder or profile.artifacts / profile.name) / "dpo"
    if not is_finished(where):
        train, validation = split_by_prompt(ensure_triples(profile, seed=seed, folder=folder))
        train_dpo(sft, train, where, profile, validation=validation, seed=seed)
    return where


@dataclass(frozen=True)
class ThreeWay:
    """Base, SFT and SFT+DPO on the same evaluation prompts.

    means: metric scores by model; overall: difference of the overall score, SFT+DPO over SFT, with
    its interval; wins: SFT+DPO against SFT; kl: of SFT+DPO from SFT, nats a response; copied: least
    share of any fact that SFT copies right under greedy decoding; margin: the last reward gap on
    validation triples.
    """

    means: Any
    overall: Any
    wins: Any
    kl: Any
    copied: float
    margin: float


def three_way(profile: Profile, *, seed: int = 0, folder: Path | None = None) -> ThreeWay:
    """Run everything for `seed` (what is there is reused) and evaluate as session C does."""
    from .answers import answer
    from .evaluation import (
        Estimate,
        comparison_table,
        copy_accuracy,
        kl_from_reference,
        score_responses,
        win_rate,
    )
    from .judging import RubricJudge
    from .models import load_model, load_tokenizer
    from .preferences import alert_rows
    from .training import load_run

    folders = {
        "base": profile.base_model,
        "SFT": ensure_sft(profile, seed=seed, folder=folder),
        "SFT+DPO": ensure_dpo(profile, seed=seed, folder=folder),
    }
    tokenizer = load_tokenizer(profile.base_model, profile)
    policy, reference = (load_model(folders[name], profile) for name in ("SFT+DPO", "SFT"))
    rows = alert_rows("evaluation", profile.evaluation_prompts, profile, seed=seed)
    kept = (folder or profile.artifacts / profile.name) / "answers"
    responses = answer(folders, rows, profile, seed=seed, folder=kept)
    greedy = answer(
        {"SFT": folders["SFT"]}, rows, profile, temperature=0.0, seed=seed, folder=kept
    )["SFT"]
    scores = score_responses(rows, responses)
    (difference,) = comparison_table(
        scores, candidate="SFT+DPO", baseline="SFT", metrics=["overall"]
    ).itertuples()
    history = load_run(folders["SFT+DPO"]).history
    return ThreeWay(
        means=scores.groupby("model").mean().drop(columns="row"),
        overall=Estimate(difference.difference, difference.low, difference.high),
        wins=win_rate(rows, responses["SFT+DPO"], responses["SFT"], RubricJudge()),
        kl=kl_from_reference(
            policy,
            reference,
            tokenizer,
            [row["prompt"] for row in rows],
            max_new_tokens=profile.max_new_tokens,
            batch_size=profile.generation_batch,
            seed=seed,
        ),
        copied=copy_accuracy(rows, greedy).min(),
        margin=next(
            entry["eval_rewards/margins"]
            for entry in reversed(history)
            if "eval_rewards/margins" in entry
        ),
    )
