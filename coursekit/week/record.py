"""The week on one model, written down: `python -m coursekit record`.

SFT, preference pairs, DPO, answers and two controls, for the task, model and profile that the
environment names; if asked for, two experiments on what the pairs have taught: DPO without those
that praise some text, and a second round. What is finished is kept, a stopped run goes on. What
comes out is one JSON file with the curves, every answer, what it was made with and what it cost,
but no weights: enough to evaluate it again, as session C does with the one that comes with the
course.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..common.made_from import fingerprint, plain, versions
from ..workspace import Workspace
from .gallery import flipped
from .recorded import (
    GREEDY,
    LEFT_OUT,
    SECOND_ROUND,
    SHUFFLED,
    RecordedWeek,
    curve_of,
    praises,
)

if TYPE_CHECKING:
    from ..common.statistics import Estimate

Made = TypeVar("Made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--title", help="what the model is, for readers (default: its name)")
    parser.add_argument("--out", type=Path, help="the file (default: week.json beside the runs)")
    parser.add_argument("--quick", action="store_true", help="without DPO on labels at random")
    parser.add_argument("--left-out", metavar="TEXT", help="also DPO without praise of TEXT")
    parser.add_argument("--second-round", action="store_true", help="also a second round of DPO")
    options = parser.parse_args()
    try:
        workspace = Workspace()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))
    path = options.out or workspace.folder / "week.json"
    week = record_week(workspace, options.title or Path(workspace.profile.base_model).name)
    _save(week, path)
    if not options.quick:
        _save(week := with_control(workspace, week), path)
    if options.left_out:
        _save(week := with_left_out(workspace, week, options.left_out), path)
    if options.second_round:
        _save(with_second_round(workspace, week), path)
    print(path)


def _save(week: RecordedWeek, path: Path) -> None:
    path.write_text(json.dumps(asdict(week), indent=1) + "\n", encoding="utf-8")


def record_week(workspace: Workspace, title: str) -> RecordedWeek:
    """Run what is not there yet, and give back what came out.

    Raises ValueError for a task whose truth no program knows.
    """
    if not workspace.task.knows_truth:
        raise ValueError(f"no program knows the truth of {workspace.task.name}: nothing to record")
    costs = Costs(workspace)
    models = {"base": workspace.profile.base_model}
    models["SFT"] = costs.of("SFT", workspace.sft)
    costs.of("preference pairs", workspace.pairs)
    models["SFT+DPO"] = costs.of("DPO", workspace.dpo)
    rows = workspace.rows("evaluation")
    answers = costs.of("answers", lambda: workspace.answers(models, rows))
    coolest = {GREEDY[name]: models[name] for name in GREEDY}
    answers |= costs.of(
        "control: greedy answers", lambda: workspace.answers(coolest, rows, temperature=0.0)
    )
    kl = costs.of("KL", lambda: _kl(workspace, models, rows))
    return RecordedWeek(
        title=title,
        weights=_weights(workspace),
        task=workspace.task.name,
        settings=_settings(workspace),
        machine=_machine(),
        versions=versions(),
        costs=costs.noted,
        counts=_counts(workspace),
        audit=_audit(workspace),
        curves={name: curve_of(models[name]) for name in ("SFT", "SFT+DPO")},
        triples=_triples(workspace),
        rows=rows,
        answers=answers,
        kl=kl,
    )


def with_control(workspace: Workspace, week: RecordedWeek) -> RecordedWeek:
    """The record with a model that was trained as SFT+DPO was, on labels at random.

    What this model can do, training alone has done: the steps, the rate and the responses are the
    same. The validation triples keep their labels.
    """
    train, held = workspace.triples()
    train, _ = flipped(0.5)(train, held, random.Random(workspace.seed))
    return _with(workspace, week, SHUFFLED, lambda: _dpo_on(workspace, train, "dpo_shuffled"))


def with_left_out(workspace: Workspace, week: RecordedWeek, text: str) -> RecordedWeek:
    """The record with a model trained without the triples that praise `text`.

    What SFT+DPO does and this model does not, those triples have taught.

    Raises ValueError if there are none.
    """
    train, _ = workspace.triples()
    kept = [row for row in train if not praises(row, text)]
    if len(kept) == len(train):
        raise ValueError(f"no training triple praises {text!r}: there is nothing to leave out")
    week = _with(workspace, week, LEFT_OUT, lambda: _dpo_on(workspace, kept, "dpo_left_out"))
    return replace(week, left_out=text)


def with_second_round(workspace: Workspace, week: RecordedWeek) -> RecordedWeek:
    """The record with a second round: pairs sampled from SFT+DPO, and DPO from there on them."""
    Costs(workspace).of("pairs of the second round", lambda: workspace.pairs(2))
    week = _with(workspace, week, SECOND_ROUND, lambda: workspace.dpo(2))
    return replace(week, second_triples=_triples(workspace, 2))


def _with(
    workspace: Workspace, week: RecordedWeek, name: str, train: Callable[[], Path]
) -> RecordedWeek:
    """The record with the model `name`, once it is trained: its curve, its answers, its costs."""
    costs = Costs(workspace)
    folder = costs.of(name, train)
    answers = costs.of(f"{name}: answers", lambda: workspace.answers({name: folder}, week.rows))
    return replace(
        week,
        costs=costs.noted,
        curves={**week.curves, name: curve_of(folder)},
        answers={**week.answers, **answers},
    )


def _dpo_on(workspace: Workspace, train: Sequence[Mapping[str, Any]], folder: str) -> Path:
    """DPO as ever, but on these training triples."""
    from ..training import train_dpo

    _, held = workspace.triples()
    return train_dpo(
        workspace.sft(),
        list(train),
        workspace.folder / folder,
        workspace.profile,
        validation=held,
        seed=workspace.seed,
    ).folder


class Costs:
    """Seconds and peak memory of each step, kept beside the runs: a step that is resumed adds up.

    Noted for these settings: with others the count begins anew. A step that was finished costs
    nothing when it is asked for again, and keeps what is noted.
    """

    def __init__(self, workspace: Workspace) -> None:
        settings = _settings(workspace)
        made_from = fingerprint(settings, workspace.task.identity, workspace.seed)
        self._path = workspace.folder / f"costs-{made_from}.json"
        self.noted: dict[str, dict[str, float]] = {}
        if self._path.is_file():
            self.noted = json.loads(self._path.read_text(encoding="utf-8"))

    def of(self, step: str, make: Callable[[], Made]) -> Made:
        """What `make` gives."""
        before = self.noted.get(step, {"seconds": 0.0, "peak": 0.0, "finished": False})
        start, finished = time.monotonic(), before["finished"]
        with peak_memory() as peak:
            try:
                made = make()
                finished = True
            finally:
                if not before["finished"]:
                    self.noted[step] = {
                        "seconds": round(before["seconds"] + time.monotonic() - start, 1),
                        "peak": round(max(before["peak"], peak()), 2),
                        "finished": finished,
                    }
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._path.write_text(json.dumps(self.noted, indent=1), encoding="utf-8")
        print(f"{step}: {self.noted[step]['seconds']:.0f} s, {self.noted[step]['peak']:.1f} GiB")
        return made


@contextmanager
def peak_memory(every: float = 0.1) -> Iterator[Callable[[], float]]:
    """Yields what tells the peak so far, GiB: of the GPU's memory, or else of the process's.

    The latter is looked at `every` so many seconds, and counts all that the process holds.
    """
    import psutil
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield lambda: torch.cuda.max_memory_allocated() / 2**30
        return
    process, ended, seen = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(every):
            seen[0] = max(seen[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(seen[0], process.memory_info().rss) / 2**30
    finally:
        ended.set()
        watcher.join()


def _kl(
    workspace: Workspace, models: Mapping[str, str | Path], rows: Sequence[Mapping[str, Any]]
) -> Estimate:
    from ..evaluation import kl_from_reference
    from ..lm.loading import load_tokenizer

    profile = workspace.profile
    policy, reference = (workspace.load(models[name]) for name in ("SFT+DPO", "SFT"))
    return kl_from_reference(
        policy,
        reference,
        load_tokenizer(profile.base_model, profile),
        [row["prompt"] for row in rows],
        max_new_tokens=profile.max_new_tokens,
        batch_size=profile.generation_batch,
        seed=workspace.seed,
    )


def _settings(workspace: Workspace) -> dict[str, Any]:
    """The profile's fields, but for where this machine keeps its files."""
    settings = plain(asdict(workspace.profile))
    for name in ("artifacts", "threads"):
        del settings[name]
    return settings | {"base_model": Path(settings["base_model"]).name, "seed": workspace.seed}


def _machine() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{device}, {os.cpu_count()} cores, {torch.get_num_threads()} of them used"


def _weights(workspace: Workspace) -> int:
    return workspace.load(workspace.profile.base_model).num_parameters()


def _counts(workspace: Workspace) -> dict[str, int]:
    from ..lm.loading import load_tokenizer
    from ..lm.logprobs import spans_boundary

    tokenizer = load_tokenizer(workspace.profile.base_model, workspace.profile)
    demonstrations = workspace.rows("demonstrations")
    train, held = workspace.triples()
    pairs = [(row["prompt"], row["response"]) for row in demonstrations]
    pairs += [(row["prompt"], row[side]) for row in train for side in ("chosen", "rejected")]
    return {
        "demonstrations": len(demonstrations),
        "preference prompts": len({row["prompt"] for row in (*train, *held)}),
        "training triples": len(train),
        "validation triples": len(held),
        "evaluation prompts": workspace.profile.evaluation_prompts,
        "spanning": sum(spans_boundary(tokenizer, *pair) for pair in pairs),
    }


def _triples(workspace: Workspace, nth: int = 1) -> list[dict[str, Any]]:
    """What says which response was preferred to which, and about what; not who judged it how."""
    kept = ("prompt", "chosen", "rejected", "facts")
    return [{name: row[name] for name in kept if name in row} for row in workspace.triples(nth)[0]]


def _audit(workspace: Workspace) -> list[str]:
    from ..preferences import audit

    train, held = workspace.triples()
    return [f"{item.check}: {item.found}" for item in audit(train, validation=held).problems]


if __name__ == "__main__":
    main()
