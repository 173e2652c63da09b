"""A study run cell by cell: each result is kept as it ends, a stopped study goes on."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...common.journal import Journal
from ...common.made_from import MadeFrom, code_version, fingerprint, plain
from ...common.parallel import run_all
from ...common.quiet import quiet
from ...lm import generation, kl, logprobs
from ...lm.identity import model_identity
from . import (
    best_of_n,
    offline,
    online,
    pair_trainer,
    points,
    rewards,
    rounds,
    start,
    train,
    untrained,
)
from .methods import METHODS
from .points import Checkpoint, answered, measure
from .start import Start
from .studies import Cell


def run_cells(
    cells: Sequence[Cell],
    starts: Mapping[int, Start],
    path: str | Path | None,
    *,
    workers: int = 1,
    tell: Callable[[dict[str, Any], int, float], None] = lambda result, left, seconds: None,
) -> list[dict[str, Any]]:
    """Run what is not in the journal at `path` yet, and give back all results, in the cells' order.

    A result is the cell's fields, `points` (see `points.measure`), `answered` of the last
    checkpoint (see `points.answered`), and `seconds` of computing, measuring apart as `measuring`.

    Args:
        starts: for each seed of the cells what its methods begin with.
        workers: how many cells run side by side, a thread each.
        tell: called with each new result, how many cells are left, and about how many seconds.
    """
    made_from = _made_from(starts)
    with Journal(path, made_from) as journal:
        found = {_key(result): result for group in journal.done for result in group}
        keyed = {_key(asdict(cell)): cell for cell in cells}
        missing = [cell for key, cell in keyed.items() if key not in found]
        began = time.monotonic()
        run = partial(_run, starts={seed: _one_thread(start) for seed, start in starts.items()})
        ended = run_all(run, missing, workers, lambda *told: None)
        for number, result in enumerate(ended, start=1):
            journal.append([result])
            found[_key(result)] = result
            left = len(missing) - number
            tell(result, left, (time.monotonic() - began) / number * left)
    return [found[_key(asdict(cell))] | {"curve": cell.curve} for cell in cells]


def _key(cell: Mapping[str, Any]) -> str:
    """What tells a cell, or the result of one, from others; a curve may be called otherwise."""
    return fingerprint(plain([cell[name] for name in ("method", "settings", "seed", "times")]))


def _one_thread(start: Start) -> Start:
    return replace(start, profile=replace(start.profile, threads=1))


def _made_from(starts: Mapping[int, Start]) -> MadeFrom:
    """Whatever all results depend on. A seed's labels follow from it and the seed."""
    one = next(iter(starts.values()))
    return {
        "sft": model_identity(one.model, one.profile),
        "prompts": fingerprint(one.prompts),
        "evaluation": fingerprint(one.evaluation),
        "settings": asdict(one.profile.dpo),
        "judge": one.judge.identity,
        "max_new_tokens": one.profile.max_new_tokens,
        "code": code_version(
            *(generation, kl, logprobs, best_of_n, offline, online, pair_trainer, points),
            *(rewards, rounds, start, train, untrained, sys.modules[__name__]),
        ),
    }


def _run(cell: Cell, starts: Mapping[int, Start]) -> dict[str, Any]:
    """Train and measure, in a process of its own."""
    start, began = starts[cell.seed], time.process_time()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        kept = METHODS[cell.method](start, Path(folder), cell.times, **cell.settings)
        trained = time.process_time()
        found = [measure(one, start) if isinstance(one, Checkpoint) else one for one in kept]
        last = answered(kept[-1], start) if isinstance(kept[-1], Checkpoint) else None
    return {
        **plain(asdict(cell)),
        "points": [_rounded(point) for point in found],
        "answered": last,
        "seconds": round(trained - began, 1),
        "measuring": round(time.process_time() - trained, 1),
    }


def _rounded(point: Mapping[str, Any]) -> dict[str, Any]:
    """Five digits tell all that 300 responses can."""
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) else value
        for name, value in point.items()
    }
