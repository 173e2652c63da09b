"""What wrong labels cost: the same DPO run on labels of judges who err more and more often.

One SFT model and one set of candidates; only the labels differ, and the seeds by which it is drawn
which labels are wrong and in what order training sees them. DPO is run beside robust DPO
(Chowdhury, Kini and Natarajan 2024, arXiv:2403.00409), which is told the true error rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.profile import Profile
from ..evaluation.judges import FlawedJudge, ProgramJudge
from ..preferences import judge_pairs, profile_design, to_triples
from ..training.sweep import SHORT_TRIPLES, Rows, Trial, run_trials, short_settings

if TYPE_CHECKING:
    import pandas as pd


def label_noise_sweep(
    sft: str | Path,
    candidates: Rows,
    rows: Rows,
    profile: Profile,
    truth: ProgramJudge,
    *,
    rates: Sequence[float] = (0.0, 0.2, 0.4),
    robust_rates: Sequence[float] = (0.4,),
    seeds: Sequence[int] = (0, 1, 2),
    triples: int = SHORT_TRIPLES,
    path: str | Path | None = None,
) -> pd.DataFrame:
    """Train on labels of which a share is wrong; judge the result by the truth.

    Without wrong labels both losses are the same, and run once. See `run_trials` for `path`.

    Args:
        sft: the SFT model's folder; the reference too. candidates: as from `sample_candidates`.
        rows: to be answered by SFT and by each result.
        robust_rates: those of the rates at which robust DPO is run too.
        triples: how many to train on, the same number in every run.

    Returns:
        One line a run: `rate`, `loss` (`DPO` or `robust DPO`), `seed`, `wrong` (share of its labels
        that the truth contradicts), and the columns of `run_trials`.
    """
    import pandas as pd

    trials, wrong = [], []
    for seed in seeds:
        for rate in rates:
            labelled = _labelled(
                candidates, FlawedJudge(truth, error_rate=rate, seed=seed), profile
            )[:triples]
            for loss in ("DPO", "robust DPO") if rate in robust_rates else ("DPO",):
                robust = {"loss_type": "robust", "label_smoothing": rate}
                name = {"rate": rate, "loss": loss, "seed": seed}
                options = robust if loss == "robust DPO" else {}
                trials.append(Trial(name, labelled, short_settings(profile), seed, options))
                wrong.append(_share_wrong(labelled, truth))
    results = run_trials(
        trials, sft, rows, profile, truth, path=path, label="runs with wrong labels"
    )
    frame = pd.DataFrame(results).assign(wrong=wrong)
    # Where no label is wrong robust DPO is DPO.
    same = frame[frame["rate"] == 0].assign(loss="robust DPO")
    return pd.concat([frame, same], ignore_index=True)


def _labelled(candidates: Rows, judge: FlawedJudge, profile: Profile) -> list[dict[str, Any]]:
    """Triples by a judge who errs."""
    return to_triples(judge_pairs(candidates, judge, profile_design(profile), quiet=True))


def _share_wrong(triples: Rows, truth: ProgramJudge) -> float:
    wrong = [truth.score(row, row["chosen"]) < truth.score(row, row["rejected"]) for row in triples]
    return sum(wrong) / len(wrong)


def noise_table(sweep: pd.DataFrame) -> pd.DataFrame:
    """Win rate by loss and rate: mean over seeds, 95 % interval, and the seeds' own.

    The interval is a bootstrap over the rows, of each row's mean over seeds: it tells how far other
    prompts would move the mean, not other seeds; those are in `seeds`.
    """
    import numpy as np
    import pandas as pd

    from ..common.statistics import bootstrap_mean

    records = []
    for (loss, rate), runs in sweep.groupby(["loss", "rate"], sort=False):
        estimate = bootstrap_mean(np.mean(runs["points"].tolist(), axis=0))
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
