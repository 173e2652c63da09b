"""A week that was written down (`week.record` makes the file): read again, and evaluated.

The figures and tables of a recorded week come from its answers, by the functions that evaluate a
week of one's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.statistics import Estimate
from .gallery import RECORDED_RUNS

if TYPE_CHECKING:
    import pandas as pd

WEEKS = RECORDED_RUNS.parent / "recorded_weeks"
CURVES = ("step", "loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected")
GREEDY = {"SFT": "SFT, greedy", "SFT+DPO": "SFT+DPO, greedy"}
SHUFFLED = "SFT+DPO, labels at random"
LEFT_OUT = "SFT+DPO, pairs left out"
SECOND_ROUND = "SFT+DPO, second round"


@dataclass(frozen=True)
class RecordedWeek:
    """What the week left on one model.

    title: the model, for readers; weights: how many parameters it has. settings: the profile's
    fields. machine, versions: what it ran on. costs: for each step its `seconds` and the `peak`
    memory of the process, GiB. counts: rows of each kind; `spanning` of them have a token that lies
    in prompt and response. audit: a line a finding. curves: what the trainers logged, by stage.
    triples: those that DPO was trained on. rows: the evaluation's; answers: of each model to these,
    at temperature 0.7 where no other is told; kl: of SFT+DPO from SFT, nats a response. left_out:
    the text for whose praise triples were left out, where a model was trained without them;
    second_triples: those of the second round, if there was one.
    """

    title: str
    weights: int
    task: str
    settings: Mapping[str, Any]
    machine: str
    versions: Mapping[str, str]
    costs: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    audit: Sequence[str]
    curves: Mapping[str, Sequence[Mapping[str, float]]]
    triples: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    answers: Mapping[str, Sequence[str]]
    kl: Estimate
    left_out: str = ""
    second_triples: Sequence[Mapping[str, Any]] = ()


def praises(triple: Mapping[str, Any], text: str) -> bool:
    """Whether the chosen response holds the text and the rejected one does not."""
    return text in triple["chosen"] and text not in triple["rejected"]


def load_week(week: str | Path) -> RecordedWeek:
    """A recorded week: one that comes with the course, by its name, or a file.

    Raises FileNotFoundError if there is none, ValueError for a file that is damaged.
    """
    path = WEEKS / f"{week}.json" if (WEEKS / f"{week}.json").is_file() else Path(week)
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        return RecordedWeek(**said | {"kl": Estimate(**said["kl"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): get it again from the course") from error


def controls(week: RecordedWeek) -> pd.DataFrame:
    """What else could explain how SFT+DPO does? A line a comparison, judged by the truth.

    Columns: `against`, `win rate`, `low`, `high`. Without those models that the record was made
    without.
    """
    import pandas as pd

    from ..evaluation import win_rate
    from ..evaluation.judges import ProgramJudge
    from ..tasks import load_task

    judge = ProgramJudge(load_task(week.task))
    lines = []
    for candidate, baseline in (
        ("SFT+DPO", "SFT"),
        (SHUFFLED, "SFT"),
        (LEFT_OUT, "SFT"),
        (SECOND_ROUND, "SFT"),
        (GREEDY["SFT"], "SFT"),
        (GREEDY["SFT+DPO"], GREEDY["SFT"]),
    ):
        if candidate not in week.answers:
            continue
        won = win_rate(week.rows, week.answers[candidate], week.answers[baseline], judge).estimate
        lines.append(
            {"model": candidate, "against": baseline}
            | {"win rate": won.value, "low": won.low, "high": won.high}
        )
    return pd.DataFrame(lines).set_index("model")


def curve_of(folder: str | Path) -> list[dict[str, float]]:
    """What was logged at each step, and where validation was measured that as `held/...`.

    Nothing for a model that no run has left there.
    """
    from ..training import load_run
    from ..training.run import is_finished

    if not is_finished(folder):
        return []
    curve = []
    for entry in load_run(folder).history:
        held = {
            f"held/{name.removeprefix('rewards/')}": entry[f"eval_{name}"]
            for name in ("rewards/margins", "rewards/accuracies")
            if f"eval_{name}" in entry
        }
        logged = {name: entry[name] for name in CURVES if name in entry}
        curve.append({**logged, **held})
    return curve
