"""A study's record: numbers alone, small enough to come with the course."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.made_from import fingerprint, versions
from ...lm.identity import model_identity
from .start import Start

if TYPE_CHECKING:
    import pandas as pd

RECORDED = Path(__file__).parent / "recorded"


def save_record(
    results: Sequence[Mapping[str, Any]], starts: Mapping[int, Start], path: Path
) -> Path:
    """Write the results of `run_cells` with what they were made from, a line a cell."""
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


def win_table(record: Mapping[str, Any], against: str | None = None) -> pd.DataFrame:
    """A line a curve and share of wrong labels: `win rate` over SFT, `reward` and `low`, `high`.

    Each row's value is its mean over seeds; the interval is a bootstrap over rows: how far other
    prompts would move it. `seeds`: the win rate of each. `kl`, `length`, `chosen`: means over seeds
    at the last checkpoint. With `against`, a curve's name, also `difference` in win rate from that
    curve, paired by row, with its interval.

    Raises ValueError if no curve is called `against`.
    """
    import numpy as np
    import pandas as pd

    from ...common.statistics import bootstrap_mean

    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for cell in record["cells"]:
        if cell["answered"]:
            wrong = cell["settings"].get("wrong", 0.0) if against is None else 0.0
            groups.setdefault((cell["curve"], wrong), []).append(cell)
    wins = {
        key: np.mean([cell["answered"]["wins"] for cell in cells], axis=0)
        for key, cells in groups.items()
    }
    if against is not None and (against, 0.0) not in wins:
        raise ValueError(f"no curve {against!r}: it is one of {', '.join(key[0] for key in wins)}")
    lines = []
    for (curve, wrong), cells in groups.items():
        found = bootstrap_mean(wins[curve, wrong], within=(0, 1))
        last = pd.DataFrame([cell["points"][-1] for cell in cells]).mean(numeric_only=True)
        line = {"curve": curve, "wrong": wrong, "win rate": found.value}
        line |= {"low": found.low, "high": found.high}
        line |= {"seeds": [float(np.mean(cell["answered"]["wins"])) for cell in cells]}
        line |= {name: last[name] for name in ("reward", "kl", "length", "chosen")}
        if against is not None:
            apart = bootstrap_mean(wins[curve, wrong] - wins[against, 0.0])
            line |= {"difference": apart.value, "difference low": apart.low}
            line |= {"difference high": apart.high}
        lines.append(line)
    return pd.DataFrame(lines)
