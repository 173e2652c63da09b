"""Runs that go wrong, each in its own way: to learn to recognise them.

One SFT model, one set of triples; a condition changes one thing, or says what else. The recorded
metrics of many such runs are what the red flags are tested on; on some, the policy was also
compared with SFT on the way (`WinRateCallback`), which shows when a growing margin lied.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..common.profile import Profile
from ..tasks import load_task

if TYPE_CHECKING:
    import pandas as pd

    from ..evaluation.judges import Judge
    from ..training import TrainingRun, WinRateCallback
    from ..workspace import Workspace

Rows = Sequence[dict[str, Any]]
RECORDED_TASK = load_task("triage")  # the one whose runs come with the course
RECORDED_RUNS = Path(__file__).resolve().parents[1] / "tasks" / "triage" / "recorded"
TUNED_SEEDS = (0, 1)  # the red flags' thresholds were set on the runs of these


@dataclass(frozen=True)
class Condition:
    """One way to run DPO.

    disease: the red flag that it should raise, `healthy`, or nothing where the metrics look healthy
    and only the answers tell. settings: changes to the profile's. story: what is wrong and how it
    shows, for those who have guessed. triples: how many to train on, at most. rows: what becomes of
    train and validation triples, with a random source. start: what DPO starts from (`sft` or
    `base`). reference: what it starts from, or the base model, which is wrong.
    """

    name: str
    disease: str
    settings: dict[str, Any] = field(default_factory=dict)
    story: str = ""
    rows: Callable[[Rows, Rows, random.Random], tuple[Rows, Rows]] = lambda train, held, rng: (
        train,
        held,
    )
    triples: int = 320
    start: Literal["sft", "base"] = "sft"
    reference: Literal["start", "base"] = "start"


def flipped(rate: float) -> Callable[[Rows, Rows, random.Random], tuple[Rows, Rows]]:
    """A share `rate` of the labels turned around, held-out ones too."""

    def flip(rows: Rows, rng: random.Random) -> Rows:
        return [
            {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
            if rng.random() < rate
            else row
            for row in rows
        ]

    return lambda train, held, rng: (flip(train, rng), flip(held, rng))


def longer_wins(train: Rows, held: Rows, rng: random.Random) -> tuple[Rows, Rows]:
    """Labels of a judge who looks at the length alone."""

    def relabel(rows: Rows) -> Rows:
        out = []
        for row in rows:
            chosen, rejected = sorted((row["chosen"], row["rejected"]), key=len, reverse=True)
            if len(chosen) > len(rejected):
                out.append({**row, "chosen": chosen, "rejected": rejected})
        return out

    return relabel(train), relabel(held)


def few(n: int) -> Callable[[Rows, Rows, random.Random], tuple[Rows, Rows]]:
    """`n` of the training triples."""
    return lambda train, held, rng: (rng.sample(list(train), n), held)


CONDITIONS = (
    Condition(
        "healthy",
        "healthy",
        story="Nothing. Margin and ranking grow together on training and held-out triples, the KL "
        "stays small, entropy and length hardly move, and the policy wins.",
    ),
    Condition("healthy, all triples", "healthy", triples=10_000),
    Condition("healthy, beta 0.3", "healthy", {"beta": 0.3}),
    Condition("healthy, half the rate", "healthy", {"learning_rate": 2.5e-4}),
    Condition("learning rate far too low", "no learning", {"learning_rate": 1e-6}),
    Condition(
        "learning rate too high",
        "KL running away",
        {"learning_rate": 2e-3},
        story="Four times the healthy rate. The margin is many times the healthy run's, for about "
        "as many wins: the rest was spent on distance. The KL is many times as large and rising, "
        "and the format begins to break. Stop early, or lower the rate.",
    ),
    Condition(
        "beta far too high",
        "",
        {"beta": 5.0},
        story="Fifty times the healthy beta. The margin looks the largest only because beta is a "
        "factor of it: divide it out, and it is smaller than the healthy run's. The ranking is "
        "right, but the policy may hardly leave its reference, and wins less.",
    ),
    Condition(
        "beta far too low",
        "",
        {"beta": 0.01},
        story="A tenth of the healthy beta, and nothing else: in a run this short nothing happens. "
        "The learning rate and the number of steps decide how far it goes; beta would decide where "
        "it ended.",
    ),
    Condition(
        "eight times the epochs",
        "collapse",
        {"epochs": 16},
        story="Everything as in the healthy run, but it does not stop. Margin and ranking look "
        "better and better, long after the answers have begun to fall apart: it loses from the "
        "first comparison on. KL and entropy tell it.",
    ),
    Condition(
        "learning rate absurd",
        "collapse",
        {"learning_rate": 1e-2},
        story="Twenty times the healthy rate. The margin is wide, held-out pairs are ranked right, "
        "and what the model writes is debris. The KL says so from the first measurement.",
    ),
    Condition("learning rate insane", "divergence", {"learning_rate": 0.3}),
    Condition(
        "labels flipped 40 %",
        "noisy labels",
        rows=flipped(0.4),
        story="Two labels in five are turned round. What one pair teaches the next one takes back: "
        "margins near zero, ranking near chance, no KL. The policy has stayed what it was; more "
        "training would not help, better labels would.",
    ),
    Condition("labels at random", "noisy labels", rows=flipped(0.5)),
    Condition(
        "reference is the base model",
        "wrong reference",
        reference="base",
        story="The policy starts from SFT, its rewards are measured from the base model. Margins "
        "are not zero at the first step, held-out pairs are ranked worse than by chance, and the "
        "KL is there before training. In a run this short the answers do not suffer: the curves "
        "are wrong and the model is not, which is why the first step is checked at all.",
    ),
    Condition(
        "no SFT first",
        "",
        start="base",
        story="DPO started from the base model. Every curve looks healthy: against *its own* "
        "reference the policy learns to rank. But the base model does not write reports, and "
        "preferences between reports do not teach it to. Only the answers, and the comparison "
        "with SFT, show it.",
    ),
    Condition(
        "judge who likes length",
        "length growth",
        rows=longer_wins,
        triples=10_000,
        story="All triples, with the labels of a judge who looks at length alone. Margin and "
        "ranking are excellent, since the policy has learnt exactly what the labels say. But the "
        "length grows, and by the true rubric it loses. No curve can tell that labels mean "
        "another thing; an audit of the triples can.",
    ),
    Condition(
        "forty triples",
        "",
        {"epochs": 40 / 3},
        rows=few(40),
        story="As many steps as the healthy run, on an eighth of its triples. The margin on "
        "those runs far ahead of the held-out one; the wins do not follow.",
    ),
    Condition(
        "forty triples, many epochs",
        "overfitting",
        {"epochs": 30, "learning_rate": 1e-3},
        rows=few(40),
        story="Three things at once, since one alone does not overfit so soon: forty triples, "
        "thirty times, at twice the healthy rate. On those the margin keeps growing; held out it "
        "has stopped, and the KL has not. The answers soon get worse: the policy has learnt forty "
        "pairs by heart.",
    ),
)


def run_condition(
    condition: Condition,
    sft: str | Path,
    train: Rows,
    validation: Rows,
    prompts: Sequence[str],
    folder: str | Path,
    profile: Profile,
    *,
    seed: int = 0,
    contest: WinRateCallback | None = None,
) -> TrainingRun:
    """Train under `condition`, watched; the run's folder has its metrics.

    contest: compares the policy with SFT on the way.
    """
    from ..training import Monitor, train_dpo

    rng = random.Random(f"{condition.name}/{seed}")
    train, validation = condition.rows(list(train)[: condition.triples], list(validation), rng)
    return train_dpo(
        sft if condition.start == "sft" else profile.base_model,
        train,
        folder,
        profile,
        settings=replace(profile.dpo, **condition.settings),
        monitor=Monitor(prompts, validation, times=8),
        callbacks=[contest] if contest else [],
        seed=seed,
        save_strategy="no",
        wrong_reference=profile.base_model if condition.reference == "base" else None,
    )


CONTEST_PROMPTS = 100  # for runs that are recorded
SHOWN = 2  # answers to the first of them are kept

RECORDED = (
    "step",
    "loss",
    "grad_norm",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "kl/k1",
    "kl/k1_se",
    "kl/k3",
    "kl/k3_se",
    "policy/entropy",
    "policy/length",
    "policy/ended",
    "held/margin",
    "held/accuracy",
    "held/reference_logp",
    "held/chosen_shift",
    "held/rejected_shift",
    "contest/win_rate",
)


def contest_rows(profile: Profile) -> list[dict[str, Any]]:
    """The alerts on which recorded runs were compared with SFT.

    About services of the evaluation pool, but not the evaluation's: on these the training settings
    were found.
    """
    from ..tasks.triage.alerts import FRESH

    return RECORDED_TASK.rows("evaluation", CONTEST_PROMPTS, profile, seed=-FRESH)


def record(
    profile: Profile, seeds: Sequence[int], folder: str | Path, healthy_only: bool = False
) -> None:
    """Run every condition for every seed; keep the metrics, and what it answered in the end.

    The files are `CONDITION.SEED.csv` and `CONDITION.SEED.json` (see `Exhibit`).

    `python -m coursekit.week.gallery --seeds 0 1 2 --out FOLDER`; what is there is not run again.
    """
    from ..common.parallel import run_all, share_threads
    from ..common.progress import progress
    from ..workspace import Workspace

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (condition.name, seed)
        for seed in seeds
        for condition in CONDITIONS
        if (condition.disease == "healthy" or not healthy_only)
        and not (folder / _file_name(condition.name, seed)).is_file()
    ]
    Workspace(profile, RECORDED_TASK).triples()
    workers, one_thread = share_threads(profile)
    with progress("runs of the gallery", len(jobs), "runs") as advance:
        for name, seed in run_all(
            partial(_record_one, profile=one_thread, folder=folder), jobs, workers, advance
        ):
            _seal(folder)
            print(name, seed, flush=True)


def _file_name(condition: str, seed: int) -> str:
    return f"{condition.replace(' ', '_').replace('%', 'percent').replace(',', '')}.{seed}.csv"


def _record_one(job: tuple[str, int], profile: Profile, folder: Path) -> tuple[str, int]:
    """Run one condition with one seed, compared with SFT on the way; keep what came out."""
    from ..lm.loading import load_tokenizer
    from ..training import WinRateCallback
    from ..workspace import Workspace

    name, seed = job
    condition = next(condition for condition in CONDITIONS if condition.name == name)
    workspace = Workspace(profile, RECORDED_TASK)
    sft, rows = workspace.sft(), contest_rows(profile)
    tokenizer = load_tokenizer(sft, profile)
    baseline = _answers(sft, rows, profile)
    contest = WinRateCallback(rows, baseline, workspace.truth, tokenizer, profile)
    metrics = _metrics_of(condition, workspace, contest, seed)
    path = folder / _file_name(name, seed)
    end = json.dumps(_end_of(contest, workspace.truth), indent=1, ensure_ascii=False)
    path.with_suffix(".json").write_text(end, encoding="utf-8")
    # Written last: where it stands the run is whole.
    metrics.to_csv(path, index=False, float_format="%.4g")
    return job


def _answers(model: str | Path, rows: Rows, profile: Profile) -> list[str]:
    from ..lm.generation import generate
    from ..lm.loading import load_model, load_tokenizer

    return generate(
        load_model(model, profile),
        load_tokenizer(model, profile),
        [row["prompt"] for row in rows],
        max_new_tokens=profile.max_new_tokens,
        temperature=0.7,
        batch_size=profile.generation_batch,
        label=None,
    )


def _metrics_of(
    condition: Condition, workspace: Workspace, contest: WinRateCallback, seed: int
) -> pd.DataFrame:
    """Those metrics of a run that are recorded, with the win rate where it was measured."""
    import pandas as pd

    from ..training import load_metrics

    profile = workspace.profile
    train, validation = workspace.triples()
    prompts = [row["prompt"] for row in RECORDED_TASK.rows("validation", 24, profile, seed)]
    with tempfile.TemporaryDirectory() as scratch:
        run = run_condition(
            condition,
            workspace.sft(),
            train,
            validation[:24],
            prompts,
            Path(scratch) / "run",
            profile,
            seed=seed,
            contest=contest,
        )
        metrics = load_metrics(run.folder)
    metrics = metrics.merge(pd.DataFrame(contest.measured), on="step", how="left")
    return metrics[[name for name in RECORDED if name in metrics]]


def _end_of(contest: WinRateCallback, truth: Judge) -> dict[str, Any]:
    """What came out, as `Exhibit` holds it."""
    from ..evaluation import score_responses, win_rate

    sides = {"SFT": contest.baseline, "this run": contest.answers}
    won = win_rate(contest.rows, contest.answers, contest.baseline, truth).estimate
    scores = score_responses(RECORDED_TASK, contest.rows, sides).drop(columns="row")
    means = scores.groupby("model").mean()
    return {
        "win_rate": [won.value, won.low, won.high],
        "scores": {model: means.loc[model].round(4).to_dict() for model in means.index},
        "answers": {model: answers[:SHOWN] for model, answers in sides.items()},
    }


SUMS = "sums.json"  # beside recorded runs: each file's checksum


def _sum(path: Path) -> str:
    """A checksum of the text, whatever ends its lines: version control may have changed that."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in (".csv", ".json") and path.name != SUMS
    ]


def _seal(folder: Path) -> None:
    sums = {path.name: _sum(path) for path in _files(folder)}
    (folder / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def _check_sums(folder: Path) -> None:
    """Raise ValueError unless the recorded files are all there, as they were written."""
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / SUMS} cannot be read ({error}). {_RECORDED_FIX}") from error
    for name in sums.keys() | {path.name for path in _files(folder)}:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing. {_RECORDED_FIX}")
        if _sum(folder / name) != sums.get(name):
            raise ValueError(f"{folder / name} is cut, or was changed. {_RECORDED_FIX}")


_RECORDED_FIX = (
    "Runs that come with the course: `git checkout -- coursekit/tasks/triage/recorded`. Your own: "
    "delete the file, and record it again with `python -m coursekit.week.gallery`"
)


@dataclass(frozen=True)
class Recorded:
    """A recorded run: what was changed, the seed, the metrics (a line a step), and its beta.

    end: what came out, for runs that were compared with SFT, else None.
    """

    condition: Condition
    seed: int
    metrics: pd.DataFrame
    beta: float
    end: Exhibit | None = None


@dataclass(frozen=True)
class Exhibit:
    """What came out of a run, on the alerts of `contest_rows`.

    win_rate: over SFT, with the ends of its interval. scores: metric by model (`SFT`, `this run`).
    answers: of both to the first prompts.
    """

    win_rate: tuple[float, float, float]
    scores: Mapping[str, Mapping[str, float]]
    answers: Mapping[str, Sequence[str]]


def load_recorded(folder: str | Path = RECORDED_RUNS) -> list[Recorded]:
    """The recorded runs in `folder`: those that come with the course, if none is given.

    Raises ValueError for files that are missing, cut or changed.
    """
    import pandas as pd

    from ..common.profile import load_profile

    beta = load_profile("tiny").dpo.beta
    _check_sums(Path(folder))
    by_name = {_file_name(condition.name, 0)[:-6]: condition for condition in CONDITIONS}
    runs = []
    for path in sorted(Path(folder).glob("*.csv")):
        name, seed = path.stem.rsplit(".", 1)
        condition = by_name[name]
        end = path.with_suffix(".json")
        exhibit = Exhibit(**json.loads(end.read_text(encoding="utf-8"))) if end.is_file() else None
        runs.append(
            Recorded(
                condition,
                int(seed),
                pd.read_csv(path),
                condition.settings.get("beta", beta),
                exhibit,
            )
        )
    return runs


def mystery_cases(runs: Sequence[Recorded], seed: int = 2) -> dict[str, Recorded]:
    """Four diseased runs of one seed under letters, for learners to name; every disease another."""
    names = (
        "labels at random",
        "learning rate too high",
        "forty triples, many epochs",
        "judge who likes length",
    )
    found = [run for name in names for run in runs if run.condition.name == name]
    return dict(zip("ABCD", (run for run in found if run.seed == seed), strict=True))


# In this order, which tells nothing.
EXHIBITED = (
    "judge who likes length",
    "learning rate too high",
    "no SFT first",
    "labels flipped 40 %",
    "healthy",
    "eight times the epochs",
    "forty triples, many epochs",
    "reference is the base model",
    "beta far too high",
    "learning rate absurd",
)


def exhibition(runs: Sequence[Recorded], seed: int = 0) -> dict[str, Recorded]:
    """The failure gallery: ten runs of one seed that were compared with SFT, under letters."""
    found = {run.condition.name: run for run in runs if run.end and run.seed == seed}
    return dict(zip("ABCDEFGHIJ", (found[name] for name in EXHIBITED), strict=True))


def detection_table(runs: Sequence[Recorded]) -> pd.DataFrame:
    """How the red flags do on recorded runs, a line a condition.

    Columns: `disease`; `runs`; `named`: how many raised the flag of the disease; `false alarms`: of
    healthy runs, how many raised one that is not harmless; `other flags`: what else was raised.
    """
    import pandas as pd

    from ..training import red_flags

    lines = []
    for condition in CONDITIONS:
        raised = [
            {flag.name for flag in red_flags(run.metrics, run.beta) if not flag.harmless}
            for run in runs
            if run.condition.name == condition.name
        ]
        healthy = condition.disease == "healthy"
        lines.append(
            {
                "condition": condition.name,
                "disease": condition.disease,
                "runs": len(raised),
                "named": sum(condition.disease in names for names in raised),
                "false alarms": sum(map(bool, raised)) if healthy else 0,
                "other flags": ", ".join(sorted(set().union(*raised) - {condition.disease})),
            }
        )
    return pd.DataFrame(lines).set_index("condition")


def nameless_table(runs: Sequence[Recorded]) -> pd.DataFrame:
    """The runs whose fault no rule could name, a line each: `flags` raised, `wins over SFT`."""
    import pandas as pd

    from ..training import red_flags

    lines = [
        {
            "run": f"{run.condition.name}, seed {run.seed}",
            "flags": ", ".join(f.name for f in red_flags(run.metrics, run.beta) if not f.harmless),
            "wins over SFT": f"{run.end.win_rate[0]:.0%}" if run.end else "not compared",
        }
        for run in runs
        if not run.condition.disease
    ]
    return pd.DataFrame(lines).set_index("run")


if __name__ == "__main__":
    import argparse

    from ..common.profile import load_profile

    parser = argparse.ArgumentParser(description="Record the metrics of runs that go wrong.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--healthy-only", action="store_true")
    options = parser.parse_args()
    record(load_profile(), options.seeds, options.out, options.healthy_only)
