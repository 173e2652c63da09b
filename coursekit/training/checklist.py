"""The checklist before a DPO run: what goes wrong in silence, checked before it costs an hour.

Each check looks at what will really be used: the folder of the SFT model, the triples as the
tokenizer renders them, the trainer as `train_dpo` would build it.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.profile import Profile, TrainingSettings
from ..common.prompts import Prompt, as_text
from ..common.quiet import quiet
from ..lm.logprobs import context_of, encode_pair, encode_whole, spans_boundary
from ..lm.memory_budget import adapter_training, frozen, full_training
from ..preferences import audit, check_triples
from .dpo import load_start, policy_and_reference
from .one_batch import one_batch_loss, one_batch_trainer
from .reference import assert_reference, pair_logps
from .rows import PROBES, Rows, asked_path

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Learning rates outside are nearly always a slip. Adapters take more than whole models.
ADAPTER_RATES = (1e-6, 5e-4)
WHOLE_RATES = (1e-7, 5e-5)


@dataclass(frozen=True)
class Check:
    """One item: whether it passed, what was found, why it matters, how to mend it."""

    name: str
    passed: bool
    found: str
    why: str
    fix: str


@dataclass(frozen=True)
class Preflight:
    """All items, in order. `passed`: all of them."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def table(self) -> pd.DataFrame:
        """One line an item; why and fix where it failed."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "check": check.name,
                    "": "✓" if check.passed else "✗",
                    "found": check.found,
                    "why": "" if check.passed else check.why,
                    "fix": "" if check.passed else check.fix,
                }
                for check in self.checks
            ]
        ).set_index("check")


@dataclass(frozen=True)
class _Model:
    """What is to be known of a model: its size, its context, its linear layers' shapes by name."""

    weights: int
    context: int | None
    layers: dict[str, list[tuple[int, int]]]  # inputs and outputs of each that has the name


def _look_at(model: PreTrainedModel) -> _Model:
    layers: dict[str, list[tuple[int, int]]] = {}
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and "lora_" not in name:
            last = name.removesuffix(".base_layer").rsplit(".", 1)[-1]
            layers.setdefault(last, []).append((module.in_features, module.out_features))
    weights = sum(parameter.numel() for parameter in model.parameters())
    return _Model(weights, context_of(model), layers)


@dataclass(frozen=True)
class _Run:
    """What the checks look at."""

    sft: str | Path
    train: Rows
    validation: Rows
    evaluation: Sequence[Prompt]
    profile: Profile
    settings: TrainingSettings
    tokenizer: PreTrainedTokenizerBase
    reference: PreTrainedModel | None

    @cached_property
    def _loaded(self) -> PreTrainedModel:
        """The SFT model, loaded once a checklist."""
        return load_start(self.sft, self.settings, self.profile)

    @cached_property
    def model(self) -> _Model:
        """What the checks ask of the SFT model; kept, where the model itself is used up."""
        return _look_at(self._loaded)

    def hand_over(self) -> PreTrainedModel:
        """The SFT model fresh from its folder, once: to be made a policy of."""
        _ = self.model  # looked at before it goes
        return self.__dict__.pop("_loaded")

    @property
    def responses(self) -> Iterator[tuple[int, Prompt, str]]:
        """Number of the row (from 1), prompt and response, of every triple both."""
        for number, row in enumerate(self.train, start=1):
            for side in ("chosen", "rejected"):
                yield number, row["prompt"], row[side]


def preflight(
    sft: str | Path,
    train: Rows,
    profile: Profile,
    *,
    validation: Rows = (),
    evaluation: Sequence[Prompt] = (),
    settings: TrainingSettings | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    reference: PreTrainedModel | None = None,
) -> Preflight:
    """Check everything that `train_dpo(sft, train, ...)` would use. Takes seconds; trains nothing.

    Args:
        validation: held-out triples. evaluation: the prompts of the final evaluation.
        settings: the profile's for DPO, if None. tokenizer: the SFT folder's, if None.
        reference: a reference model of your own; None for what `train_dpo` takes.

    A check that cannot run because an earlier thing is broken fails with the error it met.
    """
    from ..lm.loading import load_tokenizer

    run = _Run(
        sft,
        train,
        validation,
        evaluation,
        profile,
        settings or profile.dpo,
        tokenizer or load_tokenizer(sft, profile),
        reference,
    )
    with quiet():
        return Preflight(tuple(_checks(run)))


def _checks(run: _Run) -> Iterator[Check]:
    for item in ITEMS:
        try:
            passed, found = item.look(run)
        except Exception as error:  # whatever a broken setting raises is what was found
            passed, found = False, f"{type(error).__name__}: {error}"
        yield Check(item.name, passed, found, item.why, item.fix)


@dataclass(frozen=True)
class _Item:
    """A check: `look` tells whether the run passes and what was found."""

    name: str
    why: str
    fix: str
    look: Callable[[_Run], tuple[bool, str]]


ITEMS: list[_Item] = []


def _item(name: str, why: str, fix: str):
    """Append the decorated function to the checklist."""

    def register(look: Callable[[_Run], tuple[bool, str]]):
        ITEMS.append(_Item(name, why, fix, look))
        return look

    return register


# The checklist.


@_item(
    "columns",
    why="the trainer wants prompt, chosen, rejected, texts that are not empty.",
    fix="read the file with load_triples, which names row and column.",
)
def _columns(run: _Run) -> tuple[bool, str]:
    check_triples(run.train)
    if run.validation:
        check_triples(run.validation, "the validation triples")
    return True, f"{len(run.train)} triples to train on, {len(run.validation)} held out"


@_item(
    "chat template",
    why=(
        "the SFT model answers prompts dressed as it was trained on; dressed otherwise, DPO "
        "trains another model than the one that will be asked."
    ),
    fix="use the tokenizer that was saved with the SFT model, and its chat template.",
)
def _template(run: _Run) -> tuple[bool, str]:
    from ..lm.loading import load_tokenizer

    saved = load_tokenizer(run.sft, run.profile)
    row = run.train[0]
    ours, theirs = (
        encode_pair(tokenizer, row["prompt"], row["chosen"]) for tokenizer in (run.tokenizer, saved)
    )
    bos = run.tokenizer.bos_token_id
    if bos is not None and ours.prompt_ids[:2] == [bos, bos]:
        return False, "the prompt begins with two BOS tokens"
    if ours != theirs:
        shown = run.tokenizer.decode(ours.prompt_ids[:8])
        return False, f"other tokens than the SFT model's tokenizer gives; it begins {shown!r}"
    return True, "the same tokens as the SFT model's own"


@_item(
    "boundary",
    why=(
        "a token that holds the end of the prompt and the beginning of the response drops that end "
        "from training; in generation the model sees it."
    ),
    fix=(
        "take white space off the responses' beginnings; or give the tokenizer a chat template "
        "that closes the prompt with a special token."
    ),
)
def _boundary(run: _Run) -> tuple[bool, str]:
    rows = {n for n, prompt, text in run.responses if spans_boundary(run.tokenizer, prompt, text)}
    first = f", row {min(rows)} the first" if rows else ""
    return not rows, f"a token spans it in {len(rows)} of {len(run.train)} rows{first}"


@_item(
    "asked alike",
    why="SFT taught the model to answer one way of asking; DPO and evaluation would use another.",
    fix="make demonstrations and triples from prompts that are built alike, and train SFT again.",
)
def _asked_alike(run: _Run) -> tuple[bool, str]:
    path = asked_path(run.sft)
    if not path.is_file():
        return True, "not known: the SFT folder does not say how it was asked"
    lines = path.read_text(encoding="utf-8").splitlines()
    taught = _frame([json.loads(line)["prompt"] for line in lines])
    asked = _frame([row["prompt"] for row in run.train])
    if not taught or not asked:
        return True, "not known: one prompt alone does not show how it is asked"
    if taught == asked:
        return True, f"as SFT was (lines that all prompts share: {sum(map(len, asked))})"
    ours, theirs = next(
        (" / ".join(one), " / ".join(other))
        for one, other in zip(asked, taught, strict=True)
        if one != other
    )
    return False, f"all prompts have {_short(ours)} where SFT's had {_short(theirs)}"


def _frame(prompts: Sequence[Prompt]) -> tuple[list[str], list[str]] | None:
    """What all prompts begin with and end with, in whole lines: how they are asked.

    None if there are no two prompts, which alone tell the asking from what is asked about.
    """
    texts = [text.split("\n") for text in {as_text(prompt).strip() for prompt in prompts}]
    if len(texts) < 2:
        return None
    return _shared(texts), _shared([lines[::-1] for lines in texts])[::-1]


def _shared(texts: Sequence[list[str]]) -> list[str]:
    """The lines that all texts begin with."""
    columns = zip(*texts, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


@_item(
    "end token",
    why="without it in the responses the policy is never taught to stop, and runs on.",
    fix="set tokenizer.eos_token to the token that closes an answer in the chat template.",
)
def _end_token(run: _Run) -> tuple[bool, str]:
    end = run.tokenizer.eos_token_id
    missing = 0
    for row in run.train[:PROBES]:
        for side in ("chosen", "rejected"):
            pair = encode_pair(run.tokenizer, row["prompt"], row[side])
            missing += end not in pair.response_ids[-2:]  # some templates add a line break
    if missing:
        return False, f"{missing} of {2 * len(run.train[:PROBES])} responses end without it"
    return True, f"each response ends with {run.tokenizer.eos_token!r}"


@_item(
    "lengths",
    why=(
        "what is longer than max_length would be cut: the end of the answer, its end token, and "
        "with it what the preference was about; train_dpo refuses it."
    ),
    fix="raise max_length (up to the model's context; memory grows with it), or drop the rows.",
)
def _lengths(run: _Run) -> tuple[bool, str]:
    import numpy as np

    _, prompts, texts = zip(*run.responses, strict=True)
    lengths = [len(ids) for ids in encode_whole(run.tokenizer, prompts, texts)]
    found = f"95 % have at most {np.percentile(lengths, 95):.0f} tokens, the longest {max(lengths)}"
    for name, limit in (
        ("max_length", run.settings.max_length),
        ("the model's context", run.model.context or math.inf),
    ):
        if over := sum(length > limit for length in lengths):
            return False, f"{found}; {over} over {name} = {limit}"
    return True, found


@_item(
    "splits",
    why="prompts in two splits are remembered, and the held-out numbers come out too good.",
    fix="split_by_prompt, and take the leaked rows out of the training triples.",
)
def _splits(run: _Run) -> tuple[bool, str]:
    report = audit(run.train, validation=run.validation, evaluation=run.evaluation)
    leaks = [report["validation leak"], report["evaluation leak"]]
    found = [f"{leak.check}: {leak.found}" for leak in leaks if leak.outcome == "fault"]
    if found:
        return False, "; ".join(found)
    missing = [leak.found for leak in leaks if leak.outcome == "not measured"]
    return True, "; ".join(["no prompt in two splits", *missing])


@_item(
    "rows",
    why="identical, doubled and contradictory rows teach nothing, or twice, or against each other.",
    fix="audit(...).without_faults(triples).",
)
def _rows(run: _Run) -> tuple[bool, str]:
    report = audit(run.train)
    bad = [report[name] for name in ("identical pairs", "doubled rows", "contradictions")]
    found = [f"{item.check}: {len(item.rows)}" for item in bad if item.rows]
    return not found, "; ".join(found) or "none identical, doubled or contradictory"


@_item(
    "reference",
    why="DPO measures against it; with another reference the loss pulls towards another model.",
    fix="train_dpo takes it from the SFT folder; a copy of your own must be loaded from there too.",
)
def _reference(run: _Run) -> tuple[bool, str]:
    import torch

    probes = list(run.train[:PROBES])
    sft = run.hand_over()
    expected = pair_logps(sft, run.tokenizer, probes)
    policy, adapter, reference = policy_and_reference(run.sft, run.settings, run.profile, sft)
    if run.reference:
        adapter, reference = None, run.reference
    options = {"max_length": run.settings.max_length, "beta": run.settings.beta}
    models = {"model": policy, "ref_model": reference, "peft_config": adapter}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        trainer = one_batch_trainer(run.tokenizer, probes, folder, options, **models)
        assert_reference(trainer, run.tokenizer, probes, expected, "before training")
        loss = one_batch_loss(trainer)
    found = f"first loss {loss:.4f} (ln 2 = {math.log(2):.4f}); its log-probabilities are SFT's"
    return abs(loss - math.log(2)) < 0.01, found


@_item(
    "trainable weights",
    why=(
        "an adapter whose targets are not found in the model trains less than you think, or "
        "nothing."
    ),
    fix="name the model's own linear layers in lora_targets (print(model) shows them).",
)
def _trainable(run: _Run) -> tuple[bool, str]:
    total, layers = run.model.weights, run.model.layers
    if run.settings.lora_rank == 0:
        return True, f"all {total:,} weights"
    missing = [target for target in run.settings.lora_targets if target not in layers]
    if missing:
        return False, f"no layer called {', '.join(missing)}; there are: {', '.join(layers)}"
    count = sum(
        run.settings.lora_rank * (ins + outs)
        for target in run.settings.lora_targets
        for ins, outs in layers[target]
    )
    return True, f"{count:,} of {total + count:,} ({count / (total + count):.1%})"


@_item(
    "learning rate",
    why="too high, and the gap grows while the answers fall apart; too low, and nothing moves.",
    fix="begin low within what is usual, and sweep; look that the exponent is the one you meant.",
)
def _learning_rate(run: _Run) -> tuple[bool, str]:
    adapter = run.settings.lora_rank > 0
    low, high = ADAPTER_RATES if adapter else WHOLE_RATES
    rate = run.settings.learning_rate
    what = "an adapter" if adapter else "all weights"
    return low <= rate <= high, f"{rate:g} for {what}; usual are {low:g} to {high:g}"


@_item(
    "precision",
    why=(
        "bf16 on hardware without it is emulated or refused (a T4 has none); fp16 on a CPU is slow."
    ),
    fix="float32 on a CPU, float16 on a T4, bfloat16 from Ampere on.",
)
def _precision(run: _Run) -> tuple[bool, str]:
    import torch

    dtype = run.profile.dtype
    if not torch.cuda.is_available():
        return dtype == "float32" or run.profile.four_bit, f"{dtype} on a CPU"
    name = torch.cuda.get_device_name()
    capable = torch.cuda.is_bf16_supported(including_emulation=False)
    return dtype != "bfloat16" or capable, f"{dtype} on {name}"


@_item(
    "memory",
    why="weights, gradients and optimiser states must fit before a single activation does.",
    fix="an adapter in place of all weights, 4-bit weights, a smaller model.",
)
def _memory(run: _Run) -> tuple[bool, str]:
    n = run.model.weights
    if run.settings.lora_rank:
        bytes_a_weight = 0.5 if run.profile.four_bit else _bytes(run)
        parts = [frozen(n, bytes_a_weight), adapter_training(0.02 * n)]
    else:
        parts = [full_training(n), frozen(n)]
    needed = sum(sum(part.values()) for part in parts)
    free = _free_memory()
    found = f"{needed:.2f} GiB without activations, {free:.1f} GiB free"
    return needed < 0.8 * free, found


def _bytes(run: _Run) -> int:
    return 4 if run.profile.dtype == "float32" else 2


def _free_memory() -> float:
    """GiB that are free where the model goes: on the GPU if there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 2**30
    import psutil

    return psutil.virtual_memory().available / 2**30
