"""DPO: a thin layer over TRL's `DPOTrainer` that keeps one promise.

The promise: **the reference is the SFT model**, and it stays that. It is easy to break: TRL reloads
the model from disk when it is given neither adapter nor reference, and a copy of a model that went
through a trainer computes with the original's weights. So everything here goes through folders: a
run starts from a saved model, saves its result, and leaves nothing patched in memory; what you
evaluate is what you saved. `train_dpo` checks the reference before the first step and after the
last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.made_from import only_here
from ..common.profile import Profile, TrainingSettings
from ..common.quiet import quiet
from ..lm.identity import model_identity
from ..lm.loading import adapter_config, load_model, load_tokenizer, merge_adapter
from ..preferences import check_triples, to_trl
from .arguments import lora_config, run_arguments, validation_arguments
from .loop import run_training
from .reference import assert_reference, pair_logps
from .rows import PROBES, check_rows_fit, rows_fingerprint
from .run import TrainingRun, finished_run, name_base, save_run, stands_on

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import DPOTrainer

    from .monitor import Monitor


def train_dpo(
    sft: str | Path,
    triples: Sequence[dict[str, Any]],
    folder: str | Path,
    profile: Profile,
    *,
    settings: TrainingSettings | None = None,
    validation: Sequence[dict[str, Any]] | None = None,
    precompute_reference: bool = True,
    seed: int = 0,
    monitor: Monitor | None = None,
    wrong_reference: str | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **overrides: Any,
) -> TrainingRun:
    """Train the SFT model saved in `sft` on preference triples with DPO and LoRA.

    The reference is the SFT model. Where that is whole, or an adapter that can be merged, a new
    adapter is trained on top and the reference is the model without it; on 4-bit weights the SFT
    adapter itself is trained on and TRL keeps a frozen copy of it. With `lora_rank=0` all weights
    are trained and the reference is loaded from `sft` a second time.

    A run that is finished in `folder`, from the same of everything, is given back; with a monitor,
    if it was watched alike.

    Args:
        validation: triples on which the same metrics are logged (prefix `eval_`) each epoch.
        precompute_reference: compute the reference's log-probabilities once, before training.
        monitor: measures the KL and more on the way; see `monitoring.Monitor`.
        wrong_reference: another model's folder, to see what a wrong reference does; not checked.
        overrides: further fields of TRL's `DPOConfig` (`loss_type`, `label_smoothing`, ...).

    Raises:
        ValueError: a row that is no triple, or is too long.
        ReferenceError: the reference is not the SFT model, or changed while the policy trained.
    """
    triples = check_triples(triples)
    validation = check_triples(validation, "the validation triples") if validation else None
    settings, folder = settings or profile.dpo, Path(folder)
    with only_here(folder), quiet():
        tokenizer = load_tokenizer(sft, profile)
        made_from = {
            "stage": "DPO",
            "sft": model_identity(sft, profile),
            "rows": rows_fingerprint(triples),
            "n": len(triples),
            "validation": rows_fingerprint(validation) if validation else None,
            "settings": asdict(settings),
            "seed": seed,
            "options": {
                "precompute_reference": precompute_reference,
                "wrong_reference": wrong_reference and model_identity(wrong_reference, profile),
                **overrides,
            },
            **({"watched": monitor.watches} if monitor else {}),
        }
        if run := finished_run(folder, made_from):
            if adapter_config(folder):  # which may stand on an equal model that was set aside
                name_base(folder, stands_on(sft, profile.four_bit), profile.artifacts)
            return run
        probes = triples[:PROBES]
        chat = bool(tokenizer.chat_template)
        expected = pair_logps(load_model(sft, profile), tokenizer, probes)
        model, peft_config, reference = policy_and_reference(sft, settings, profile)
        limit = overrides.get("max_length", settings.max_length)
        for rows in (triples, validation or []):
            check_rows_fit(model, tokenizer, rows, ("chosen", "rejected"), limit)
        if wrong_reference:
            reference = load_model(wrong_reference, profile)
        trainer = dpo_trainer(
            model=model,
            ref_model=reference,
            peft_config=peft_config,
            processing_class=tokenizer,
            train_dataset=to_trl(triples, chat),
            eval_dataset=to_trl(validation, chat) if validation else None,
            callbacks=list(callbacks),
            options=run_arguments(settings, profile, folder, seed)
            | {"beta": settings.beta, "precompute_ref_log_probs": precompute_reference}
            | validation_arguments(len(validation or ()), settings.batch_size)
            | overrides,
        )
        if not wrong_reference:
            assert_reference(trainer, tokenizer, probes, expected, "before training")
        if monitor:
            monitor.attach(trainer, tokenizer, profile, folder)
        run_training(trainer, "DPO", profile, folder, made_from)
        if not wrong_reference:
            assert_reference(trainer, tokenizer, probes, expected, "after training")
        return save_run(trainer, tokenizer, folder, made_from, sft, profile.artifacts)


def policy_and_reference(sft: str | Path, settings: TrainingSettings, profile: Profile):
    """The model to train, the new adapter's configuration, and the reference if it is a model."""
    if settings.lora_rank == 0:
        whole, reference = load_model(sft, profile), load_model(sft, profile)
        if adapter_config(sft):
            whole, reference = merge_adapter(whole), merge_adapter(reference)
        return whole.requires_grad_(True), None, reference.requires_grad_(False)
    if adapter_config(sft) and profile.four_bit:
        return load_model(sft, profile, trainable=True), None, None
    model = load_model(sft, profile)
    if adapter_config(sft):
        model = merge_adapter(model)
    return model, lora_config(settings), None


def dpo_trainer(*, options: dict[str, Any], **parts: Any) -> DPOTrainer:
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(args=DPOConfig(**options), **parts)
