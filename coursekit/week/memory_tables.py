"""Tables of what a DPO step needs: predicted, measured and shipped, and what fits a T4."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common.files import json_rows, read_text
from ..lm.memory_budget import GIB
from ..lm.shapes import SHAPES, Shape
from ..lm.step_memory import (
    FP32,
    METHODS,
    PARTS,
    SIXTEEN_BIT,
    Device,
    Plan,
    logits_at_once,
    predict,
)

Row = dict[str, Any]  # a measured step: machine, device, shape, plan, predicted, status, peak, ...

RECORDED = Path(__file__).with_name("measured_memory.jsonl")
MEASURED, NOT_MEASURED = "measured", "not measured"
# Of a GPU's memory; the rest is for the CUDA context and what the allocator cannot use. An
# allowance, not measured.
USABLE = 0.9
T4_GB = 16
_ADAPTERS = tuple(
    Plan(method, SIXTEEN_BIT, checkpointing)
    for method in ("LoRA", "QLoRA")
    for checkpointing in (True, False)
)
T4_PLANS = (*(Plan("full", recipe) for recipe in METHODS["full"]), *_ADAPTERS)
# The rows that wait for a GPU, and the shapes they are of.
GPU_PLANS = (Plan("full", precomputed=False), Plan("full"), *_ADAPTERS)
GPU_SHAPES = ("1.5B", "7B", "8B")
GPU = "a GPU"
_LABELS = ("method", "kept in", "checkpointing", "reference")


def about(shape: Shape, plan: Plan) -> str:
    """What a table of predictions is of, and what the logits would be if they were held."""
    return (
        f"{shape.name}: {shape.parameters:,} parameters ({shape.unquantised:,} of them not "
        f"quantised by 4-bit loading), {shape.adapter(plan.rank):,} in an adapter of rank "
        f"{plan.rank}; {plan.batch} x 2 sequences of {plan.length} tokens. Their logits in fp32, "
        f"with a log-softmax, would be {logits_at_once(shape, plan) / GIB:.1f} GiB; TRL makes them "
        "in tiles."
    )


def prediction_table(
    shape: Shape, plans: Sequence[Plan], device: Device, gpu_memory: float | None = None
) -> str:
    """GiB at the peak of a step, part by part, in markdown; with `gpu_memory` (GB), what fits."""
    rows = []
    for plan in plans:
        parts = predict(shape, plan, device)
        total = sum(parts.values())
        fit = [("yes" if fits(total, gpu_memory) else "no")] if gpu_memory else []
        rows.append([*_labels(plan), *(_gib(parts[part]) for part in PARTS), _gib(total), *fit])
    head = [*_LABELS, *PARTS, "GiB", *([f"fits {gpu_memory:g} GB"] if gpu_memory else [])]
    return markdown(head, rows)


def fits(need: float, gpu_memory: float) -> bool:
    """Whether `need` bytes go into a GPU of `gpu_memory` GB, of which a tenth is left alone."""
    return need <= USABLE * gpu_memory * 1e9


def t4_table() -> str:
    """Predicted GiB of one pair of 1,024 tokens by recipe and shape; what fits a T4 is bold."""
    rows = []
    for plan in T4_PLANS:
        needs = [sum(predict(shape, plan).values()) for shape in SHAPES.values()]
        cells = [f"**{_gib(need)}**" if fits(need, T4_GB) else _gib(need) for need in needs]
        rows.append([*_labels(plan)[:3], *cells])
    return markdown([*_LABELS[:3], *SHAPES], rows)


def t4_answer() -> str:
    """The largest shape whose step fits a T4, by each row of `t4_table` that can run there."""
    said = []
    for plan in (Plan("full", FP32), *_ADAPTERS):
        fit = [
            name
            for name, shape in SHAPES.items()
            if fits(sum(predict(shape, plan).values()), T4_GB)
        ]
        what = "all weights in fp32" if plan.method == "full" else plan.method
        checkpointing = "with" if plan.checkpointing else "without"
        said.append(
            f"{what} {checkpointing} checkpointing, {f'up to {fit[-1]}' if fit else 'none'}"
        )
    return "; ".join(said)


def record_row(shape: Shape, plan: Plan, device: Device, machine: str) -> Row:
    """A row that is not measured yet."""
    return {
        "machine": machine,
        "device": device,
        "shape": shape.name,
        "plan": asdict(plan),
        "predicted": round(sum(predict(shape, plan, device).values())),
        "status": NOT_MEASURED,
    }


def key(row: Row) -> str:
    """What tells a measurement from others: the machine, the shape and the plan."""
    return json.dumps([row["machine"], row["shape"], row["plan"]], sort_keys=True)


def recorded(path: Path = RECORDED) -> list[Row]:
    """The rows kept in a file; none if it is not there."""
    return json_rows(read_text(path), path) if path.is_file() else []


def shipped() -> list[Row]:
    """The course's rows: what was measured, and what waits for a GPU."""
    rows = recorded()
    on_gpu = [(row["shape"], row["plan"]) for row in rows if row["device"] == "cuda"]
    return rows + [
        record_row(SHAPES[name], plan, "cuda", GPU)
        for name in GPU_SHAPES
        for plan in GPU_PLANS
        if (name, asdict(plan)) not in on_gpu
    ]


MEASURED_HEAD = (
    *("machine", "shape", "pairs × tokens", *_LABELS),
    *("predicted GiB", "measured GiB", "pairs a second"),
)


def measured_cells(row: Row) -> list[str]:
    """A row of `measured_table`."""
    plan = Plan(**row["plan"])
    found = [row["status"], ""]
    if row["status"] == MEASURED:
        off = row["predicted"] / row["peak"] - 1
        found = [f"{_gib(row['peak'])} ({off:+.1%})", f"{row['pairs_per_second']:.2g}"]
    size = f"{plan.batch} × {plan.length}"
    return [row["machine"], row["shape"], size, *_labels(plan), _gib(row["predicted"]), *found]


def measured_table(rows: Sequence[Row]) -> str:
    """Predicted against measured, in markdown; in brackets how far the prediction is off."""
    return markdown(MEASURED_HEAD, [measured_cells(row) for row in rows])


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(table_line(line) for line in (head, ["---"] * len(head), *rows))


def table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _labels(plan: Plan) -> list[str]:
    reference = "precomputed" if plan.precomputed else "kept"
    return [plan.method, plan.recipe, "on" if plan.checkpointing else "off", reference]


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
