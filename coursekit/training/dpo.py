"""DPO: a thin layer over TRL's `DPOTrainer` that keeps one promise.

The promise: **the reference is the SFT model**, and it stays that. It is easy to break: TRL reloads
the model from disk when it is given neither adapter nor reference, and a copy of a model that went
through a trainer computes with the original's weights. So everything here goes through folders: a
run starts from a saved model, saves its result, and leaves nothing patched in memory; what you
evaluate is what you saved. `train_dpo` checks the reference before the first step and after the
last one, against what the SFT model gave as it came from its folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.made_from import MadeFrom
from ..common.profile import Profile, TrainingSettings
from ..common.quiet import quiet
from ..common.ranks import from_main, is_main, only_this_run, processes
from ..lm.identity import model_identity
from ..lm.loading import adapter_config, load_model, load_tokenizer, merge_adapter
from ..lm.trl_compat import score_labels_alone
from ..preferences import check_triples, to_trl
from .arguments import lora_config, run_arguments, validation_arguments
from .loop import run_training
from .reference import assert_reference, pair_logps
from .rows import PROBES, Rows, check_rows_fit, rows_record
from .run import CHECKPOINTS, TrainingRun, finished_run, name_base, save_run, stands_on

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedModel, TrainerCallback
    from trl import DPOTrainer

    from .monitor import Monitor


def train_dpo(
    sft: str | Path,
    triples: Rows,
    folder: str | Path,
    profile: Profile,
    *,
    settings: TrainingSettings | None = None,
    validation: Rows | None = None,
    precompute_reference: bool = True,
    seed: int = 0,
    monitor: Monitor | None = None,
    wrong_reference: str | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **overrides: Any,
) -> TrainingRun:
    """Train the SFT model saved in `sft` on preference triples with DPO and LoRA.

    The reference is the SFT model, in the form that `policy_and_reference` tells. A run that is
    finished in `folder`, from the same of everything, is given back; with a monitor, if it was
    watched alike. Processes that `torchrun` has started train one run together, the same as one
    alone would: the main one saves it, and all return it.

    Args:
        settings: the profile's for DPO, if None; with `lora_rank=0` all weights are trained.
        validation: triples on which the same metrics are logged (prefix `eval_`) each epoch.
        precompute_reference: compute the reference's log-probabilities once, before training.
        monitor: measures the KL and more on the way; see `Monitor`.
        wrong_reference: another model's folder, to see what a wrong reference does; not checked.
        overrides: further fields of TRL's `DPOConfig` (`loss_type`, `label_smoothing`, ...).

    Raises:
        ValueError: a row that is no triple, or is too long.
        ReferenceError: the reference is not the SFT model, or changed while the policy trained.
    """
    asked = {"precompute_reference": precompute_reference, "wrong_reference": wrong_reference}
    triples, held = check_triples(triples), _check_held_out(validation)
    settings, folder = settings or profile.dpo, Path(folder)
    job = DpoJob(sft, triples, held, folder, profile, settings, seed, overrides=overrides, **asked)
    with only_this_run(folder), quiet():
        tokenizer = load_tokenizer(sft, profile)  # also fetches what tells a hub model's commit
        made_from = job.made_from(monitor)
        run = from_main(lambda: _finished(job, made_from))
        return run or _train(job, tokenizer, made_from, monitor, callbacks)


def _check_held_out(validation: Rows | None) -> Rows:
    return check_triples(validation, "the validation triples") if validation else []


@dataclass(frozen=True)
class DpoJob:
    """What a call of `train_dpo` asks for, its rows checked; see there."""

    sft: str | Path
    triples: Rows
    validation: Rows
    folder: Path
    profile: Profile
    settings: TrainingSettings
    seed: int
    precompute_reference: bool
    wrong_reference: str | Path | None
    overrides: dict[str, Any]

    def made_from(self, monitor: Monitor | None) -> MadeFrom:
        """The run's record: two jobs with the same one give the same run."""
        wrong = self.wrong_reference and model_identity(self.wrong_reference, self.profile)
        return {
            "stage": "DPO",
            "sft": model_identity(self.sft, self.profile),
            **rows_record(self.triples, self.validation),
            "settings": asdict(self.settings),
            "seed": self.seed,
            "options": {
                "precompute_reference": self.precompute_reference,
                "wrong_reference": wrong,
                **self.overrides,
            },
            **({"watched": monitor.watches} if monitor else {}),
        }

    @property
    def options(self) -> dict[str, Any]:
        """The fields of TRL's `DPOConfig`."""
        return (
            run_arguments(self.settings, self.profile, self.folder, self.seed)
            | {
                "beta": self.settings.beta,
                "precompute_ref_log_probs": self.precompute_reference,
            }
            | validation_arguments(len(self.validation), self.settings.batch_size, processes())
            | self.overrides
        )


def _finished(job: DpoJob, made_from: MadeFrom) -> TrainingRun | None:
    """The run if it is finished; it may stand on an equal model that was set aside since."""
    run = finished_run(job.folder, made_from)
    if run and adapter_config(job.folder):
        base = stands_on(job.sft, job.profile.four_bit)
        name_base(job.folder, base, job.profile.artifacts)
    return run


def _train(
    job: DpoJob,
    tokenizer: Any,
    made_from: MadeFrom,
    monitor: Monitor | None,
    callbacks: Sequence[TrainerCallback],
) -> TrainingRun:
    sft = load_start(job.sft, job.settings, job.profile)
    limit = job.options["max_length"]
    for rows in (job.triples, job.validation):
        check_rows_fit(sft, tokenizer, rows, ("chosen", "rejected"), limit)
    probes = job.triples[:PROBES]
    expected = pair_logps(sft, tokenizer, probes)  # now: below, `sft` is used up
    trainer = _make_trainer(job, sft, tokenizer, callbacks)
    if not job.wrong_reference:
        assert_reference(trainer, tokenizer, probes, expected, "before training")
    if monitor and is_main():
        monitor.attach(trainer, tokenizer, job.profile, job.folder)
    run_training(trainer, "DPO", job.profile, job.folder, made_from)
    if not job.wrong_reference:
        assert_reference(trainer, tokenizer, probes, expected, "after training")
    parts = trainer, tokenizer, job.folder, made_from, job.sft, job.profile.artifacts
    return from_main(lambda: save_run(*parts))


def _make_trainer(
    job: DpoJob, sft: PreTrainedModel, tokenizer: Any, callbacks: Sequence[TrainerCallback]
) -> DPOTrainer:
    """TRL's trainer of the policy that is made of `sft`, which is used up."""
    policy, adapter, reference = policy_and_reference(job.sft, job.settings, job.profile, sft)
    if job.wrong_reference:
        reference = load_model(job.wrong_reference, job.profile)
    chat, shared = bool(tokenizer.chat_template), job.folder / CHECKPOINTS
    return dpo_trainer(
        model=policy,
        ref_model=reference,
        peft_config=adapter,
        processing_class=tokenizer,
        train_dataset=_for_all(to_trl(job.triples, chat), shared / "triples"),
        eval_dataset=(
            _for_all(to_trl(job.validation, chat), shared / "validation")
            if job.validation
            else None
        ),
        callbacks=list(callbacks),
        options=job.options,
    )


def _for_all(dataset: Dataset, place: Path) -> Dataset:
    """`dataset`, which several processes read from `place`: a folder that all of them see.

    Beside it the main one writes the reference's log-probabilities; of rows in memory, each process
    would look for them in a temporary folder of its own.
    """
    if processes() == 1:
        return dataset
    from_main(lambda: dataset.save_to_disk(place))
    return type(dataset).load_from_disk(place)


def policy_and_reference(
    sft: str | Path,
    settings: TrainingSettings,
    profile: Profile,
    loaded: PreTrainedModel | None = None,
) -> tuple[PreTrainedModel, LoraConfig | None, PreTrainedModel | None]:
    """The model to train, the new adapter's configuration, and the reference if it is a model.

    Where the SFT model is whole, or an adapter that can be merged, a new adapter is trained on top
    and the reference is the model without it. On 4-bit weights the SFT adapter itself is trained on
    and TRL keeps a frozen copy of it. With `lora_rank=0` all weights are trained and the reference
    is loaded from `sft` a second time.

    loaded: what `load_start` gave for the same, if it is there; used up.
    """
    policy = loaded or load_start(sft, settings, profile)
    if _goes_on(sft, settings, profile):
        return policy, None, None
    policy = _merged(policy, sft)
    if settings.lora_rank:
        return policy, lora_config(settings), None
    reference = _merged(load_model(sft, profile), sft)
    return policy.requires_grad_(True), None, reference.requires_grad_(False)


def load_start(sft: str | Path, settings: TrainingSettings, profile: Profile) -> PreTrainedModel:
    """The SFT model fresh from its folder, to be made a policy of."""
    return load_model(sft, profile, trainable=_goes_on(sft, settings, profile))


def _goes_on(sft: str | Path, settings: TrainingSettings, profile: Profile) -> bool:
    """Whether the SFT adapter itself is trained on: into 4-bit weights it cannot be merged."""
    return bool(settings.lora_rank and profile.four_bit and adapter_config(sft))


def _merged(model: PreTrainedModel, source: str | Path) -> PreTrainedModel:
    return merge_adapter(model) if adapter_config(source) else model


def dpo_trainer(*, options: dict[str, Any], **parts: Any) -> DPOTrainer:
    """TRL's trainer. `options`: fields of its `DPOConfig`."""
    from trl import DPOConfig, DPOTrainer

    score_labels_alone()
    return DPOTrainer(args=DPOConfig(**options), **parts)
