"""What all methods begin with: one SFT model, the same prompts, the same labels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.made_from import differences, read_record, set_aside, write_record
from ...common.profile import Profile
from ...common.quiet import quiet
from ...evaluation.judges import ProgramJudge
from ...lm.generation import generate
from ...lm.identity import model_identity
from ...lm.loading import adapter_config, load_model, load_tokenizer, merge_adapter
from ...lm.shared import load_shared
from ...preferences import (
    Design,
    judge_pairs,
    profile_design,
    sample_candidates,
    split_by_prompt,
    to_triples,
)
from ...tasks import Task
from ...workspace import Workspace
from ..gallery import flipped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = Sequence[dict[str, Any]]
ANSWERING = 0.7  # the temperature at which the sessions let models answer
HELD = 60  # triples held out, to see where their log-probabilities go


@dataclass(frozen=True)
class Start:
    """One seed's share of a study: what its methods train on and are measured by.

    model: the folder of the SFT model, whole (its adapter merged), which every policy starts from
    and is compared with. prompts: rows to sample and train on; evaluation: rows that no method
    trains on. folder: what a seed's cells share, the reward model for instance. candidates: the SFT
    model's responses to the prompts; triples: what the judge made of them, to train on; held: some
    more, of other prompts. labels: how many pairs were judged. answers: of the SFT model to the
    evaluation rows, at the sessions' temperature.
    """

    model: Path
    profile: Profile
    task: Task
    prompts: Rows
    evaluation: Rows
    folder: Path
    seed: int
    candidates: Rows = ()
    triples: Rows = ()
    held: Rows = ()
    labels: int = 0
    answers: Sequence[str] = ()

    @property
    def judge(self) -> ProgramJudge:
        """The rubric as a program: it labels the pairs, and its truth is the true reward."""
        return ProgramJudge(self.task)

    @property
    def samples(self) -> int:
        """How many responses of the SFT model were drawn for the pairs."""
        return sum(len(row["candidates"]) for row in self.candidates)

    def triples_of(
        self,
        *,
        wrong: float = 0.0,
        n: int | None = None,
        choice: str = "all",
        design: Design | None = None,
    ) -> Rows:
        """The training triples, or others in their place.

        Args:
            wrong: share of the labels to turn around at random; 0.5 leaves nothing of them.
            choice: `all`; `widest` first, by the judge's margin; or `one a prompt`.
            n: how many of these; they must be there (ValueError).
            design: sample candidates by this design in place of the profile's.
        """
        rows = self._sampled(design) if design else list(self.triples)
        if choice == "widest":
            rows.sort(key=lambda row: row["rejected_score"] - row["chosen_score"])
        elif choice == "one a prompt":
            rows = list({row["prompt"]: row for row in reversed(rows)}.values())[::-1]
        elif choice != "all":
            raise ValueError(f"unknown choice {choice!r}: all, widest or one a prompt")
        if n is not None and n > len(rows):
            raise ValueError(f"{n} triples wanted, and there are {len(rows)}: sample more prompts")
        train, _ = flipped(wrong)(rows[:n], (), random.Random(self.seed))
        return train

    def _sampled(self, design: Design) -> list[dict[str, Any]]:
        """Training triples of another design, as many prompts held out; kept in the folder."""
        folder = self.folder / design.name.replace(" ", "_")
        _, pairs = sample_and_judge(self, self.model, self.prompts, folder, design)
        return split_by_prompt(to_triples(pairs))[0]


def prepare(
    workspace: Workspace, seed: int, *, prompts: int, evaluation: int, split: str = "evaluation"
) -> Start:
    """The SFT model of the workspace, and a seed's candidates, labels and answers.

    The seed is that of sampling, training and measuring; SFT model and prompts are the same for
    all. What is there is used again. prompts, evaluation: how many rows; split: whose the latter
    are.
    """
    profile, place = workspace.profile, workspace.folder / "lab"
    start = Start(
        model=whole_model(workspace.sft(), place / "sft", profile),
        profile=profile,
        task=workspace.task,
        prompts=workspace.rows("preferences", prompts),
        evaluation=workspace.rows(split, evaluation),
        folder=place / f"{prompts}_prompts_seed_{seed}",
        seed=seed,
    )
    candidates, pairs = sample_and_judge(start, start.model, start.prompts, start.folder)
    train, held = split_by_prompt(to_triples(pairs))
    return replace(
        start,
        candidates=candidates,
        triples=train,
        held=held[:HELD],
        labels=len(pairs),
        answers=responses(load_shared(start.model, profile), start, ANSWERING),
    )


def sample_and_judge(
    start: Start, model: str | Path, prompts: Rows, folder: Path, design: Design | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Candidates of `model` for the prompts, and the pairs that the judge was asked about.

    Both are kept in `folder`. design: the profile's, if None.
    """
    profile, design = start.profile, design or profile_design(start.profile)
    candidates = sample_candidates(
        load_shared(model, profile),
        load_tokenizer(model, profile),
        prompts,
        profile,
        design,
        start.seed + 1,  # as the workspace's: not the seed of the answers
        folder / "candidates.jsonl",
    )
    path = folder / "pairs.jsonl"
    return candidates, judge_pairs(candidates, start.judge, design, quiet=True, path=path)


def responses(model: PreTrainedModel, start: Start, temperature: float) -> list[str]:
    """The model's answers to the evaluation rows, by the same random numbers for every model."""
    return generate(
        model,
        load_tokenizer(start.model, start.profile),
        [row["prompt"] for row in start.evaluation],
        max_new_tokens=start.profile.max_new_tokens,
        temperature=temperature,
        seed=start.seed,
        batch_size=start.profile.generation_batch,
        label=None,
    )


def whole_model(source: str | Path, folder: Path, profile: Profile) -> Path:
    """`source` with its adapter merged, saved in `folder` with its tokenizer, if it is not there.

    Methods differ in what they make of an adapter; of a whole model all make the same.
    """
    made_from = {"stage": "whole model", "source": model_identity(source, profile)}
    if folder.is_dir():
        differ = differences(read_record(folder), made_from)
        if not differ:
            return folder
        set_aside(folder, "; ".join(differ))
    model = load_model(source, profile)
    with quiet():
        (merge_adapter(model) if adapter_config(source) else model).save_pretrained(folder)
    load_tokenizer(source, profile).save_pretrained(folder)
    write_record(folder, made_from)
    return folder
