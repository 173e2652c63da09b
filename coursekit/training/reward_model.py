"""A reward model as judge: what RLHF trains and DPO does without, trained on the same triples.

Beside it DPO's own: the implicit reward beta (log pi_theta - log pi_ref) of a policy (Rafailov et
al. 2023, arXiv:2305.18290, equation 5, without the part that depends on the prompt alone).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..common.made_from import MadeFrom
from ..common.profile import Profile, TrainingSettings
from ..common.prompts import Prompt, prompt_key
from ..common.quiet import quiet
from ..common.ranks import from_main, only_this_run, processes
from ..common.statistics import Estimate, bootstrap_mean
from ..evaluation.judges.judge import Winner, identity_of, source_of
from ..lm.identity import loaded_identity, model_identity
from ..lm.loading import adapter_config, load_model, load_tokenizer, merge_adapter
from ..lm.logprobs import encode_pair, pad_right, sequence_logps
from ..lm.trl_compat import bare_model, is_adapted
from ..lm.weights import load_whole
from ..preferences import check_triples, to_trl
from .arguments import lora_config, run_arguments, validation_arguments
from .loop import run_training
from .rows import Rows, check_rows_fit, rows_record
from .run import CHECKPOINTS, TrainingRun, close_run, finished_run, is_finished

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import RewardTrainer

Scorer = Callable[[Sequence[Prompt], Sequence[str]], list[float]]


def train_reward_model(
    sft: str | Path,
    triples: Rows,
    folder: str | Path,
    profile: Profile,
    *,
    validation: Rows | None = None,
    settings: TrainingSettings | None = None,
    seed: int = 0,
) -> TrainingRun:
    """Train a reward model with TRL's `RewardTrainer`: Bradley-Terry on the triples.

    It starts from the SFT model, with a scalar head on the last token in place of the vocabulary's
    (InstructGPT, arXiv:2203.02155, section 3.5), and trains a LoRA adapter and the head; what is
    saved is whole. `load_reward_model(folder)` gives it back. A run that is finished in `folder`,
    from the same of everything, is not made anew.

    A profile with 4-bit weights is followed in all else: into 4-bit weights neither the SFT adapter
    nor the trained one could be merged without loss, so both stand on the unquantised base.

    Raises ValueError for a row that is no triple, or is too long.
    """
    triples = check_triples(triples)
    settings, folder = settings or profile.dpo, Path(folder)
    with only_this_run(folder), quiet():
        tokenizer = load_tokenizer(sft, profile)
        made_from = {
            "stage": "reward model",
            "sft": model_identity(sft, profile),
            **rows_record(triples, validation),
            "settings": asdict(settings),
            "seed": seed,
        }
        if run := from_main(lambda: finished_run(folder, made_from)):
            return run
        start, whole = folder / CHECKPOINTS / "start", replace(profile, four_bit=False)
        model = _with_scalar_head(sft, start, tokenizer, whole, seed)
        for rows in (triples, validation or []):
            check_rows_fit(model, tokenizer, rows, ("chosen", "rejected"), settings.max_length)
        options = run_arguments(settings, profile, folder, seed)
        trainer = _reward_trainer(model, tokenizer, triples, validation, settings, options)
        run_training(trainer, "reward model", profile, folder, made_from)
        return from_main(lambda: _save_whole(trainer, tokenizer, folder, made_from))


def _save_whole(trainer: Any, tokenizer: Any, folder: Path, made_from: MadeFrom) -> TrainingRun:
    trained = bare_model(trainer)
    whole = merge_adapter(trained) if is_adapted(trained) else trained
    whole.save_pretrained(folder)
    return close_run(trainer, tokenizer, folder, made_from)


def _with_scalar_head(
    sft: str | Path, start: Path, tokenizer: PreTrainedTokenizerBase, profile: Profile, seed: int
) -> PreTrainedModel:
    """The SFT model, its adapter merged, with one number for the last token: the reward.

    start: a folder for the model to come from; with each checkpoint peft looks there again, and
    several processes read what one of them has written.
    seed: of the new head's weights.
    """
    from transformers import AutoModelForSequenceClassification

    sft_model = load_model(sft, profile)
    if adapter_config(sft):
        sft_model = merge_adapter(sft_model)
    from_main(lambda: sft_model.save_pretrained(start))
    torch.manual_seed(seed)
    with _errors_alone():
        model = AutoModelForSequenceClassification.from_pretrained(
            start,
            num_labels=1,
            dtype=sft_model.dtype,
            pad_token_id=tokenizer.pad_token_id,
            use_safetensors=True,
            trust_remote_code=False,
        )
    return model.to(sft_model.device)


@contextmanager
def _errors_alone() -> Iterator[None]:
    """Without the warning that a head is missing and another left over: as it should be."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _reward_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    triples: Rows,
    validation: Rows | None,
    settings: TrainingSettings,
    options: dict[str, Any],
) -> RewardTrainer:
    """TRL's trainer of an adapter and of the head. `options`: fields of its `RewardConfig`."""
    from trl import RewardConfig, RewardTrainer

    chat = bool(tokenizer.chat_template)
    held = validation_arguments(len(validation or ()), settings.batch_size, processes())
    return RewardTrainer(
        model=model,
        args=RewardConfig(**options | held),
        train_dataset=to_trl(triples, chat),
        eval_dataset=to_trl(validation, chat) if validation else None,
        processing_class=tokenizer,
        peft_config=lora_config(settings, "SEQ_CLS", modules_to_save=["score"]),
    )


class RewardModel:
    """r(x, y), any real number, higher for better; only differences for one prompt mean anything.

    A judge as well: it compares by its scores.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "reward model"
    ) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name

    @property
    def identity(self) -> str:
        """Weights, configuration and tokenizer by their contents, wherever they were loaded from.

        Reads every weight once: as long as saving the model takes.
        """
        tokenizer = [self.tokenizer.get_vocab(), self.tokenizer.chat_template]
        programs = source_of(type(self), encode_pair, pad_right)
        return identity_of(self.name, loaded_identity(self.model), tokenizer, programs)

    @torch.no_grad()
    def scores(
        self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = 64
    ) -> list[float]:
        """r of each response to its prompt."""
        pairs = [
            encode_pair(self.tokenizer, prompt, response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        found: list[float] = []
        for start in range(0, len(pairs), batch_size):
            input_ids, attention_mask, _ = pad_right(
                pairs[start : start + batch_size], self.tokenizer.pad_token_id
            )
            logits = self.model(
                input_ids=input_ids.to(self.model.device),
                attention_mask=attention_mask.to(self.model.device),
            ).logits  # (B, 1)
            found += logits[:, 0].float().tolist()
        return found

    def score(self, row: Mapping[str, Any], response: str) -> float:
        """r of one response."""
        return self.scores([row["prompt"]], [response])[0]

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        if first == second:  # whose scores may differ in the last digit, as rows of a batch do
            return "tie"
        one, other = self.scores([row["prompt"]] * 2, [first, second])
        return "first" if one > other else "second" if other > one else "tie"


def load_reward_model(folder: str | Path, profile: Profile) -> RewardModel:
    """A reward model from its folder. Raises FileNotFoundError if no run has finished there."""
    from transformers import AutoModelForSequenceClassification

    if not is_finished(folder):
        raise FileNotFoundError(f"no reward model in {folder}: train one with train_reward_model")
    model = load_whole(
        AutoModelForSequenceClassification, folder, dtype=getattr(torch, profile.dtype)
    )
    if torch.cuda.is_available():
        model = model.to("cuda")
    return RewardModel(model, load_tokenizer(folder, profile))


def implicit_rewards(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    beta: float,
) -> list[float]:
    """beta (log pi_theta(y | x) - log pi_ref(y | x)) of each response, in nats times beta."""
    ours, theirs = (
        sequence_logps(model, tokenizer, prompts, responses) for model in (policy, reference)
    )
    return (beta * (ours - theirs)).tolist()


def pair_points(triples: Sequence[Mapping[str, Any]], scorer: Scorer) -> list[float]:
    """1 for each triple whose chosen response `scorer` puts first, 0.5 for equal scores, else 0."""
    prompts = [row["prompt"] for row in triples]
    chosen, rejected = (
        scorer(prompts, [row[side] for row in triples]) for side in ("chosen", "rejected")
    )
    return [
        0.5 if good == bad else float(good > bad)
        for good, bad in zip(chosen, rejected, strict=True)
    ]


def mean_by_prompt(
    triples: Sequence[Mapping[str, Any]], values: Sequence[float], least: float = 0.0
) -> Estimate:
    """The mean of `values`, one a triple, with its 95 % interval over *prompts*.

    Triples of one prompt share responses and are no independent evidence: each prompt counts once,
    by its own mean. `least`: the least a value could be, where 1 is the greatest.
    """
    by_prompt: dict[Hashable, list[float]] = {}
    for row, value in zip(triples, values, strict=True):
        by_prompt.setdefault(prompt_key(row["prompt"]), []).append(value)
    means = [sum(found) / len(found) for found in by_prompt.values()]
    return bootstrap_mean(means, within=(least, 1))


def best_of(
    rows: Sequence[Mapping[str, Any]], candidates: Sequence[Sequence[str]], scorer: Scorer
) -> list[str]:
    """For each row the candidate that `scorer` likes best (the first of equals)."""
    prompts = [row["prompt"] for row, texts in zip(rows, candidates, strict=True) for _ in texts]
    scores = iter(scorer(prompts, [text for texts in candidates for text in texts]))
    return [
        max(zip((next(scores) for _ in texts), texts, strict=True), key=lambda pair: pair[0])[1]
        for texts in candidates
    ]
