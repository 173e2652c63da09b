"""What lies in a workspace's folder, as plain data: nothing is made, trained, sampled or asked.

What is not there, or cannot be read, is noted with what makes or mends it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...common.files import json_lines, read_text
from ...common.journal import read_journal
from ...common.made_from import differences, read_record
from ...evaluation.record import ThreeWayRecord, load_three_way
from ...preferences import Audit, audit, load_triples, split_by_prompt, to_triples
from ...workspace import Workspace
from .answers import BASELINE, CANDIDATE, Answered, answers_of
from .kept_verdicts import Memory, Nobody, memory_of
from .pairs import Pair, pairs_of

if TYPE_CHECKING:
    import pandas as pd

    from ...training import Flag

Found = TypeVar("Found")
_ALL = "or all of it: python -m coursekit course"


@dataclass(frozen=True)
class Sample:
    """What the policy answered to one watched prompt, by the step. asked: where that is kept."""

    asked: str
    answers: dict[int, str]


@dataclass
class Glance:
    """A run, as it lies there. about: what run it is. outdated, missing: a sentence each.

    models: those that are there. curves: what the trainers logged, by stage. metrics: the
    monitor's. pairs, answers: all that are kept, in their order.
    """

    workspace: Workspace
    about: dict[str, str]
    outdated: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    models: dict[str, str | Path] = field(default_factory=dict)
    record: ThreeWayRecord | None = None
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    metrics: pd.DataFrame | None = None
    red_flags: list[Flag] | None = None
    samples: list[Sample] = field(default_factory=list)
    audit: Audit | None = None
    pairs: list[Pair] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    def look(self, what: str, where: str, find: Callable[[], Found]) -> Found | None:
        """What `find` finds. An error, and None or an empty list, are noted as missing.

        where: the session and section that makes it.
        """
        try:
            found = find()
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            self.missing.append(f"{what}: {error}")
            return None
        if found is None or (isinstance(found, list) and not found):
            self.missing.append(f"{what}: not there yet. Run session {where}, {_ALL}")
            return None
        return found


def gather(workspace: Workspace) -> Glance:
    """Everything that is there of the run in `workspace`."""
    profile = workspace.profile
    glance = Glance(
        workspace,
        {
            "task": workspace.task.title,
            "profile": profile.name,
            "base model": Path(profile.base_model).name,
            "seed": str(workspace.seed),
        },
    )
    glance.models = glance.look("models", "B", workspace.present) or {}
    glance.outdated += (
        glance.look("what the models were made from", "B", _outdated(workspace)) or []
    )
    _look_at_evaluation(glance)
    _look_at_training(glance)
    _look_at_pairs(glance)
    _look_at_answers(glance)
    if identity := _judge(glance):
        glance.about["judge"] = identity.rpartition(":")[0]
    return glance


def _outdated(workspace: Workspace) -> Callable[[], tuple[str, ...]]:
    """What is not there at all is said elsewhere."""
    return lambda: tuple(
        sentence for sentence in workspace.outdated() if not sentence.endswith("made from")
    )


def _look_at_evaluation(glance: Glance) -> None:
    workspace = glance.workspace
    where = "C, section 11"
    glance.record = glance.look(
        "the three-way table", where, lambda: load_three_way(workspace.folder)
    )
    if glance.record is None:
        return
    _, why = glance.look("today's judge", where, workspace.evaluation) or (None, "")
    glance.outdated += [why] if why else []


def _look_at_training(glance: Glance) -> None:
    from ...training import load_metrics, red_flags

    glance.curves = {
        BASELINE: _curve(glance, BASELINE, "sft", "B, section 2"),
        CANDIDATE: _curve(glance, CANDIDATE, "dpo", "B, section 6"),
    }
    if not glance.curves[CANDIDATE]:
        return
    folder, where = glance.workspace.folder / "dpo", "B, section 6, which watches DPO"
    glance.metrics = glance.look("DPO's watched metrics", where, lambda: load_metrics(folder))
    if glance.metrics is not None:
        beta = read_record(folder)["settings"]["beta"]
        raised = glance.look("red flags", where, lambda: tuple(red_flags(glance.metrics, beta)))
        glance.red_flags = None if raised is None else list(raised)
        glance.samples = (
            glance.look("samples along training", where, lambda: _samples(folder)) or []
        )


def _curve(glance: Glance, model: str, name: str, where: str) -> list[dict[str, float]]:
    """What was logged; of a model that was brought, or that the base stands in for, nothing."""
    from ..recorded import curve_of

    own = glance.workspace.folder / name
    if glance.models.get(model, own) != own:
        return []
    return glance.look(f"training of {model}", where, lambda: curve_of(own)) or []


def _samples(folder: Path) -> list[Sample]:
    from ...training.monitor import SAMPLES_FILE

    path = folder / SAMPLES_FILE
    asked: dict[int, str] = {}
    answers: dict[int, dict[int, str]] = defaultdict(dict)
    for row in json_lines(read_text(path), path) if path.is_file() else []:
        if not isinstance(row, ValueError):  # a last line that a kill has cut
            asked[row["prompt"]] = row.get("asked", "")
            answers[row["prompt"]][row["step"]] = row["response"]
    return [Sample(asked[number], answers[number]) for number in sorted(answers)]


def _look_at_pairs(glance: Glance) -> None:
    workspace, where = glance.workspace, "B, section 3"
    path, saved = workspace.folder / "pairs.jsonl", workspace.folder / "triples.jsonl"
    judged = glance.look("judged pairs", where, lambda: read_journal(path)) or []
    if judged:
        triples = to_triples(judged)
    elif saved.is_file():
        triples = glance.look("triples", where, lambda: load_triples(saved, allow_empty=True)) or []
    else:
        return
    train, validation = split_by_prompt(triples)
    if train:
        prompts = [row["prompt"] for row in workspace.rows("evaluation")]
        glance.audit = glance.look(
            "the audit",
            where,
            lambda: audit(train, validation=validation, evaluation=prompts, pairs=judged),
        )
        _compare_with_dpo(glance, train, validation)
    memory = _memory(glance, _judge_of_pairs(workspace))
    glance.pairs = pairs_of(workspace.task, judged, triples, train, glance.audit, memory)


def _compare_with_dpo(glance: Glance, train: list, validation: list) -> None:
    """Say it if the DPO model was trained on other triples than these."""
    from ...training.rows import rows_record

    if not glance.curves[CANDIDATE]:  # nothing is there, or it is damaged
        return
    record = read_record(glance.workspace.folder / "dpo")
    if differences(record, rows_record(train, validation)):
        glance.outdated.append("dpo was trained on other triples than those that lie here now")


def _look_at_answers(glance: Glance) -> None:
    from ...evaluation.responses import kept_answers

    workspace, where = glance.workspace, "C, section 1"
    if not {CANDIDATE, BASELINE} <= set(glance.models):
        glance.missing.append(f"answers: there are no two models to compare. Run session {where}")
        return
    rows, folder = workspace.rows("evaluation"), workspace.folder / "answers"

    def find() -> list[Answered]:
        kept = kept_answers(
            glance.models, rows, workspace.profile, seed=workspace.seed, folder=folder
        )
        return answers_of(workspace.task, rows, kept, _memory(glance, _judge(glance)))

    glance.answers = glance.look("answers of the models as they are now", where, find) or []


def _judge(glance: Glance) -> str | None:
    """The identity of the judge of the evaluation; before there is one, of the pairs'."""
    found = glance.record.made_from.get("judge") if glance.record else None
    return found or _judge_of_pairs(glance.workspace)


def _judge_of_pairs(workspace: Workspace) -> str | None:
    """The identity of the judge that chose among the candidates, where that is on record."""
    with suppress(ValueError):  # a damaged record is noted where the pairs are read
        return (read_record(workspace.folder / "pairs.jsonl") or {}).get("judge")
    return None


def _memory(glance: Glance, identity: str | None) -> Memory:
    workspace = glance.workspace
    found = glance.look(
        "the judge's reasons",
        "B, section 3",
        lambda: memory_of(identity, workspace.task, workspace.profile.artifacts),
    )
    return found or Nobody()
