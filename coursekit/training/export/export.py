"""Writes the folder: the SFT model, the triples, and how to train on which machines.

The settings are the run's own, by its record. What depends on machines is in `configurations`; why
a file says what it says stands in the file itself (`files/`, templates of Jinja).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.files import save_jsonl
from ...common.made_from import differences
from ...common.profile import Profile, TrainingSettings
from ...common.quiet import quiet
from ...lm.loading import adapter_config, load_model, load_tokenizer, merge_adapter
from ...lm.weights import write_checksums
from ...preferences import to_trl
from ..dpo import DpoJob
from ..rows import Rows
from ..run import TrainingRun, load_run
from .texts import Export, write_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def export_dpo(
    run: str | Path,
    folder: str | Path,
    profile: Profile,
    *,
    sft: str | Path,
    triples: Rows,
    validation: Rows | None = None,
    name: str | None = None,
    gpus: int = 4,
    machines: int = 2,
) -> Path:
    """Write into `folder` what trains the finished DPO run in `run` elsewhere, with `trl dpo`.

    Args:
        profile: that of the run. sft, triples, validation: what it was made from, as they were
            given to `train_dpo`; the run's record tells whether they are.
        name: of the SFT model on the hub, if you have put it there: no weights are written then.
            An SFT model that came from the hub goes by its name anyway.
        gpus, machines: GPUs a machine, and machines, where there are several.

    Raises:
        FileExistsError: there is something in `folder`.
        ValueError: the run is no DPO, or was made from something else, or the rows of an update
            cannot be shared out evenly.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty: name a new folder, or move that one away")
    made = load_run(run)
    job = _job_of(made, profile, sft, triples, validation)
    name = name or (None if Path(sft).is_dir() else str(sft))
    tokenizer = load_tokenizer(sft, profile)
    export = Export(job, made, name, bool(tokenizer.chat_template), gpus, machines)
    write_texts(export, folder)
    _write_triples(job, folder / "triples", export.chat)
    if not name:
        with quiet():
            _write_model(job, tokenizer, folder / "sft")
    return folder


def _job_of(
    run: TrainingRun, profile: Profile, sft: str | Path, triples: Rows, validation: Rows | None
) -> DpoJob:
    """What `train_dpo` was asked for. Raises ValueError if the run's record says something else."""
    record = run.made_from
    if (stage := record.get("stage")) != "DPO":
        raise ValueError(f"{run.folder} is a run of {stage}: name the folder of a DPO run")
    options = dict(record["options"])
    precompute = options.pop("precompute_reference")
    if options.pop("wrong_reference"):
        raise ValueError(f"{run.folder} was trained with a wrong reference, to show what that does")
    targets = tuple(record["settings"]["lora_targets"])
    settings = TrainingSettings(**record["settings"] | {"lora_targets": targets})
    given = sft, list(triples), list(validation or ()), run.folder, profile
    job = DpoJob(*given, settings, record["seed"], precompute, None, options)
    if differ := differences(record, job.made_from(None)):
        raise ValueError(
            f"{run.folder} was trained from something else ({'; '.join(differ)}): give the SFT "
            "model, the triples and the profile that it was trained from"
        )
    return job


def _write_triples(job: DpoJob, folder: Path, chat: bool) -> None:
    """The run's rows in its order, as its trainer read them."""
    save_jsonl(to_trl(job.triples, chat), folder / "train.jsonl")
    if job.validation:
        save_jsonl(to_trl(job.validation, chat), folder / "validation.jsonl")


def _write_model(job: DpoJob, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The SFT model in one piece, in the number format of the run; what was 4-bit, in 16 or 32."""
    model = load_model(job.sft, replace(job.profile, four_bit=False))
    if adapter_config(job.sft):
        model = merge_adapter(model)
    model.save_pretrained(folder)
    write_checksums(folder)
    tokenizer.save_pretrained(folder)
