"""What does a DPO step need, and does it fit? `python -m coursekit memory MODEL`.

Predicts, for each recipe, what is in memory at the peak of one step. `--measure` also trains a
model with random weights of that shape on this machine, a few steps of each recipe, and says what
it took. `--save` keeps the rows in a file: those that are in it are not measured again.
`--recorded` prints what ships with the course.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from ..common.profile import ROOT, Profile, load_profile
from ..lm.memory_budget import GIB
from ..lm.shapes import SHAPES, Shape, find_shape
from ..lm.step_memory import FP32, METHODS, Plan
from .memory_tables import (
    MEASURED,
    MEASURED_HEAD,
    Row,
    about,
    key,
    markdown,
    measured_cells,
    measured_table,
    prediction_table,
    record_row,
    recorded,
    shipped,
    t4_answer,
    t4_table,
    table_line,
)

TOO_LARGE = "does not fit"
FolderIn = Callable[[str], Path]  # a number format -> where a model in it lies


def main() -> None:
    options = _options()
    if options.recorded:
        print(f"{t4_table()}\n\nWhat fits: {t4_answer()}.\n\n{measured_table(shipped())}")
        return
    profile = load_profile()
    plans = list(chosen_plans(options, profile))
    if not plans:
        sys.exit("These options leave no recipe: an adapter is not kept in another format.")
    for model in options.models or [profile.base_model]:
        try:
            shape = find_shape(model, profile.revision if model == profile.base_model else None)
        except (OSError, ValueError) as error:
            sys.exit(str(error))
        print(f"{about(shape, plans[0])}\n\nPredicted for {options.device}:\n")
        print(prediction_table(shape, plans, options.device, options.gpu_memory), flush=True)
        if options.measure:
            measure(shape, plans, options.steps, options.save)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m coursekit memory", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    known = ", ".join(SHAPES)
    add("models", nargs="*", metavar="MODEL", help=f"a folder, a hub name, or {known}")
    add("--batch", type=_count, help="pairs a step (default: the profile's)")
    add("--length", type=_count, help="tokens a sequence at most (default: the profile's)")
    add("--rank", type=_count, help="of LoRA (default: the profile's)")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--kept-in", choices=METHODS["full"], help="this number format alone")
    add("--checkpointing", choices=("on", "off"), help="this alone")
    add("--reference", choices=("precomputed", "kept"), help="this alone")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="to predict for (default: cuda)")
    add("--gpu-memory", type=float, metavar="GB", help="say what fits")
    add("--measure", action="store_true", help="measure on this machine too")
    add("--steps", type=_count, default=3, help="timed steps (default: 3)")
    add("--save", type=Path, metavar="FILE", help="keep what is measured, and go on from there")
    add("--recorded", action="store_true", help="print the rows that ship with the course")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def chosen_plans(options: argparse.Namespace, profile: Profile) -> Iterator[Plan]:
    """Every plan that the options leave, at their batch, length and rank or the profile's."""
    size = (
        options.batch or profile.dpo.batch_size,
        options.length or profile.dpo.max_length,
        options.rank or profile.dpo.lora_rank,
    )
    for method in options.methods:
        for recipe, checkpointing, reference in product(
            METHODS[method], ("on", "off"), ("precomputed", "kept")
        ):
            if (
                options.kept_in in (None, recipe)
                and options.checkpointing in (None, checkpointing)
                and options.reference in (None, reference)
            ):
                flags = checkpointing == "on", reference == "precomputed"
                yield Plan(method, recipe, *flags, *size)


def measure(shape: Shape, plans: Sequence[Plan], steps: int, save: Path | None = None) -> None:
    """Measure each plan in a process of its own, print each row as it comes, and keep it in `save`.

    What `save` has from this machine is not measured again.
    """
    from ..training import memory as here

    machine, device = here.machine(), here.device()
    done = {key(row) for row in recorded(save)} if save else set()
    print(f"\nMeasured on {machine}:\n\n{markdown(MEASURED_HEAD, [])}", flush=True)
    with _folders(shape) as folder_in:
        for plan in plans:
            row = record_row(shape, plan, device, machine)
            if key(row) in done:
                continue
            row |= _outcome(row, plan, folder_in, steps)
            print(table_line(measured_cells(row)), flush=True)
            if save and row["status"] in (MEASURED, TOO_LARGE):
                with save.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


def _outcome(row: Row, plan: Plan, folder_in: FolderIn, steps: int) -> dict[str, Any]:
    """What came of measuring a row: its `status`, and what was measured."""
    from ..training import memory as here

    free = here.free_bytes()
    if reason := here.cannot_run(plan):
        return {"status": f"not run: {reason}"}
    if row["predicted"] > free:
        return {
            "status": f"not run: needs {row['predicted'] / GIB:.1f} GiB, {free / GIB:.1f} are free"
        }
    folder = folder_in("float32" if plan.recipe == FP32 else here.sixteen_bit())
    request = json.dumps({"folder": str(folder), "plan": row["plan"], "steps": steps})
    command = [sys.executable, "-m", "coursekit.training.memory", request]
    # What the libraries and the profiler say is shown only if it fails.
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if ended.returncode == -9:  # the system has ended it for want of memory
        return {"status": TOO_LARGE}
    if ended.returncode:
        sys.exit(
            f"{ended.stderr}\nThe process that measures {plan} ended with {ended.returncode}; what "
            "it said stands above. With --save the rows before it are kept: the same command goes "
            "on from there."
        )
    return json.loads(ended.stdout.splitlines()[-1])


@contextmanager
def _folders(shape: Shape) -> Iterator[FolderIn]:
    """Where a model of `shape` lies, by its number format; made when it is first asked for.

    One at a time: a disk may not hold two.
    """
    from ..training.memory import make_model

    with tempfile.TemporaryDirectory() as scratch:

        def folder_in(dtype: str) -> Path:
            folder = Path(scratch) / dtype
            if not folder.is_dir():
                for other in Path(scratch).iterdir():
                    shutil.rmtree(other)
                make_model(shape, folder, dtype)
            return folder

        yield folder_in


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. With --save, what is measured is kept: the same command goes on.")
