"""The files of an export that people, TRL and accelerate read: templates, filled in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...lm.loading import adapter_config
from ..arguments import lora_config, machine_arguments
from ..dpo import DpoJob
from ..run import TrainingRun
from .configurations import Configuration, configurations
from .memory import gib_a_process, parameters_of

if TYPE_CHECKING:
    from jinja2 import Environment

_FILES = Path(__file__).with_name("files")
# Fields of `DPOConfig` that the templates say themselves, machine by machine, with the reasons.
_BY_MACHINE = {
    *("output_dir", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("eval_strategy", "per_device_eval_batch_size", "precompute_ref_log_probs"),
    *machine_arguments(),
}
_SHOWN = 6  # updates whose losses the README gives


@dataclass(frozen=True)
class Export:
    """A run, what it was asked for, and the machines it is exported for.

    name: the SFT model's on the hub, if it is not written; chat: whether it has a chat template.
    """

    job: DpoJob
    run: TrainingRun
    name: str | None
    chat: bool
    gpus: int
    machines: int

    @cached_property
    def options(self) -> dict[str, Any]:
        """The run's fields of `DPOConfig`, of one process."""
        return self.job.options

    @property
    def update(self) -> int:
        """Rows an update."""
        options = self.options
        return options["per_device_train_batch_size"] * options["gradient_accumulation_steps"]

    @cached_property
    def all(self) -> list[Configuration]:
        return configurations(self.gpus, self.machines, self.update)

    @property
    def revision(self) -> str | None:
        profile = self.job.profile
        return profile.revision if self.name == profile.base_model else None


def write_texts(export: Export, folder: Path) -> None:
    """Write README, settings, launchers and the SLURM script.

    Raises ValueError, before anything is written, if a configuration cannot share out an update.
    """
    texts = {"README.md": _render("README.md", _for_the_reader(export))}
    for to in export.all:
        values = _for_machines(export, to)
        texts[to.file] = _render("dpo.yaml", values)
        if to.launcher:
            texts[to.launcher] = _render("accelerate.yaml", values)
        if to.name == "nodes":
            texts["slurm.sh"] = _render("slurm.sh", values)
    (folder / "accelerate").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _for_all(export: Export) -> dict[str, Any]:
    """What every template is filled with."""
    job = export.job
    return {
        "model": export.name or "sft",
        "revision": export.revision,
        "on_hub": bool(export.name),
        "triples": len(job.triples),
        "validation": len(job.validation),
        "update": export.update,
        "lora": lora_config(job.settings),
    }


def _for_machines(export: Export, to: Configuration) -> dict[str, Any]:
    job = export.job
    return _for_all(export) | {
        "to": to,
        "settings": {k: v for k, v in export.options.items() if k not in _BY_MACHINE},
        "batch": to.batch(export.options),
        "held_out": to.validation(len(job.validation), job.settings.batch_size),
        "four_bit": job.profile.four_bit,
        "precompute": job.precompute_reference and to.keeps_precomputed,
        "dtype": to.number_format(job.profile),
        "wanted": job.profile.dtype,
    }


def _for_the_reader(export: Export) -> dict[str, Any]:
    job, versions = export.job, export.run.made_from["versions"]
    losses = [entry for entry in export.run.history if "loss" in entry]
    size = parameters_of(job)
    return _for_all(export) | {
        "all": export.all,
        "batches": {to.name: to.batch(export.options) for to in export.all},
        "memory": {to.name: gib_a_process(job, size, to) for to in export.all},
        "parameters": size.all,
        "chat": export.chat,
        "versions": {name: versions[name] for name in ("trl", "transformers", "peft", "datasets")},
        "steps": len(losses),
        "epochs": export.options["num_train_epochs"],
        "leftover": len(job.triples) % export.update,
        "first": [{"number": n, **entry} for n, entry in enumerate(losses[:_SHOWN], start=1)],
        "is_sigmoid": export.options.get("loss_type", "sigmoid") in ("sigmoid", ["sigmoid"]),
        "continued": job.profile.four_bit and bool(adapter_config(job.sft)),
    }


def _render(template: str, values: dict[str, Any]) -> str:
    return _environment().get_template(f"{template}.jinja").render(values)


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FILES, encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = _as_yaml
    return environment


def _as_yaml(value: Any) -> str:
    """A value in a line, as YAML 1.1 reads it back: 2.0e-05 is a number there, 2e-05 a text."""
    import yaml

    if isinstance(value, set):  # as peft keeps the names of layers
        value = sorted(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
