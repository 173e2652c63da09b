"""The alignment tax: what training cost elsewhere, asked of the base model's heirs.

Three measures that need no judge: how well a model predicts texts like those the base model learnt
from, how often it answers short questions, and how often it still does what *other* instructions
ask for (InstructGPT, arXiv:2203.02155, section 4.2, calls the loss an alignment tax). Nobody
trained it on these since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..common.markup import as_markdown
from ..common.statistics import bootstrap_mean
from ..tasks import Probe

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def capability_scores(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
) -> pd.DataFrame:
    """How every model does on every probe: a line each.

    Columns `model`, `row`, `kind` (of the probe), `nats` (negative log-likelihood of the response,
    end included), `tokens`; for questions also `answered`: 1 if the right answer is what greedy
    decoding gives, token by token, else 0; for instructions also `followed`: 1 if the greedy answer
    obeys, else 0.
    """
    from ..lm.generation import generate
    from ..lm.logprobs import encode_pair, score_tokens

    pairs = [encode_pair(tokenizer, item.prompt, item.response) for item in probes]
    ordered = {index: item for index, item in enumerate(probes) if item.obeys is not None}
    records = []
    for name, model in models.items():
        scored = score_tokens(model, pairs, _logps_and_best, batch_size=batch_size)  # (T, 2) each
        texts = generate(
            model,
            tokenizer,
            [item.prompt for item in ordered.values()],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            label=None,
        )
        given = dict(zip(ordered, texts, strict=True))
        records += [
            {"model": name, "row": index, **_score(probe, rows, given.get(index))}
            for index, (probe, rows) in enumerate(zip(probes, scored, strict=True))
        ]
    return pd.DataFrame(records)


def _logps_and_best(logits: Tensor, input_ids: Tensor) -> Tensor:
    """Of each token but the first (B, T - 1, 2): its log-probability, and whether it is likeliest.

    logits: (B, T, V), input_ids: (B, T).
    """
    import torch

    from ..lm.logprobs import token_logps

    best = logits[:, :-1].argmax(-1) == input_ids[:, 1:]
    return torch.stack([token_logps(logits, input_ids), best], -1)


def _score(probe: Probe, rows: Tensor, given: str | None) -> dict[str, Any]:
    """What one model scores on one probe. rows: (T, 2) of the response; given: its own answer."""
    right = rows[:, 1].bool().all()
    return {
        "kind": probe.kind,
        "nats": -rows[:, 0].sum().item(),
        "tokens": len(rows),
        "answered": float(right) if probe.kind == "question" else float("nan"),
        "followed": float("nan") if given is None else float(probe.obeys(given)),
    }


def capability_table(scores: pd.DataFrame, *, before: str) -> pd.DataFrame:
    """What each model has kept of what the model `before` could do.

    Args:
        scores: as from `capability_scores`.

    Returns:
        One row a measure, of those that the probes allow (`perplexity of notes`: exp of the mean
        nats a token, lower is better;
        `questions answered`, `other instructions followed`: shares), a column a model, and for each
        other model its `change` from `before` with `low` and `high`, paired by document: of the
        perplexity as a ratio, of the shares as a difference.
    """
    models = list(dict.fromkeys(scores["model"]))
    notes = scores[scores["kind"] != "question"]
    lines = [_perplexity(notes, models, before)] if len(notes) else []
    for measure, column in (
        ("questions answered", "answered"),
        ("other instructions followed", "followed"),
    ):
        wide = scores.dropna(subset=column).pivot(index="row", columns="model", values=column)
        if not len(wide):
            continue
        line = {"measure": measure, **{model: wide[model].mean() for model in models}}
        for model in models:
            if model != before:
                found = bootstrap_mean(wide[model] - wide[before], within=(-1, 1))
                _set_change(line, model, found.value, found.low, found.high)
        lines.append(line)
    return pd.DataFrame(lines).set_index("measure")


def _perplexity(notes: pd.DataFrame, models: Sequence[str], before: str) -> dict[str, Any]:
    """The line on texts. They weigh by their tokens, so the interval is of that weighted mean."""
    nats = notes.pivot(index="row", columns="model", values="nats")
    tokens = notes.groupby("row")["tokens"].first()
    line: dict[str, Any] = {"measure": "perplexity of notes"}
    for model in models:
        line[model] = math.exp(nats[model].sum() / tokens.sum())
        if model != before:
            found = bootstrap_mean((nats[model] - nats[before]) / tokens.mean())
            _set_change(line, model, *np.exp([found.value, found.low, found.high]))
    return line


def capability_markdown(table: pd.DataFrame, models: Sequence[str]) -> str:
    """`capability_table` as a markdown table; the change is that of the last of `models`."""
    last = models[-1]
    lines = [
        f"| | {' | '.join(map(as_markdown, models))} | change | 95 % interval |",
        "|---|" + "---:|" * (len(models) + 2),
    ]
    for measure, row in table.iterrows():
        ratio = "×" if measure.startswith("perplexity") else ""
        sign = "" if ratio else "+"
        change, low, high = (
            f"{ratio}{row[f'{last} {end}']:{sign}.2f}" for end in ("change", "low", "high")
        )
        shown = " | ".join(f"{row[model]:.2f}" for model in models)
        lines.append(f"| {as_markdown(measure)} | {shown} | {change} | {low} to {high} |")
    return "\n".join(lines)


def _set_change(line: dict[str, Any], model: str, *ends: float) -> None:
    for name, value in zip(("change", "low", "high"), ends, strict=True):
        line[f"{model} {name}"] = float(value)
