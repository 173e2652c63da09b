"""A program as judge, where one knows the truth; and any judge made as careless as one asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...common.chance import drawn_share
from ...tasks import Task
from .judge import POINTS, Judge, Winner, identity_of, source_of, winner_by


@dataclass(frozen=True)
class ProgramJudge:
    """Prefers the response that the task's own truth puts higher; equal ones tie.

    A stand-in for a strong judge, free and offline. Raises ValueError if no program knows the truth
    of this task.
    """

    task: Task
    name: str = "program"

    def __post_init__(self) -> None:
        if not self.task.knows_truth:
            raise ValueError(
                f"no program knows what is right in the task {self.task.name!r}: name a metric "
                "that does as `truth` in its task.toml, or ask another judge (COURSE_JUDGE)"
            )

    @property
    def identity(self) -> str:
        """Name, the task's scores, and the program that compares."""
        return identity_of(self.name, self.task.scoring_identity, source_of(type(self)))

    def score(self, row: Mapping[str, Any], response: str) -> float:
        """The truth of `response`, 0 to 1."""
        return self.task.truth(row, response)

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        return winner_by(self.score(row, first) - self.score(row, second))


@dataclass(frozen=True)
class FlawedJudge:
    """Another judge with faults turned up, to see what a careless one does to the data.

    It gives the points that the sound judge gives, if that gives any.

    error_rate: share of pairs on which it holds the wrong opinion, 0 to 0.5. An opinion is about
        the pair: asked in the other order, the judge errs the same way. Which pairs, `seed` says.
    length_bias: points that 100 characters more are worth to it, where 1 is all that the sound
        judge can give.
    position_bias: points that being shown first is worth to it.

    Raises ValueError for an error rate outside 0 to 0.5.
    """

    sound: Judge
    name: str = "flawed"
    error_rate: float = 0.0
    length_bias: float = 0.0
    position_bias: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.error_rate <= 0.5:
            raise ValueError(
                f"error_rate is {self.error_rate}: give a share from 0 to 0.5, where verdicts say "
                "nothing; a judge that is worse than that is a good one with its labels swapped"
            )

    def __getattr__(self, name: str) -> Any:
        if name == "score":
            return self.sound.score
        raise AttributeError(name)

    @property
    def identity(self) -> str:
        """Name, faults, the sound judge, and the program that compares."""
        faults = (self.error_rate, self.length_bias, self.position_bias, self.seed)
        programs = source_of(type(self), winner_by)
        return identity_of(self.name, faults, self.sound.identity, programs)

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        difference = self._difference(row, first, second)
        if difference is None:
            return "invalid"
        difference += self.length_bias * (len(first) - len(second)) / 100 + self.position_bias
        return winner_by(-difference if self._errs(row, first, second) else difference)

    def _difference(self, row: Mapping[str, Any], first: str, second: str) -> float | None:
        """How much better the first is in truth, in points; None without a verdict."""
        if hasattr(self, "score"):
            return self.score(row, first) - self.score(row, second)
        points = POINTS[self.sound.compare(row, first, second)]
        return None if points is None else 2 * points - 1

    def _errs(self, row: Mapping[str, Any], first: str, second: str) -> bool:
        """Whether this pair is one on which the judge is wrong: the same in both orders."""
        if self.error_rate == 0:
            return False
        prompt = row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"])
        text = "\0".join([str(self.seed), prompt, *sorted((first, second))])
        return drawn_share(text) < self.error_rate
