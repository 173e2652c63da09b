"""One DPO step, measured: its peak memory and the pairs it takes a second.

A model with random weights is trained the way the course trains: from a folder, through
`policy_and_reference` and TRL's trainer. On a GPU the peak is what torch's allocator had given out
at most (`torch.cuda.max_memory_allocated`). On a CPU, where torch keeps no such count, it is what
tensors held when the step began, plus the highest sum of what torch's allocator gave out and took
back during the step, temporaries inside its kernels included (torch's profiler records each). Not
counted, on either: Python, the libraries, the CUDA context, what the allocator keeps in reserve.

`python -m coursekit.training.memory REQUEST` measures one, told in JSON, in a process of its own:
what an earlier one left behind would be counted too.
"""

from __future__ import annotations

import gc
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PrinterCallback, TrainerCallback

from ..common.profile import TINY_MODEL, Profile, load_profile
from ..common.quiet import quiet
from ..lm.loading import load_tokenizer
from ..lm.logprobs import encode_whole
from ..lm.shapes import Shape
from ..lm.step_memory import FP32, SIXTEEN_BIT, Device, Plan
from ..lm.trl_compat import train_in_float32
from ..preferences import to_trl
from .arguments import run_arguments
from .dpo import dpo_trainer, policy_and_reference

if TYPE_CHECKING:
    from trl import DPOTrainer

WORD = "the"
WARM_UP = 1  # steps that are not timed: the first one makes the optimiser's states


@dataclass(frozen=True)
class Measured:
    """peak: bytes at most during a step; pairs_per_second: of the median step."""

    peak: int
    pairs_per_second: float


def machine() -> str:
    """What is measured on: the device, the threads that compute, torch's version."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        threads = torch.get_num_threads()
        device = f"{_processor()}, {threads} thread{'s' * (threads > 1)}"
    return f"{device}, torch {torch.__version__}"


def device() -> Device:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _processor() -> str:
    """The processor's name, or its architecture where the system does not tell it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def sixteen_bit() -> str:
    """The 16-bit format to compute in here: bfloat16, or float16 on a GPU that has no other."""
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float16"
    return "bfloat16"


def free_bytes() -> int:
    """What is free on the GPU, or without one in the machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def cannot_run(plan: Plan) -> str | None:
    """Why the course's trainer cannot run the plan on this machine; None if it can."""
    if plan.recipe not in (SIXTEEN_BIT, FP32):
        return "on one device TRL keeps no master copy; DeepSpeed and FSDP do"
    if plan.method == "full" and plan.recipe == SIXTEEN_BIT and sixteen_bit() == "float16":
        return "this GPU has no bf16, and loss scaling refuses gradients in fp16"
    return None


def make_model(shape: Shape, folder: str | Path, dtype: str) -> None:
    """Write a model of `shape` with random weights, and the shipped tokenizer, into `folder`.

    Raises ValueError if the tokenizer has more words than the model.
    """
    tokenizer = load_tokenizer(TINY_MODEL)
    if shape.vocab < len(tokenizer):
        raise ValueError(
            f"the shape {shape.name} has {shape.vocab} words, the tokenizer that measures it "
            f"{len(tokenizer)}: take a larger vocabulary"
        )
    fields = shape.config()
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with quiet():
        with torch.device(device()):
            model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()  # nothing, without a GPU


def pairs(tokenizer: Any, length: int, n: int) -> list[dict[str, str]]:
    """`n` triples: chosen sequences of `length` tokens, half of them the response's.

    Rejected ones are a token shorter, so the batch has padding, as nearly all have: attention takes
    a mask with it, and another kernel.

    Raises ValueError for a length at which no prompt or no response is left.
    """

    def words(n: int) -> str:
        return " ".join([WORD] * n)

    def tokens(prompt: int, response: int) -> int:
        return len(encode_whole(tokenizer, [words(prompt)], [words(response)])[0])

    around = tokens(1, 1) - 2  # what a template adds
    prompt = length // 2 - around
    response = length - prompt - around
    if min(prompt, response - 1) < 1 or tokens(prompt, response) != length:
        raise ValueError(
            f"no pair of {length} tokens: the template alone takes {around}; take a length above "
            f"{2 * around + 4}"
        )
    row = {"prompt": words(prompt), "chosen": words(response), "rejected": words(response - 1)}
    return [row] * n


def measure_step(
    folder: str | Path, plan: Plan, steps: int = 3, profile: Profile | None = None
) -> Measured:
    """Peak memory and speed of a DPO step of the model in `folder`.

    steps: timed; on the CPU one more, slower for being watched, finds the peak.

    Raises torch.OutOfMemoryError on a GPU that is too small, RuntimeError likewise on a CPU.
    """
    gc.collect()
    others = live_bytes() if device() == "cpu" else 0  # who has tensors in this process already
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(folder, plan, WARM_UP + steps + 1, profile or load_profile(), scratch)
        probe = _Probe(trainer.args.max_steps)
        trainer.add_callback(probe)
        trainer.train()
    return Measured(probe.peak - others, plan.batch / statistics.median(probe.seconds))


def _trainer(
    folder: str | Path, plan: Plan, steps: int, profile: Profile, scratch: str
) -> DPOTrainer:
    """TRL's trainer as `train_dpo` makes it, told what the plan says."""
    profile = replace(
        profile,
        base_model=str(folder),
        dtype="float32" if plan.recipe == FP32 else sixteen_bit(),
        four_bit=plan.method == "QLoRA",
        threads=None,
    )
    settings = replace(
        profile.dpo,
        batch_size=plan.batch,
        accumulation=1,
        max_length=plan.length,
        lora_rank=0 if plan.method == "full" else plan.rank,
    )
    tokenizer = load_tokenizer(folder, profile)
    policy, adapter, reference = policy_and_reference(folder, settings, profile)
    options = run_arguments(settings, profile, scratch, seed=0) | {
        "precompute_ref_log_probs": plan.precomputed,
        "activation_checkpointing": plan.checkpointing,
        "max_steps": steps,
        "save_strategy": "no",
        # On a CPU too: what is measured there is then what is computed on a GPU.
        "bf16": profile.dtype == "bfloat16",
    }
    trainer = dpo_trainer(
        model=policy,
        ref_model=None if plan.precomputed else reference,
        peft_config=adapter,
        processing_class=tokenizer,
        train_dataset=to_trl(
            pairs(tokenizer, plan.length, plan.batch), bool(tokenizer.chat_template)
        ),
        options=options,
    )
    if profile.four_bit:
        train_in_float32(trainer.model)
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Probe(TrainerCallback):
    """Times each step but the first and the last, and finds the peak of the last.

    seconds: of the timed steps; peak: bytes.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.seconds, self.peak = steps, [], 0

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.steps - 1:
            self._watch = _CudaPeak() if torch.cuda.is_available() else _CpuPeak()
        _finish()
        self._begin = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        _finish()
        seconds = time.perf_counter() - self._begin
        if state.global_step == self.steps:
            self.peak = self._watch.end()
        elif state.global_step > WARM_UP:
            self.seconds.append(seconds)


def _finish() -> None:
    """Wait for what the GPU has still to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _CudaPeak:
    def __init__(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def end(self) -> int:
        return torch.cuda.max_memory_allocated()


class _CpuPeak:
    """What tensors hold now, and the highest sum of what is given out and taken back from now on.

    The profiler does not see the freeing of what was there before: nothing of it is freed during a
    step, but for the batch.
    """

    def __init__(self) -> None:
        gc.collect()
        self.begin = live_bytes()
        cpu = torch.profiler.ProfilerActivity.CPU
        self.profile = torch.profiler.profile(activities=[cpu], profile_memory=True)
        self.profile.start()

    def end(self) -> int:
        self.profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self.profile.export_chrome_trace(str(path))
            trace = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
        changes = sorted(
            (event["ts"], event["args"]["Bytes"]) for event in trace if event["name"] == "[memory]"
        )
        return self.begin + max(itertools.accumulate(change for _, change in changes))


def live_bytes() -> int:
    """Bytes of all tensors that Python holds, each storage once."""
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.layout == torch.strided:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def main() -> None:
    """Measure what the first argument asks for, and print the result as a line of JSON."""
    request = json.loads(sys.argv[1])
    plan = Plan(**request["plan"])
    try:
        measured = measure_step(request["folder"], plan, request["steps"])
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(json.dumps({"status": "does not fit"}))
    else:
        print(json.dumps({"status": "measured", **asdict(measured)}))


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was not memory enough; on a CPU torch says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


if __name__ == "__main__":
    main()
