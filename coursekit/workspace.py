"""The course's SFT and DPO models: those of session B, or the same, for those who come without.

The steps are those of session B, in its order and with its settings. Each is asked for by what it
is made from: what lies in the run's folder is used again if it was made from just that, and is
otherwise set aside and made anew (see `made_from`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .common.profile import TINY_MODEL, Profile
from .evaluation.judges import Judge
from .lm.identity import model_identity

BROUGHT = "brought_sft.json"  # in the run's folder: whose SFT model it is about


def is_the_courses_own(profile: Profile) -> bool:
    """Whether the sessions run on what the course ships: its base model and settings, its own SFT,
    its judge. What holds there was tried; with anything else, whether it holds is to be found out.
    """
    return (
        (profile.name, profile.base_model) == ("tiny", TINY_MODEL)
        and (os.environ.get("COURSE_JUDGE") or "rubric") == "rubric"
        and not (_runs(profile, None) / BROUGHT).is_file()
    )


def _runs(profile: Profile, folder: Path | None) -> Path:
    return folder or profile.artifacts / profile.name


def use_sft(sft: str | Path, profile: Profile, *, folder: Path | None = None) -> str | Path:
    """From now on `sft` is the SFT model of the run's folder: what `ensure_sft` gives.

    A model of your own (a folder or a hub name) is noted there, the course's own takes the note
    away. Returns `sft`. Raises FileNotFoundError if there is no model.
    """
    from .lm.loading import load_tokenizer

    runs = _runs(profile, folder)
    note = runs / BROUGHT
    if Path(sft).absolute() == (runs / "sft").absolute():
        note.unlink(missing_ok=True)
        return sft
    load_tokenizer(sft, profile)
    place = str(Path(sft).absolute()) if Path(sft).is_dir() else str(sft)
    runs.mkdir(parents=True, exist_ok=True)
    note.write_text(
        json.dumps({"sft": place, "identity": model_identity(sft, profile)}), encoding="utf-8"
    )
    return sft


def ensure_sft(profile: Profile, *, seed: int = 0, folder: Path | None = None) -> Path | str:
    """The SFT model: the one you brought (`use_sft`), or else the course's own.

    The course's is trained on the imperfect demonstrations, unless that was done before.

    Raises FileNotFoundError if the one you brought is no longer there.
    """
    from .tasks.triage import sample_demonstrations
    from .training import train_sft

    runs = _runs(profile, folder)
    if (runs / BROUGHT).is_file():
        return _brought(runs / BROUGHT, profile)
    demonstrations = sample_demonstrations(profile.demonstrations, profile, seed=seed)
    return train_sft(profile.base_model, demonstrations, runs / "sft", profile, seed=seed).folder


def _brought(note: Path, profile: Profile) -> str:
    from .lm.loading import load_tokenizer

    advice = f"put it back, or delete {note} to go on with the course's own"
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        sft, identity = said["sft"], said["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{note} is damaged ({error}): run session B's section 2 again") from error
    try:
        load_tokenizer(sft, profile)
    except OSError as error:
        raise FileNotFoundError(f"the SFT model that you brought is gone: {advice}") from error
    changed = "" if identity == model_identity(sft, profile) else "; it has changed since"
    _tell(f"SFT: the model that you brought, {sft}{changed}")
    return sft


@cache
def _tell(text: str) -> None:
    """Print it; a second time in the same process it is no news."""
    print(text)


def ensure_triples(
    profile: Profile, *, seed: int = 0, folder: Path | None = None, judge: Judge | None = None
) -> list[dict[str, Any]]:
    """The preference triples: sampled from the SFT model, chosen by the judge, as in session B.

    judge: if None, the one that the environment names (`COURSE_JUDGE`).
    """
    from .evaluation.judges import RubricJudge, load_judge
    from .lm.loading import load_model, load_tokenizer
    from .preferences import alert_rows, make_triples

    sft = ensure_sft(profile, seed=seed, folder=folder)
    triples, _ = make_triples(
        load_model(sft, profile),
        load_tokenizer(sft, profile),
        alert_rows("preferences", profile.preference_prompts, profile, seed=seed),
        profile,
        judge or load_judge(profile),
        seed=seed + 1,
        folder=_runs(profile, folder),
        scorer=RubricJudge(),
    )
    return triples


def ensure_dpo(profile: Profile, *, seed: int = 0, folder: Path | None = None) -> Path:
    """The folder of the DPO model, trained on the triples unless that was done before."""
    from .preferences import split_by_prompt
    from .training import train_dpo

    train, validation = split_by_prompt(ensure_triples(profile, seed=seed, folder=folder))
    return train_dpo(
        ensure_sft(profile, seed=seed, folder=folder),
        train,
        _runs(profile, folder) / "dpo",
        profile,
        validation=validation,
        seed=seed,
    ).folder


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
    from .common.statistics import Estimate
    from .evaluation import (
        comparison_table,
        copy_accuracy,
        kl_from_reference,
        score_responses,
        win_rate,
    )
    from .evaluation.judges import RubricJudge
    from .evaluation.responses import answer
    from .lm.loading import load_model, load_tokenizer
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
    kept = _runs(profile, folder) / "answers"
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
