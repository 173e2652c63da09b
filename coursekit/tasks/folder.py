"""A folder as task: prompts, a rubric, and what else somebody knows of them, in plain files.

| file | holds |
|---|---|
| `task.toml` | title, description and settings, see `settings.Settings` |
| `prompts.jsonl` | `{"prompt": text or messages}`; whatever else stands there are facts |
| or `prompts.csv`, `prompts.txt` | a column `prompt`; one prompt a line |
| `rubric.md` | what a good response is |
| `demonstrations.jsonl`, if any | `{"prompt", "response"}`, to train on |
| `references.jsonl`, if any | `{"prompt", "reference"}`: a response without fault |
| `probes.jsonl`, if any | `{"prompt", "response"}`: what a model could do before |
| `metrics.py`, if any | functions `name(prompt, response) -> float` |
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..common.chance import drawn_number, drawn_share
from ..common.made_from import fingerprint, what_it_does
from ..common.profile import ROOT, Profile
from ..common.prompts import Prompt, as_text
from .contents import METRICS, RUBRIC, Contents, Entry, head, prompt_key, read_contents
from .metrics_file import MetricFunction, measured
from .problems import refuse
from .settings import MetricSettings, spoken
from .task import SPLITS, Metric, Probe, Row, Task

LENGTH = "length"  # in characters: of every task, unless its file has one by that name


def task_folder(folder: str | Path) -> Path:
    """The folder that is meant, absolute: see `profile.folder_of` for what it counts from."""
    return ROOT / os.path.expanduser(folder)


def read_task(folder: str | Path) -> FolderTask:
    """The task in a folder. Raises ValueError that says file, line, what is wrong and the remedy.

    `tasks.check` says all that is wrong, and what is merely unwise.
    """
    return FolderTask(folder)


class FolderTask(Task):
    """The task that the files in a folder make; the table above says which, `Task` the rest.

    A prompt's split follows from the prompt alone, so that adding others moves none. Demonstrations
    are the lines of their file; without one, those prompts of the split that have a reference.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = task_folder(folder)
        contents = read_contents(self.folder)
        refuse(contents.problems, self.folder)
        settings = contents.settings
        self.name, self.title = settings.name, settings.title
        self.description, self.limits = settings.description, settings.limits
        self.asked, self.instruction = settings.asked, settings.instruction
        self.rubric = self.folder / RUBRIC
        self.shares = settings.shares
        self._identity = fingerprint(contents.texts)
        self._scoring = fingerprint(
            what_it_does(contents.texts.get(METRICS, "")),
            settings.truth,
            {name: vars(one) for name, one in settings.metrics.items()},
        )
        self._references = {entry.key: entry.rest["reference"] for entry in contents.references}
        self._probes = contents.probes
        self._splits = self._split(contents)
        self._where = {entry.key: entry for split in self._splits.values() for entry in split}
        self.metrics = tuple(self._metrics(contents))

    def __reduce__(self) -> tuple[Any, ...]:
        return read_task, (self.folder,)  # another process reads the files: functions do not travel

    @property
    def identity(self) -> str:
        """A fingerprint of the files' texts; ends of lines and other files make no difference."""
        return self._identity

    @property
    def scoring_identity(self) -> str:
        """A fingerprint of what `metrics.py` does, comments apart, and what is said of metrics."""
        return f"{self.name}:{self._scoring}"

    def entries(self, split: str) -> list[Entry]:
        """The lines whose prompts belong to a split, in the files' order.

        Raises ValueError for an unknown split.
        """
        if split not in self._splits:
            raise ValueError(f"unknown split {split!r}: name one of {', '.join(SPLITS)}")
        return self._splits[split]

    def rows(self, split: str, n: int, profile: Profile, seed: int = 0) -> list[Row]:
        """At most `n` rows of a split, in an order that the seed draws; more rows extend fewer.

        Raises ValueError for an unknown split or, demonstrations apart, an empty one.
        """
        entries = self.entries(split)
        if not entries and split != "demonstrations":
            raise ValueError(
                f"{self.folder}: no prompt belongs to the split {split!r} "
                f"({self.shares[split]:g} per cent of the prompts): add prompts, or raise its "
                "share under [splits] in task.toml"
            )
        drawn = sorted(entries, key=lambda entry: _draw(seed, entry.key))
        return [self._row(entry, split) for entry in drawn[: max(n, 0)]]

    def reference(self, row: Mapping[str, Any]) -> str | None:
        """A response without fault, if the folder has one."""
        return self._references.get(prompt_key(self.bare(row["prompt"])))

    def shown(self, row: Mapping[str, Any]) -> str:
        """The prompt without the instruction."""
        return as_text(self.bare(row["prompt"]))

    def probes(self, n: int, seed: int = 0) -> list[Probe]:
        """At most `n` of each kind, drawn by the seed."""
        drawn = sorted(
            self._probes, key=lambda entry: _draw(seed, entry.key + entry.rest["response"])
        )
        probes = [
            Probe(entry.prompt, entry.rest["response"], entry.rest.get("kind", "question"))
            for entry in drawn
        ]
        by_kind = ([probe for probe in probes if probe.kind == kind] for kind in _KINDS)
        return [probe for kind in by_kind for probe in kind[: max(n, 0)]]

    def ask(self, prompt: Prompt) -> Prompt:
        """The prompt with the instruction before it; in a conversation, before its last turn."""
        if not self.instruction:
            return prompt
        if isinstance(prompt, str):
            return f"{self.instruction}\n{prompt}"
        *before, last = prompt
        return [*before, {**last, "content": f"{self.instruction}\n{last['content']}"}]

    def bare(self, prompt: Prompt) -> Prompt:
        """The prompt as it stands in the file: `ask` undone."""
        if not self.instruction or not prompt:
            return prompt
        if isinstance(prompt, str):
            return prompt.removeprefix(f"{self.instruction}\n")
        *before, last = prompt
        return [*before, {**last, "content": self.bare(last["content"])}]

    def _row(self, entry: Entry, split: str) -> Row:
        row: Row = {"prompt": self.ask(entry.prompt)}
        facts = dict(entry.rest)
        if split == "demonstrations":
            response = facts.pop("response", None) if entry.file.name == _GIVEN else None
            row["response"] = response or self._references[entry.key]
        return row | ({"facts": facts} if facts else {})

    def _split(self, contents: Contents) -> dict[str, list[Entry]]:
        """The entries of each split."""
        found: dict[str, list[Entry]] = {split: [] for split in SPLITS}
        for entry in contents.prompts:
            found[split_of(entry.key, self.shares)].append(entry)
        found["demonstrations"] = contents.demonstrations or [
            entry for entry in found["demonstrations"] if entry.key in self._references
        ]
        return found

    def _metrics(self, contents: Contents) -> list[Metric]:
        settings = contents.settings
        metrics = [
            self._metric(function, settings.metrics.get(name, MetricSettings()), settings.truth)
            for function in contents.functions
            for name in [spoken(function.name)]
        ]
        if all(metric.name != LENGTH for metric in metrics):
            given = settings.metrics.get(LENGTH, MetricSettings(bounds=None, better=None))
            length = MetricFunction(LENGTH, _length, 1)
            metrics.append(self._metric(length, given, settings.truth))
        return metrics

    def _metric(
        self, function: MetricFunction, settings: MetricSettings, truth: Sequence[str]
    ) -> Metric:
        name = spoken(function.name)
        return Metric(
            name=name,
            score=partial(self._score, function, settings.bounds),
            kind="truth" if name in truth else "heuristic",
            bounds=settings.bounds,
            better=settings.better,
        )

    def _score(
        self,
        function: MetricFunction,
        bounds: tuple[float, float] | None,
        row: Mapping[str, Any],
        response: str,
    ) -> float:
        prompt = self.bare(row["prompt"])
        entry = self._where.get(prompt_key(prompt))
        where = f"{entry.file.name}, line {entry.line}, " if entry else ""
        path = self.folder / METRICS
        text = as_text(prompt)
        return measured(function, bounds, path, text, response, f"{where}{head(prompt)}")


_KINDS = ("question", "text")
_GIVEN = "demonstrations.jsonl"


def split_of(key: str, shares: Mapping[str, float]) -> str:
    """The split that a prompt belongs to: its hash is a number from 0 to 100, of even spread."""
    number = drawn_share(key) * 100
    upper = 0.0
    for split, share in shares.items():
        upper += share
        if number < upper:
            return split
    return max(shares, key=shares.__getitem__)  # 100 less the rounding of the shares' sum


def _draw(seed: int, text: str) -> int:
    return drawn_number(f"{seed}\n{text}", size=32)


def _length(prompt: str, response: str) -> int:
    return len(response)
