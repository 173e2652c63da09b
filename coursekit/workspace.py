"""The folder of a run, which knows what made what.

A workspace stands for one task, one base model and one judge. It gives the SFT model, the triples,
the DPO model and the answers, and makes what is missing, by the steps of session B in its order and
with its settings. Each is asked for by what it is made from: what lies in the folder is used again
if it was made from just that, and is otherwise set aside and made anew (see `common.made_from`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .common.made_from import MadeFrom, differences, fingerprint, noting, read_record
from .common.profile import TINY_MODEL, Profile, load_profile
from .evaluation.judges import Judge, load_judge, load_truth
from .lm.identity import model_identity
from .tasks import DEFAULT, Row, Task, load_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .evaluation.endpoint import Endpoint
    from .evaluation.record import ThreeWayRecord

BROUGHT = "brought_sft.json"  # in the folder: whose SFT model it is about
Triples = list[dict[str, Any]]


class Workspace:
    """What a task, a profile and a judge make of one another, kept in one folder.

    Args:
        profile, task, judge: those that the environment names, if none is given (`COURSE_PROFILE`,
            `COURSE_MODEL`, `COURSE_TASK`, `COURSE_JUDGE`).
        folder: where results are kept; one for each task and model in the artifacts, if none is
            given.
        seed: of sampling and training; another seed is another run.
    """

    def __init__(
        self,
        profile: Profile | None = None,
        task: Task | None = None,
        judge: Judge | None = None,
        *,
        folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.profile, self.task = profile or load_profile(), task or load_task()
        self.folder = Path(folder or self.profile.artifacts / self.task.name / self.profile.name)
        self.seed = seed
        self._judge = judge

    @cached_property
    def judge(self) -> Judge:
        """Who says which response is better."""
        return self._judge or load_judge(self.task, self.profile)

    @cached_property
    def truth(self) -> Judge:
        """The program that knows; where none does, the judge stands in for it."""
        return load_truth(self.task, self.judge)

    @property
    def is_the_courses_own(self) -> bool:
        """Whether all is what the course ships: its task, model, settings, SFT and judge.

        What holds there was tried; with anything else, whether it holds is to be found out.
        """
        return (
            self.task is load_task(DEFAULT)
            and self.profile.name == "tiny"
            and self.profile.base_model == TINY_MODEL
            and (os.environ.get("COURSE_JUDGE") or "program") == "program"
            and not os.environ.get("COURSE_SAMPLER")
            and not self.brings_sft
        )

    @property
    def brings_sft(self) -> bool:
        """Whether its SFT model is one that was brought (`use_sft`), and not its own."""
        return (self.folder / BROUGHT).is_file()

    def load(self, source: str | Path) -> PreTrainedModel:
        """A model to read, not to train: the same object while somebody holds it."""
        from .lm.shared import load_shared

        return load_shared(source, self.profile)

    def _noting(self) -> AbstractContextManager[None]:
        """Let the records that are written meanwhile say where they belong; see `made_from`."""
        profile = self.profile
        return noting(
            {
                "task": self.task.name,
                "task's identity": self.task.identity,
                "profile": profile.name,
                "base model": profile.base_model,
                "base model's identity": model_identity(profile.base_model, profile),
                "coursekit": __version__,
            }
        )

    def rows(self, split: str, n: int | None = None) -> list[Row]:
        """Rows of a split, as many as the profile says if no number is given.

        Raises ValueError for a split of which the profile says no number, and for an unknown one.
        """
        sizes = {
            "demonstrations": self.profile.demonstrations,
            "preferences": self.profile.preference_prompts,
            "evaluation": self.profile.evaluation_prompts,
        }
        if n is None and split not in sizes:
            raise ValueError(f"no profile says how many rows of {split!r}: give a number")
        return self.task.rows(split, sizes[split] if n is None else n, self.profile, self.seed)

    def use_sft(self, sft: str | Path | None) -> str | Path:
        """From now on `sft` (a folder or a hub name) is the SFT model of this workspace: returned.

        It is noted in the folder, so that it is that in every session. None takes the note away:
        the SFT model is the workspace's own again, made if need be.

        Raises FileNotFoundError if there is no model.
        """
        from .lm.loading import load_tokenizer

        note = self.folder / BROUGHT
        if sft is None or Path(sft).absolute() == (self.folder / "sft").absolute():
            if note.is_file():
                note.unlink()
                print("SFT: from now on the workspace's own again, here and in session C")
            return self.sft()
        load_tokenizer(sft, self.profile)
        place = str(Path(sft).absolute()) if Path(sft).is_dir() else str(sft)
        self.folder.mkdir(parents=True, exist_ok=True)
        said = {"sft": place, "identity": model_identity(sft, self.profile)}
        note.write_text(json.dumps(said), encoding="utf-8")
        print(f"SFT: from now on the model that you bring, {place}, here and in session C")
        return sft

    def sft(self) -> str | Path:
        """The SFT model: the one you brought (`use_sft`), or else one trained on demonstrations.

        Where the task has no demonstrations the base model stands in for it, which is said.

        Raises FileNotFoundError if the one you brought is no longer there.
        """
        if self.brings_sft:
            return self._brought()
        return self._trained(self.profile.demonstrations, "sft")

    def quick_sft(self, n: int) -> str | Path:
        """As `sft`, but the workspace's own is trained on at most `n` demonstrations."""
        if self.brings_sft:
            return self._brought()
        return self._trained(n, "sft_quick")

    def _trained(self, n: int, name: str) -> str | Path:
        from .training import train_sft

        rows = self.rows("demonstrations", n)
        if not rows:
            _tell(
                f"SFT: the task {self.task.name} has no demonstrations, so the base model stands "
                "in for an SFT model; bring one with use_sft, or write demonstrations.jsonl"
            )
            return self.profile.base_model
        base, folder = self.profile.base_model, self.folder / name
        with self._noting():
            return train_sft(base, rows, folder, self.profile, seed=self.seed).folder

    def _brought(self) -> str:
        from .lm.loading import load_tokenizer

        sft, identity = self._note()
        advice = f"put it back, or delete {self.folder / BROUGHT} to go on with the course's own"
        try:
            load_tokenizer(sft, self.profile)
        except OSError as error:
            raise FileNotFoundError(f"the SFT model that you brought is gone: {advice}") from error
        changed = "" if identity == model_identity(sft, self.profile) else "; it has changed since"
        _tell(f"SFT: the model that you brought, {sft}{changed}")
        return sft

    def _note(self) -> tuple[str, str]:
        """Where the SFT model is that you brought, and its identity then."""
        note = self.folder / BROUGHT
        try:
            said = json.loads(note.read_text(encoding="utf-8"))
            return said["sft"], said["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{note} is damaged ({error}): run session B's section 2 again"
            ) from error

    def writer(
        self, name: str, source: str | Path, folder: str | Path | None = None
    ) -> str | Path | Endpoint:
        """Who writes the responses of the model `source`, which is called `name` here.

        The server that COURSE_SAMPLER names, if it serves a model by that name ("SFT"), else the
        model itself, here. What the server says is noted in `folder`, the responses' own.

        Raises EndpointError if the server does not answer and nothing is noted of it.
        """
        from .evaluation.endpoint import SETTING, find_writer

        writer = find_writer(name, source, folder or self.folder / "responses")
        if os.environ.get(SETTING) and isinstance(writer, str | Path):
            _tell(f"{name}: generated here, as the server that {SETTING} names has no such model")
        return writer

    def pairs(self, nth: int = 1) -> tuple[Triples, list[dict[str, Any]]]:
        """The preference triples, sampled from the SFT model and chosen by the judge; all pairs.

        Those of a second round (`nth`) are sampled from the DPO model of the first, and so on.
        """
        from .lm.loading import load_tokenizer
        from .preferences import make_triples

        name, source = self._start(nth)
        writer = self.writer(name, source)
        with self._noting():
            return make_triples(
                self.load(source) if writer is source else writer,
                load_tokenizer(source, self.profile),
                self.rows("preferences"),
                self.profile,
                self.judge,
                seed=self.seed + nth,
                folder=self._round(nth),
                scorer=self.truth,
            )

    def triples(self, nth: int = 1) -> tuple[Triples, Triples]:
        """The triples to train on, and those for validation, which share no prompt."""
        from .preferences import split_by_prompt

        return split_by_prompt(self.pairs(nth)[0])

    def dpo(self, nth: int = 1) -> Path:
        """The folder of the DPO model, trained on the triples; of a later round, from the model of
        the one before, which is its reference too.
        """
        from .training import train_dpo

        train, validation = self.triples(nth)
        with self._noting():
            return train_dpo(
                self._start(nth)[1],
                train,
                self._round(nth) / "dpo",
                self.profile,
                validation=validation,
                seed=self.seed,
            ).folder

    def _start(self, nth: int) -> tuple[str, str | Path]:
        """The model that a round samples from and trains, and its name."""
        return ("SFT+DPO", self.dpo(nth - 1)) if nth > 1 else ("SFT", self.sft())

    def _round(self, nth: int) -> Path:
        return self.folder / f"round_{nth}" if nth > 1 else self.folder

    def models(self) -> dict[str, str | Path]:
        """Base, SFT and SFT+DPO."""
        return {"base": self.profile.base_model, "SFT": self.sft(), "SFT+DPO": self.dpo()}

    def present(self) -> dict[str, str | Path]:
        """Those of `models` that are there now, from whatever they were made; nothing is made."""
        own: dict[str, str | Path] = {"SFT": self.folder / "sft", "SFT+DPO": self.folder / "dpo"}
        if self.brings_sft:
            own["SFT"] = self._note()[0]
        elif not self.rows("demonstrations", 1):
            own["SFT"] = self.profile.base_model
        there = {name: place for name, place in own.items() if _is_there(place)}
        return {"base": self.profile.base_model, **there}

    def answers(
        self, models: Mapping[str, str | Path], rows: Sequence[Row], **options: Any
    ) -> dict[str, list[str]]:
        """Every model's answers, kept in the folder; see `evaluation.responses.answer`.

        Those that the server of COURSE_SAMPLER serves by their name answer there; see `writer`.
        """
        from .evaluation.responses import answer

        folder = self.folder / "answers"
        writers = {name: self.writer(name, source, folder) for name, source in models.items()}
        with self._noting():
            return answer(
                writers, rows, self.profile, folder=folder, **{"seed": self.seed} | options
            )

    def evaluated(self, models: Mapping[str, str | Path], rows: Sequence[Row]) -> MadeFrom:
        """What an evaluation of `models` on `rows` is made from: the record that is kept with it.

        What it cost elsewhere and the distance from the SFT model follow from the models too.
        """
        return {
            "models": {name: model_identity(place, self.profile) for name, place in models.items()},
            "task": self.task.name,
            "scores": self.task.scoring_identity,
            "rows": fingerprint(rows),
            "n": len(rows),
            "judge": self.judge.identity,
            "max_new_tokens": self.profile.max_new_tokens,
            "seed": self.seed,
        }

    def evaluation(self) -> tuple[ThreeWayRecord | None, str]:
        """The saved evaluation, and what it was made from that is otherwise now: empty for nothing.

        Nothing is made: the models are those that lie in the folder.

        Raises ValueError if it is damaged, or if there is no judge to compare its judge with.
        """
        from .evaluation.record import load_three_way

        record = load_three_way(self.folder)
        if record is None:
            return None, ""
        return record, record.differs(self.evaluated(self.present(), self.rows("evaluation")))

    def outdated(self) -> list[str]:
        """What the models in the folder were made from that is otherwise now, a sentence each.

        Of SFT, if it is the workspace's own, and of DPO; their rows apart, which only making them
        would tell.
        """
        profile, models = self.profile, self.present()
        identities = {name: model_identity(place, profile) for name, place in models.items()}
        wanted = {
            "sft": {"base": identities["base"], "settings": asdict(profile.sft)},
            "dpo": {"sft": identities.get("SFT"), "settings": asdict(profile.dpo)},
        }
        if models.get("SFT") != self.folder / "sft":
            del wanted["sft"]
        return [
            f"{name}'s {sentence}"
            for name, now in wanted.items()
            for sentence in differences(read_record(self.folder / name), now | {"seed": self.seed})
        ]


def _is_there(model: str | Path) -> bool:
    """Whether a model lies in that folder; a name on the hub is taken to be one."""
    names = ("config.json", "adapter_config.json")
    return not Path(model).is_absolute() or any((Path(model) / name).is_file() for name in names)


@cache
def _tell(text: str) -> None:
    """Print it; a second time in the same process it is no news."""
    print(text)


@dataclass(frozen=True)
class ThreeWay:
    """Base, SFT and SFT+DPO on the same evaluation prompts.

    means: metric scores by model; overall: difference of the overall score, SFT+DPO over SFT, with
    its interval; wins: SFT+DPO against SFT; kl: of SFT+DPO from SFT, nats a response; copied: least
    share of any fact that SFT copies right under greedy decoding; margin: the last reward gap on
    validation triples.
    """

    means: Any
    overall: Any
    wins: Any
    kl: Any
    copied: float
    margin: float


def three_way(workspace: Workspace) -> ThreeWay:
    """Run everything (what is there is reused) and evaluate as session C does.

    Raises ValueError where no program knows the truth of the task.
    """
    from .common.statistics import Estimate
    from .evaluation import comparison_table, copy_accuracy, kl_from_reference, score_responses
    from .evaluation.win_rates import win_rate
    from .lm.loading import load_tokenizer
    from .training import load_run

    task, profile = workspace.task, workspace.profile
    if not task.knows_truth:
        raise ValueError(
            f"the task {task.name!r} has no metric that tells what is right, so there is no "
            "overall score to compare: name one as `truth` in its task.toml"
        )
    models, rows = workspace.models(), workspace.rows("evaluation")
    tokenizer = load_tokenizer(profile.base_model, profile)
    policy, reference = (workspace.load(models[name]) for name in ("SFT+DPO", "SFT"))
    responses = workspace.answers(models, rows)
    greedy = workspace.answers({"SFT": models["SFT"]}, rows, temperature=0.0)["SFT"]
    scores = score_responses(task, rows, responses)
    (difference,) = comparison_table(
        scores, candidate="SFT+DPO", baseline="SFT", metrics=["overall"]
    ).itertuples()
    history = load_run(models["SFT+DPO"]).history
    return ThreeWay(
        means=scores.groupby("model").mean().drop(columns="row"),
        overall=Estimate(difference.difference, difference.low, difference.high),
        wins=win_rate(rows, responses["SFT+DPO"], responses["SFT"], workspace.truth),
        kl=kl_from_reference(
            policy,
            reference,
            tokenizer,
            [row["prompt"] for row in rows],
            max_new_tokens=profile.max_new_tokens,
            batch_size=profile.generation_batch,
            seed=workspace.seed,
        ),
        copied=copy_accuracy(task, rows, greedy).min(),
        margin=next(
            entry["eval_rewards/margins"]
            for entry in reversed(history)
            if "eval_rewards/margins" in entry
        ),
    )
