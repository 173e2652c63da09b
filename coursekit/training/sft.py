"""SFT: a thin layer over TRL's `SFTTrainer`, from a model's folder to an adapter's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import save_jsonl
from ..common.made_from import fingerprint
from ..common.profile import Profile, TrainingSettings
from ..common.quiet import quiet
from ..common.ranks import from_main, only_this_run
from ..lm.identity import model_identity
from ..lm.loading import load_model, load_tokenizer
from ..lm.trl_compat import score_labels_alone
from ..preferences.triples import sft_row
from .arguments import lora_config, run_arguments
from .loop import run_training
from .rows import PROBES, asked_path, check_rows_fit
from .run import TrainingRun, finished_run, save_run

if TYPE_CHECKING:
    from trl import SFTTrainer


def train_sft(
    base: str | Path,
    demonstrations: Sequence[dict[str, Any]],
    folder: str | Path,
    profile: Profile,
    *,
    settings: TrainingSettings | None = None,
    seed: int = 0,
) -> TrainingRun:
    """Train a LoRA adapter on rows `{"prompt", "response"}`; the loss counts the response only.

    A run that is finished in `folder`, from the same of everything, is given back.

    Raises ValueError if there are no rows, or for a row that is too long.
    """
    if not demonstrations:
        raise ValueError("no demonstrations: SFT needs rows with a prompt and a response")
    settings, folder = settings or profile.sft, Path(folder)
    with only_this_run(folder):
        tokenizer = load_tokenizer(base, profile)  # also fetches what tells a hub model's commit
        made_from = {
            "stage": "SFT",
            "base": model_identity(base, profile),
            "rows": fingerprint([[row["prompt"], row["response"]] for row in demonstrations]),
            "n": len(demonstrations),
            "settings": asdict(settings),
            "seed": seed,
        }
        if run := from_main(lambda: finished_run(folder, made_from)):
            return run
        trainer = _sft_trainer(base, tokenizer, demonstrations, folder, profile, settings, seed)
        run_training(trainer, "SFT", profile, folder, made_from)
        asked = [{"prompt": row["prompt"]} for row in demonstrations[:PROBES]]
        from_main(lambda: save_jsonl(asked, asked_path(folder)))
        parts = trainer, tokenizer, folder, made_from, base, profile.artifacts
        return from_main(lambda: save_run(*parts))


def _sft_trainer(
    base: str | Path,
    tokenizer: Any,
    demonstrations: Sequence[dict[str, Any]],
    folder: Path,
    profile: Profile,
    settings: TrainingSettings,
    seed: int,
) -> SFTTrainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = load_model(base, profile)
    chat = bool(tokenizer.chat_template)
    rows = [sft_row(row, chat) for row in demonstrations]
    check_rows_fit(model, tokenizer, demonstrations, ("response",), settings.max_length)
    score_labels_alone()
    with quiet():
        return SFTTrainer(
            model=model,
            args=SFTConfig(**run_arguments(settings, profile, folder, seed)),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora_config(settings),
        )
