"""What a training run leaves in its folder, and when that is used again.

Beside the weights lies a record of what they were made from. Called again with the same of
everything, a finished run is given back. If anything differs, what lies in the folder is set aside
and the run starts anew.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.files import save_jsonl
from ..common.made_from import (
    MadeFrom,
    differences,
    fingerprint,
    read_record,
    record_path,
    set_aside,
    versions,
    write_record,
)
from ..lm.loading import adapter_config, base_name
from ..lm.trl_compat import bare_model, continues_adapter, is_adapted
from ..lm.weights import check_checksums, write_checksums

HISTORY_FILE = "history.jsonl"
CHECKPOINTS = "checkpoints"  # in a run's folder, while it runs
# A folder with one of these holds a model, whoever has put it there.
_SIGNS = (HISTORY_FILE, "adapter_config.json", "config.json")
_known: set[Path] = set()  # runs that this process has finished, or has told to be


@dataclass(frozen=True)
class TrainingRun:
    """A finished run: `folder` holds the adapter and tokenizer (`load_model(run.folder)`), and
    `history.jsonl` what the trainer logged: one dict a logging step, with TRL's metric names.

    made_from: the run's own record. `stage` (`SFT`, `DPO`, `reward model`); what it started from,
        by its identity (`model_identity`): `base` of SFT, else `sft`; `rows` (a fingerprint) and
        `n`; `settings` (the fields of `TrainingSettings`); `seed`; for DPO `validation` and
        `options`, and `watched` if a monitor was; `versions` of the libraries.
    """

    folder: Path
    history: list[dict[str, Any]]
    made_from: MadeFrom = field(default_factory=dict)


def is_finished(folder: str | Path) -> bool:
    """Whether a training run was finished and saved in `folder`: its record is written last."""
    return record_path(folder).is_file()


def load_run(folder: str | Path) -> TrainingRun:
    """A finished run from its folder, with the record of what it was made from.

    Raises FileNotFoundError if none has finished there, ValueError if its history or its record
    are damaged.
    """
    folder = Path(folder)
    made_from = read_record(folder)
    if made_from is None:
        raise FileNotFoundError(
            f"no finished run in {folder} ({record_path(folder).name} is missing): train it first"
        )
    path = folder / HISTORY_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        history = [json.loads(line) for line in lines]
        if fingerprint(history) != made_from.get("history"):
            raise ValueError(f"its {len(history)} lines are not those that the run has written")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): move {folder.name} away and train it again"
        ) from error
    return TrainingRun(folder, history, made_from)


def finished_run(folder: Path, made_from: MadeFrom) -> TrainingRun | None:
    """The run in `folder` if it is finished and was made from the same.

    A run of something else, finished or not, is set aside. The adapters beside it that were trained
    on it follow: none of them is ever put on the weights that take its place.
    """
    if not _is_taken(folder):
        return None
    try:
        run = _whole_run(folder) if is_finished(folder) else None
        record = run.made_from if run else read_record(folder / CHECKPOINTS)
        differ = differences(record, made_from)
        if run and not differ:
            _tell_once(folder)
            return run
        why = differ and f"made from something else ({'; '.join(differ)})"
    except (ValueError, FileNotFoundError) as error:
        why = f"not whole ({error})"
    if why:
        _follow(folder, set_aside(folder, why))
    return None


def _is_taken(folder: Path) -> bool:
    """Whether a run lies in `folder`, finished or not, or a model that somebody has put there."""
    checkpoints = folder / CHECKPOINTS
    return (
        is_finished(folder)
        or record_path(checkpoints).is_file()
        or any(checkpoints.glob("checkpoint-*"))
        or any((folder / name).is_file() for name in _SIGNS)
    )


def _whole_run(folder: Path) -> TrainingRun:
    run = load_run(folder)
    check_checksums(folder)
    return run


def _tell_once(folder: Path) -> None:
    if folder.absolute() not in _known:
        print(f"{folder.name}: finished before, from the same; not made anew")
        _known.add(folder.absolute())


def _follow(folder: Path, aside: Path) -> None:
    """Let the adapters beside `folder` that name it as their base name `aside`."""
    for path in aside.parent.glob("*/adapter_config.json"):
        try:
            base = adapter_config(path.parent)["base_model_name_or_path"]
        except ValueError:  # a damaged one belongs to nothing
            continue
        if Path(base).absolute() == folder.absolute():
            name_base(path.parent, aside, aside.parent)


def name_base(folder: Path, base: str | Path, artifacts: Path) -> None:
    """Write into the adapter in `folder` what it stands on."""
    path = folder / "adapter_config.json"
    text = path.read_text(encoding="utf-8")
    config = json.loads(text) | {"base_model_name_or_path": base_name(base, folder, artifacts)}
    new = json.dumps(config, indent=2, sort_keys=True)
    if new != text:
        path.write_text(new, encoding="utf-8")


def save_run(
    trainer: Any,
    tokenizer: Any,
    folder: Path,
    made_from: MadeFrom,
    started_from: str | Path,
    artifacts: Path,
) -> TrainingRun:
    """Save adapter (or model), tokenizer and history; say what the adapter belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    model = bare_model(trainer)
    if is_adapted(model):
        # Only the trained adapter: TRL's frozen copy of an SFT adapter is not part of the result.
        # Without False, peft looks on the hub whether the base's vocabulary has grown.
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        _sort_targets(folder)
        name_base(folder, stands_on(started_from, continues_adapter(model)), artifacts)
    else:
        trainer.save_model(folder)
    return close_run(trainer, tokenizer, folder, made_from)


def _sort_targets(folder: Path) -> None:
    """Let the same training give the same folder, by whose contents a model is known.

    peft keeps the names of the layers in a set and writes it in an order that differs from process
    to process.
    """
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def stands_on(started_from: str | Path, continued: bool) -> str | Path:
    """What an adapter is loaded onto: a continued one onto the base of the one it continues."""
    link = adapter_config(started_from) if continued else None
    return link["base_model_name_or_path"] if link else started_from


def close_run(trainer: Any, tokenizer: Any, folder: Path, made_from: MadeFrom) -> TrainingRun:
    """What every run saves after its weights; from then on it counts as finished."""
    write_checksums(folder)
    tokenizer.save_pretrained(folder)
    # The trainer's last entry is the run's summary, not a step.
    history = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    save_jsonl(history, folder / HISTORY_FILE)
    tracked = folder / CHECKPOINTS / "runs"
    if tracked.is_dir():  # TensorBoard's, where `report_to` named it: kept
        shutil.copytree(tracked, folder / "runs", dirs_exist_ok=True)
    notes = {"versions": versions(), "history": fingerprint(history)}
    made_from = write_record(folder, made_from | notes)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    _known.add(folder.absolute())
    return TrainingRun(folder, history, made_from)
