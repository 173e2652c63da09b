"""The machines that a run is exported for, and what of its settings depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...common.profile import Profile
from ..arguments import share_out, validation_arguments


@dataclass(frozen=True)
class Configuration:
    """One way to start the DPO.

    name: of its files; title: in words. processes: on one machine, each with a GPU of its own where
    `on_gpu`. shards: what divides the weights over the processes (`FSDP`, `ZeRO-3`), if anything.
    """

    name: str
    title: str
    processes: int = 1
    machines: int = 1
    on_gpu: bool = True
    shards: str = ""

    @property
    def in_all(self) -> int:
        """Processes on all machines together."""
        return self.processes * self.machines

    @property
    def file(self) -> str:
        """The file that `trl dpo --config` reads."""
        return "dpo.yaml" if self.name == "one_gpu" else f"dpo_{self.name}.yaml"

    @property
    def launcher(self) -> str:
        """The file that `accelerate launch` reads; none for two processes on a CPU."""
        return "" if self.name == "two_cpus" else f"accelerate/{self.name}.yaml"

    @property
    def command(self) -> str:
        """What starts it, in the exported folder."""
        if self.name == "nodes":
            return "sbatch slurm.sh"
        if not self.launcher:
            start = f"torchrun --standalone --nproc_per_node {self.processes} -m trl.scripts.dpo"
            return f"ACCELERATE_USE_CPU=true {start} --config {self.file}"
        return f"trl dpo --config {self.file} --accelerate_config {self.launcher}"

    @property
    def keeps_precomputed(self) -> bool:
        """Whether the reference's log-probabilities can be computed before training."""
        return not self.shards and self.machines == 1

    def batch(self, options: dict[str, Any]) -> dict[str, int]:
        """Rows and accumulation of a process, by which an update sees the rows that the run's saw.

        options: the run's fields of `DPOConfig`, of one process. Raises ValueError if they cannot
        be shared out evenly.
        """
        alone = options["per_device_train_batch_size"], options["gradient_accumulation_steps"]
        try:
            rows, accumulation = share_out(*alone, self.in_all)
        except ValueError as error:
            raise ValueError(
                f"{self.title}: {error}; --gpus and --machines choose how many"
            ) from error
        return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation}

    def validation(self, rows: int, batch_size: int) -> dict[str, Any]:
        """When and in what batches `rows` held-out triples are evaluated."""
        return validation_arguments(rows, batch_size, self.in_all)

    def number_format(self, profile: Profile) -> str:
        """Of weights and computation, as `dtype` takes it.

        On 4-bit weights TRL casts adapters to bfloat16, whose gradients fp16's loss scaler cannot
        take; and where the weights are shared, what holds four of them is bfloat16. A CPU has no
        fast half precision.
        """
        if not self.on_gpu:
            return "float32"
        if profile.four_bit and (self.shards or profile.dtype == "float16"):
            return "bfloat16"
        return profile.dtype


def configurations(gpus: int, machines: int, update: int) -> list[Configuration]:
    """All that are written, for machines with `gpus` each.

    update: rows of an update; two processes on a CPU are left out if two cannot share them.
    """
    several = [
        Configuration("one_gpu", "one GPU"),
        Configuration("several_gpus", f"{gpus} GPUs of one machine", gpus),
        Configuration("fsdp", f"{gpus} GPUs that share the weights (FSDP)", gpus, shards="FSDP"),
        Configuration(
            "zero3", f"{gpus} GPUs that share the weights (ZeRO-3)", gpus, shards="ZeRO-3"
        ),
        Configuration("nodes", f"{gpus} GPUs on each of {machines} machines", gpus, machines),
        Configuration("cpu", "one process on a CPU", on_gpu=False),
    ]
    two = Configuration("two_cpus", "two processes on a CPU", 2, on_gpu=False)
    return several if update % 2 else [*several, two]
