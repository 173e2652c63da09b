"""What a task is: prompts by split, what makes a response good, and what else is known.

A task says what only it can know. Whatever trains, samples, judges, evaluates or draws asks it, and
knows no task by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..common.profile import Profile
from ..common.prompts import as_text

# `prompt`, in demonstrations `response`, where asked for `reference`; `facts`: what the task itself
# knows of the prompt and nobody else reads. Whatever else stands in a row is provenance.
Row = dict[str, Any]

SPLITS = ("demonstrations", "preferences", "validation", "evaluation")


@dataclass(frozen=True)
class Metric:
    """One number about a response.

    name: as it stands in tables. score: of a row and a response; any finite number within `bounds`.
    kind: `truth` if it tells what is right, `heuristic` if it looks at the text alone. bounds: the
    least and the greatest value, None for any number (a length, say). better: which way is up, None
    for neither.
    """

    name: str
    score: Callable[[Mapping[str, Any], str], float]
    kind: Literal["truth", "heuristic"] = "heuristic"
    bounds: tuple[float, float] | None = (0.0, 1.0)
    better: Literal["higher", "lower"] | None = "higher"


@dataclass(frozen=True)
class Probe:
    """Something that training did not ask for: what a model could do before, and may have lost.

    prompt, response: asked, and the answer that is right or was written. kind: `text` (how well is
    the response predicted?), `question` (is it the greedy answer?) or `instruction` (does `obeys`
    hold for the greedy answer?). choices: all answers that there are to a question, if few.
    """

    prompt: str
    response: str
    kind: Literal["text", "question", "instruction"] = "question"
    obeys: Callable[[str], bool] | None = None
    choices: tuple[str, ...] = ()


class Task:
    """A task: what every one has to say, and what those say that know more.

    name: a word, for files. title, description, limits: for cards and headings; the description is
    a sentence about what the model is asked for. rubric: a markdown file, see
    `tasks.rubric.load_rubric`. metrics: in the order of tables; `overall`, the mean of the
    metrics of kind `truth`, is added to them by `score`. asked: what to call that which is shown of
    a prompt.
    """

    name: str
    title: str
    description: str
    limits: Sequence[str] = ()
    rubric: Path
    metrics: Sequence[Metric] = ()
    asked: str = "prompt"

    @property
    def identity(self) -> str:
        """A short text, the same in every process, that differs where rows or scores may."""
        raise NotImplementedError

    @property
    def scoring_identity(self) -> str:
        """As `identity`, but it differs only where the scores of a given row and response may."""
        return self.identity

    def rows(self, split: str, n: int, profile: Profile, seed: int = 0) -> list[Row]:
        """At most `n` rows of a split, all asked in the one way that the profile says.

        Rows of `demonstrations` have a `response`. No prompt is in two splits, with whatever seed.
        Raises ValueError for an unknown split.
        """
        raise NotImplementedError

    def reference(self, row: Mapping[str, Any]) -> str | None:
        """A response without fault, if one is known."""
        return None

    def shown(self, row: Mapping[str, Any]) -> str:
        """What a reader is shown of the prompt: what is asked again in each row may be left out."""
        return as_text(row["prompt"])

    def faults(self, row: Mapping[str, Any], response: str) -> set[str]:
        """The lines of a response that have a fault, for display; none where nobody knows."""
        return set()

    def copied(self, row: Mapping[str, Any], response: str) -> dict[str, bool]:
        """For each fact that a response has to repeat, whether it does; empty if there are none."""
        return {}

    def probes(self, n: int, seed: int = 0) -> list[Probe]:
        """At most `n` of each kind; empty where the task has none."""
        return []

    @property
    def knows_truth(self) -> bool:
        """Whether a program can tell how good a response is."""
        return any(metric.kind == "truth" for metric in self.metrics)

    def truth(self, row: Mapping[str, Any], response: str) -> float:
        """How good a response is: the mean of the truth metrics, each turned so that more is better
        and scaled to 0 to 1. Raises ValueError where no program knows.
        """
        found = [_worth(metric, row, response) for metric in self.metrics if metric.kind == "truth"]
        if not found:
            raise ValueError(f"the task {self.name!r} has no metric that tells what is right")
        return sum(found) / len(found)

    def score(self, row: Mapping[str, Any], response: str) -> dict[str, float]:
        """Every metric by name; last `overall`, where a program knows the truth."""
        scores = {metric.name: metric.score(row, response) for metric in self.metrics}
        return scores | ({"overall": self.truth(row, response)} if self.knows_truth else {})


def _worth(metric: Metric, row: Mapping[str, Any], response: str) -> float:
    """A truth metric's value between 0 (worst) and 1 (best)."""
    low, high = metric.bounds or (-math.inf, math.inf)
    value = metric.score(row, response)
    part = (value - low) / (high - low)
    return 1 - part if metric.better == "lower" else part


def with_references(task: Task, rows: Sequence[Row]) -> list[Row]:
    """The rows, each with a response without fault as `reference` where one is known."""
    known = [(row, task.reference(row)) for row in rows]
    return [row | ({} if best is None else {"reference": best}) for row, best in known]
