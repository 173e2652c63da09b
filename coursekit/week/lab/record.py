"""A study's record: numbers alone, small enough to come with the course."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.made_from import fingerprint, versions
from ...common.statistics import bootstrap_mean
from ...tasks import DEFAULT

if TYPE_CHECKING:
    import pandas as pd

    from .start import Start

SPENT = {"samples": "samples", "labels": "labels", "reward_calls": "reward calls"}
SFT_ITSELF = "SFT, cooler"  # the curve whose first point is the SFT model
RECORDED = Path(__file__).resolve().parents[2] / "tasks" / DEFAULT / "recorded_studies"


def save_record(
    results: Sequence[Mapping[str, Any]], starts: Mapping[int, Start], path: Path
) -> Path:
    """Write the results of `run_cells` with what they were made from, a line a cell."""
    from ...lm.identity import model_identity

    one = next(iter(starts.values()))
    made_from = {
        "task": one.task.name,
        "judge": one.judge.identity,
        "sft": model_identity(one.model, one.profile),
        "prompts": len(one.prompts),
        "evaluation": len(one.evaluation),
        "rows": fingerprint(one.evaluation),
        "seeds": {
            seed: {"triples": len(start.triples), "labels": start.labels, "samples": start.samples}
            for seed, start in starts.items()
        },
        "versions": versions(),
    }
    cells = ",\n".join(json.dumps(result) for result in results)
    text = f'{{"made_from": {json.dumps(made_from)},\n"cells": [\n{cells}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load_record(study: str | Path) -> dict[str, Any]:
    """The record of a study: one that comes with the course, by its name, or a file.

    Raises FileNotFoundError if there is none, ValueError for a file that is damaged.
    """
    shipped = RECORDED / f"{study}.json"
    path = shipped if shipped.is_file() else Path(study)
    if not path.is_file():
        raise FileNotFoundError(
            f"no record {study}: run `python -m coursekit study {study}` and give its file"
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"made_from": dict(record["made_from"]), "cells": list(record["cells"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again, or run the study") from error


def same_cell(record: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of the curve and seed of `cell`. Raises LookupError if nothing is."""
    for recorded in record["cells"]:
        if (recorded["curve"], recorded["seed"]) == (cell["curve"], cell["seed"]):
            return recorded
    raise LookupError(f"the record has no {cell['curve']!r} of seed {cell['seed']}")


def compare_runs(now: Mapping[str, Any], then: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether two runs of one cell agree, within what other prompts would do, and how they compare.

    Compared are the true rewards of the last checkpoint's answers. On the same machine and versions
    the runs are the same; elsewhere sums come out otherwise in the last digit, and other tokens
    follow.
    """
    found, recorded = (
        bootstrap_mean(run["answered"]["rewards"], within=(0, 1)) for run in (now, then)
    )
    width = (found.high - found.low + recorded.high - recorded.low) / 2
    said = f"{now['curve']}, seed {now['seed']}: true reward {found} now, {recorded} in the record"
    return abs(found.value - recorded.value) < width, said


def points_of(record: Mapping[str, Any]) -> pd.DataFrame:
    """A line a checkpoint: `curve`, `method`, `seed`, `place` (1, 2, ... in its run), and what was
    measured (see `points.measure`).
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                **{name: cell[name] for name in ("curve", "method", "seed")},
                "place": place,
                **point,
            }
            for cell in record["cells"]
            for place, point in enumerate(cell["points"], start=1)
        ]
    )


def mean_over_seeds(points: pd.DataFrame) -> pd.DataFrame:
    """The curves: for each checkpoint the mean over seeds of reward and KL, and their spread.

    Columns `curve`, `place`, `seeds`; `reward`, `kl`; `reward_low`, `reward_high`, `kl_low`,
    `kl_high`: the least and the greatest of a seed, which three of them tell more of than an
    interval would.
    """
    grouped = points.groupby(["curve", "place"], sort=False)
    return grouped.agg(
        seeds=("seed", "nunique"),
        reward=("reward", "mean"),
        reward_low=("reward", "min"),
        reward_high=("reward", "max"),
        kl=("kl", "mean"),
        kl_low=("kl", "min"),
        kl_high=("kl", "max"),
    ).reset_index()


def reward_at(points: pd.DataFrame, kl: float) -> pd.DataFrame:
    """The true reward of each run at that KL: what can be compared among methods.

    Between two checkpoints, the first of which is the SFT model, a straight line is drawn; where a
    run passes the KL more than once, the pass with the highest reward counts. Columns `curve`,
    `seed`, `reward`; a run that never gets so far is not there. points: as of `points_of` for a
    study with the curve `SFT_ITSELF`.
    """
    import pandas as pd

    sft = points[(points["curve"] == SFT_ITSELF) & (points["place"] == 1)]
    start = sft.set_index("seed")["reward"]
    lines = []
    for (curve, seed), run in points.groupby(["curve", "seed"], sort=False):
        run = run.sort_values("place")
        path = [(0.0, start[seed]), *zip(run["kl"], run["reward"], strict=True)]
        passes = [
            _between(*ends, kl) for ends in pairwise(path) if min(ends)[0] <= kl < max(ends)[0]
        ]
        if passes:
            lines.append({"curve": curve, "seed": seed, "reward": max(passes)})
    return pd.DataFrame(lines, columns=["curve", "seed", "reward"])


def _between(one: tuple[float, float], other: tuple[float, float], kl: float) -> float:
    """The reward at `kl` on the straight line between two points (kl, reward)."""
    share = (kl - one[0]) / (other[0] - one[0])
    return one[1] + share * (other[1] - one[1])


def spent_table(points: pd.DataFrame) -> pd.DataFrame:
    """What each curve's last checkpoint has cost, mean over seeds: `samples`, `labels`,
    `reward calls`; and `an answer`, how many samples each of its answers costs.
    """
    last = points.groupby(["curve", "seed"], sort=False).last().reindex(columns=[*SPENT, "n"])
    table = last.groupby("curve", sort=False).mean()
    table[list(SPENT)] = table[list(SPENT)].fillna(0)
    return table.fillna({"n": 1}).rename(columns=SPENT | {"n": "an answer"})


def win_table(record: Mapping[str, Any], against: str | None = None) -> pd.DataFrame:
    """A line a curve: how often its last checkpoint's answers beat SFT's, and what that cost.

    Columns: `curve`; `win rate` with `low` and `high`; `seeds`, the win rate of each; `reward`,
    `kl`, `length`, `chosen`, means over seeds of the last point's (see `points.measure`). A row's
    value is its mean over seeds and the interval a bootstrap over rows: how far other prompts would
    move it. With `against`, a curve's name, also `difference` in win rate from that curve, paired
    by row, with `difference low` and `difference high`; and `shown`, whether the whole interval and
    each seed lie on one side of 0, for seeds may differ more than prompts do.

    Raises ValueError if no curve is called `against`.
    """
    import numpy as np
    import pandas as pd

    cells = [cell for cell in record["cells"] if cell["answered"]]
    curves = {cell["curve"]: [other for other in cells if _same(cell, other)] for cell in cells}
    wins = {
        curve: np.array([one["answered"]["wins"] for one in of]) for curve, of in curves.items()
    }
    if against is not None and against not in curves:
        raise ValueError(f"no curve {against!r}: it is one of {', '.join(curves)}")
    lines = []
    for curve, of in curves.items():
        points = pd.DataFrame([cell["points"][-1] for cell in of]).mean(numeric_only=True)
        line = {"curve": curve, **_interval(wins[curve].mean(0), "win rate", "", (0, 1))}
        line |= {"seeds": wins[curve].mean(1).tolist()}
        line |= points[["reward", "kl", "length", "chosen"]].to_dict()
        if against is not None:
            apart = wins[curve].mean(0) - wins[against].mean(0)
            line |= _interval(apart, "difference", "difference ", (-1, 1))
            by_seed = wins[curve].mean(1) - wins[against].mean(1)
            ends = line["difference low"], line["difference high"], *by_seed
            line["shown"] = bool(min(ends) > 0 or max(ends) < 0)
        lines.append(line)
    table = pd.DataFrame(lines)
    table.attrs["against"] = against
    return table


def _same(cell: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return cell["curve"] == other["curve"]


def _interval(
    values: Sequence[float], name: str, prefix: str, within: tuple[float, float]
) -> dict[str, float]:
    """A mean by its name, and the ends of its interval over rows."""
    found = bootstrap_mean(values, within=within)
    return {name: found.value, f"{prefix}low": found.low, f"{prefix}high": found.high}
