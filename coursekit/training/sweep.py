"""Many short DPO runs from one SFT model, side by side, each judged by the same prompts.

For questions of the kind "what does this setting do?": a trial changes one thing, and what comes
back is what it did to the win rate, the margin and the KL.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.journal import Journal, read_journal
from ..common.made_from import MadeFrom, code_version, differences, fingerprint, read_record
from ..common.parallel import run_all, share_threads
from ..common.profile import Profile, TrainingSettings
from ..common.progress import progress
from ..evaluation.judges import Judge
from ..lm.identity import model_identity

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Trial:
    """One run. name: what tells it from the others, as columns of the result."""

    name: dict[str, Any]
    triples: Rows
    settings: TrainingSettings
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)


def run_trials(
    trials: Sequence[Trial],
    sft: str | Path,
    rows: Rows,
    profile: Profile,
    judge: Judge,
    *,
    kl_prompts: int = 0,
    path: str | Path | None = None,
    label: str = "trials",
) -> list[dict[str, Any]]:
    """Train each trial with DPO, let it answer `rows`, compare with SFT by the judge.

    Where the profile names CPU threads, that many runs go side by side with a thread each. With
    `path`, each result is kept there when its run ends; called again with the same of everything
    (SFT model, triples, rows, settings), only what is missing runs.

    Args:
        sft: the SFT model's folder; the reference too.
        rows: as the judge wants them, with `prompt`.
        kl_prompts: on how many of the rows the KL from SFT is estimated; 0 for none.

    Returns:
        For each trial, in order, its name's columns and `points` (for each row 1 for a win over
        SFT, 0.5 for a tie, 0), `win_rate`, `low`, `high` (its 95 % interval), `margin` (on the
        training triples, mean of the last ten steps), and with `kl_prompts` `kl`, `kl_low`,
        `kl_high` (k1, nats a response).

    Raises FileNotFoundError if there is no model in `sft`.
    """
    made_from = _made_from(trials, sft, rows, profile, judge, kl_prompts)
    with Journal(path, made_from) as journal:
        results = [result for group in journal.done for result in group]
        known = [result["name"] for result in results]
        missing = [trial for trial in trials if trial.name not in known]
        if missing:
            baseline = _baseline(sft, rows, profile)
            workers, one = share_threads(profile)
            run = partial(_run, sft=str(sft), rows=rows, profile=one, kl_prompts=kl_prompts)
            with progress(label, len(trials), "runs") as advance:
                advance(len(trials) - len(missing))
                for made in run_all(run, missing, workers, advance):
                    result = _compared(made, rows, baseline, judge)
                    journal.append([result])
                    results.append(result)
    return [_in_columns(trial, results) for trial in trials]


def _in_columns(trial: Trial, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The trial's result, with what its name consists of in place of the name."""
    result = next(result for result in results if result["name"] == trial.name)
    return {**trial.name, **{key: value for key, value in result.items() if key != "name"}}


def _made_from(
    trials: Sequence[Trial],
    sft: str | Path,
    rows: Rows,
    profile: Profile,
    judge: Judge,
    kl_prompts: int,
) -> MadeFrom:
    """Whatever the trials' results depend on."""
    from ..lm import generation, logprobs
    from ..lm.loading import load_tokenizer
    from .rows import rows_fingerprint

    load_tokenizer(sft, profile)  # a model that does not exist has no identity
    return {
        "sft": model_identity(sft, profile),
        "trials": [[trial.name, trial.seed, trial.options] for trial in trials],
        "settings": fingerprint([asdict(trial.settings) for trial in trials]),
        "triples": fingerprint([rows_fingerprint(trial.triples) for trial in trials]),
        "rows": fingerprint(rows),
        "kl_prompts": kl_prompts,
        "max_new_tokens": profile.max_new_tokens,
        "judge": judge.identity,
        "sampling code": code_version(generation, logprobs),
    }


def kept_trials(path: str | Path, sft: str | Path, profile: Profile) -> pd.DataFrame:
    """The results that `run_trials(path=...)` has kept of trials from `sft`, a line a run.

    As from `beta_sweep`, with `gap` where `beta` is part of the runs' names. No line if there is no
    file, or it is damaged or of another SFT model, which is said.
    """
    import pandas as pd

    path = Path(path)
    results, why = [], []
    if path.is_file():
        try:
            why = differences(read_record(path), {"sft": model_identity(sft, profile)})
            results = [] if why else read_journal(path)
        except ValueError as error:
            why = [str(error)]
    if why:
        print(f"{path.name} is not used: {'; '.join(why)}. Make it anew in session B")
    table = pd.DataFrame([{**result["name"], **result} for result in results])
    return table.assign(gap=table["margin"] / table["beta"]) if "beta" in table else table


def _run(
    trial: Trial,
    sft: str,
    rows: Rows,
    profile: Profile,
    kl_prompts: int,
) -> dict[str, Any]:
    """Train and answer, in a process of its own."""
    from ..lm.loading import load_model, merge_adapter
    from .dpo import train_dpo

    with tempfile.TemporaryDirectory() as scratch:
        run = train_dpo(
            sft,
            trial.triples,
            Path(scratch) / "run",
            profile,
            settings=trial.settings,
            seed=trial.seed,
            save_strategy="no",
            **trial.options,
        )
        model = load_model(run.folder, profile)
        if not profile.four_bit:
            model = merge_adapter(model)  # answers the same, a third faster
    answers = _respond(model, sft, rows, profile)
    margins = [entry["rewards/margins"] for entry in run.history if "rewards/margins" in entry]
    result = {
        "name": trial.name,
        "answers": answers,
        "margin": sum(margins[-10:]) / len(margins[-10:]),
    }
    return result | (_kl(model, sft, rows[:kl_prompts], profile) if kl_prompts else {})


def _kl(model: Any, sft: str, rows: Rows, profile: Profile) -> dict[str, float]:
    """The KL of the policy from SFT on the rows' prompts, with its interval."""
    from ..evaluation import kl_from_reference
    from ..lm.loading import load_model, load_tokenizer

    kl = kl_from_reference(
        model,
        load_model(sft, profile),
        load_tokenizer(sft, profile),
        [row["prompt"] for row in rows],
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch,
    )
    return {"kl": kl.value, "kl_low": kl.low, "kl_high": kl.high}


def _compared(
    made: dict[str, Any], rows: Rows, baseline: Sequence[str], judge: Judge
) -> dict[str, Any]:
    """The trial's result with its win rate over the baseline, in place of its answers.

    In the process that has the judge: one that holds a key does not travel.
    """
    from ..evaluation import win_rate

    won = win_rate(rows, made.pop("answers"), baseline, judge)
    return made | {
        "points": list(won.points),
        "win_rate": won.estimate.value,
        "low": won.estimate.low,
        "high": won.estimate.high,
    }


def _baseline(sft: str | Path, rows: Rows, profile: Profile) -> list[str]:
    """What the SFT model answers."""
    from ..lm.shared import load_shared

    return _respond(load_shared(sft, profile), sft, rows, profile)


def _respond(model: Any, sft: str | Path, rows: Rows, profile: Profile) -> list[str]:
    from ..lm.generation import generate
    from ..lm.loading import load_tokenizer

    return generate(
        model,
        load_tokenizer(sft, profile),
        [row["prompt"] for row in rows],
        max_new_tokens=profile.max_new_tokens,
        temperature=0.7,
        batch_size=profile.generation_batch,
        label="answering",
    )


# What the sessions try.

SHORT_TRIPLES = 96  # to train a short run on


def short_settings(profile: Profile) -> TrainingSettings:
    """The profile's for DPO with half the batch: so few triples make enough steps."""
    return replace(profile.dpo, batch_size=max(1, profile.dpo.batch_size // 2))


def beta_sweep(
    sft: str | Path,
    triples: Rows,
    rows: Rows,
    profile: Profile,
    judge: Judge,
    *,
    betas: Sequence[float] = (0.05, 0.1, 0.5, 1.0),
    rates: Sequence[float] = (0.4, 2.0, 6.0),
    n: int = SHORT_TRIPLES,
    path: str | Path | None = None,
) -> pd.DataFrame:
    """Every beta at the profile's learning rate, and every learning rate at its beta.

    rates: in units of the profile's learning rate. n: triples to train on, the same for all.

    Returns one line a run: `beta`, `learning_rate`, the columns of `run_trials` with the KL, and
    `gap`: the margin without beta, in nats, which can be compared between betas.
    """
    import pandas as pd

    settings = short_settings(profile)
    pairs = [(beta, settings.learning_rate) for beta in betas]
    pairs += [(settings.beta, settings.learning_rate * rate) for rate in rates]
    trials = [
        Trial(
            {"beta": beta, "learning_rate": rate},
            triples[:n],
            replace(settings, beta=beta, learning_rate=rate),
        )
        for beta, rate in dict.fromkeys(pairs)
    ]
    results = run_trials(
        trials, sft, rows, profile, judge, kl_prompts=50, path=path, label="settings"
    )
    return pd.DataFrame(results).assign(gap=lambda table: table["margin"] / table["beta"])
