"""What wrong labels cost: the same DPO run on labels of judges who err more and more often.

One SFT model and one set of candidates; only the labels differ, and the seeds by which it is drawn
which labels are wrong and in what order training sees them. DPO is run beside robust DPO
(Chowdhury, Kini and Natarajan 2024, arXiv:2403.00409), which is told the true error rate.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .judging import RubricJudge
from .preferences import Design, judge_pairs, profile_design, to_triples
from .preferences.journal import Journal, fingerprint
from .profile import Profile
from .progress import progress

if TYPE_CHECKING:
    import pandas as pd

LOSSES = {"DPO": "sigmoid", "robust DPO": "robust"}


@dataclass(frozen=True)
class Job:
    """One run: the share of wrong labels, the loss's name (a key of `LOSSES`), and the seed."""

    rate: float
    loss: str
    seed: int


def label_noise_sweep(
    sft: str | Path,
    candidates: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    *,
    rates: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
    seeds: Sequence[int] = (0, 1, 2),
    triples: int = 160,
    path: str | Path | None = None,
) -> pd.DataFrame:
    """Train on labels of which a share is wrong; judge the result by the true rubric.

    Where the profile names CPU threads, that many runs go side by side with a thread each: half as
    much again in the same time as one run on all threads. With `path`, each run's result is kept
    there when it ends; called again, only what is missing runs. Without wrong labels both losses
    are the same, and run once.

    Args:
        sft: the SFT model's folder; the reference too. candidates: as from `sample_candidates`.
        rows: with `prompt` and `alert`: to be answered by SFT and by each result.
        triples: how many to train on, the same number in every run.

    Returns:
        One line a run: `rate`, `loss`, `seed`, `wrong` (share of its labels that the rubric
        contradicts), `won` (for each row 1 for a win over SFT, 0.5 for a tie, 0), `win_rate`, and
        `margin` (on the training triples, mean of the last ten steps).
    """
    import pandas as pd

    design = profile_design(profile)
    jobs = [
        Job(rate, loss, seed)
        for seed in seeds
        for rate in rates
        for loss in (LOSSES if rate else list(LOSSES)[:1])
    ]
    texts = [[one["response"] for one in row["candidates"]] for row in candidates]
    prompts = [row["prompt"] for row in rows]
    # Half the batch: so few triples make enough steps.
    settings = replace(profile.dpo, batch_size=max(1, profile.dpo.batch_size // 2))
    profile = replace(profile, dpo=settings)
    run = fingerprint(texts, prompts, asdict(settings), asdict(design), triples)
    journal = Journal(path, run)
    results = [result for group in journal.done for result in group]
    missing = [job for job in jobs if asdict(job) not in [_job(result) for result in results]]
    work = _Work(str(sft), list(candidates), list(rows), profile, design, triples)
    with progress("runs with wrong labels", len(jobs), "runs") as advance:
        advance(len(jobs) - len(missing))
        for result in _run_all(missing, work, advance):
            journal.append([result])
            results.append(result)
    frame = pd.DataFrame(
        [result for job in jobs for result in results if _job(result) == asdict(job)]
    )
    # Where no label is wrong robust DPO is DPO.
    same = frame[frame["rate"] == 0].assign(loss="robust DPO")
    return pd.concat([frame, same], ignore_index=True)


def _job(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("rate", "loss", "seed")}


@dataclass(frozen=True)
class _Work:
    """What every run needs."""

    sft: str
    candidates: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    profile: Profile
    design: Design
    triples: int


def _run_all(jobs: Sequence[Job], work: _Work, advance):
    """The results, as they come: in this process, or in one process a thread."""
    workers = min(work.profile.threads or 1, len(jobs))
    if workers <= 1:
        for job in jobs:
            yield _run(job, work)
            advance()
        return
    work = replace(work, profile=replace(work.profile, threads=1))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _ignore_interrupts)
    try:
        waiting: set[Future] = {pool.submit(_run, job, work) for job in jobs}
        start = time.monotonic()
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            # Also when nothing has ended: who waits wants to see that something happens.
            advance(len(done), f"({time.monotonic() - start:.0f} s so far)")
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C is the parent's to handle: it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_sft_responses: dict[str, list[str]] = {}  # of this process, by the SFT model's folder


def _run(job: Job, work: _Work) -> dict[str, Any]:
    """Label, train, answer, compare."""
    from .evaluation import win_rate
    from .models import load_model
    from .training import train_dpo

    noisy = RubricJudge(error_rate=job.rate, seed=job.seed)
    labelled = to_triples(judge_pairs(work.candidates, noisy, work.design))[: work.triples]
    truth = RubricJudge()
    wrong = [
        truth.score(row, row["chosen"]) < truth.score(row, row["rejected"]) for row in labelled
    ]
    options = {"loss_type": LOSSES[job.loss]}
    if job.loss == "robust DPO":
        options["label_smoothing"] = job.rate
    with tempfile.TemporaryDirectory() as folder:
        run = train_dpo(work.sft, labelled, folder, work.profile, seed=job.seed, **options)
        ours = _respond(load_model(run.folder, work.profile), work)
    if work.sft not in _sft_responses:
        _sft_responses[work.sft] = _respond(load_model(work.sft, work.profile), work)
    won = win_rate(work.rows, ours, _sft_responses[work.sft], truth)
    margins = [entry["rewards/margins"] for entry in run.history if "rewards/margins" in entry]
    return {
        **asdict(job),
        "wrong": sum(wrong) / len(wrong),
        "won": list(won.points),
        "win_rate": won.estimate.value,
        "margin": sum(margins[-10:]) / len(margins[-10:]),
    }


def _respond(model, work: _Work) -> list[str]:
    from .generation import generate
    from .models import load_tokenizer

    return generate(
        model,
        load_tokenizer(work.sft, work.profile),
        [row["prompt"] for row in work.rows],
        max_new_tokens=work.profile.max_new_tokens,
        temperature=0.7,
        batch_size=work.profile.generation_batch,
        label="answering",
    )


def noise_table(sweep: pd.DataFrame) -> pd.DataFrame:
    """Win rate by loss and rate: mean over seeds, 95 % interval, and the seeds' own.

    The interval is a bootstrap over the rows, of each row's mean over seeds: it tells how far other
    prompts would move the mean, not other seeds; those are in `seeds`.
    """
    import numpy as np
    import pandas as pd

    from .evaluation import bootstrap_mean

    records = []
    for (loss, rate), runs in sweep.groupby(["loss", "rate"], sort=False):
        estimate = bootstrap_mean(np.mean(runs["won"].tolist(), axis=0))
        records.append(
            {
                "loss": loss,
                "rate": rate,
                "wrong": runs["wrong"].mean(),
                "win_rate": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "seeds": runs["win_rate"].tolist(),
            }
        )
    return pd.DataFrame(records).sort_values(["loss", "rate"], ignore_index=True)
