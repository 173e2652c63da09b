"""What training cost elsewhere: text and a skill that the base model had, asked of its heirs.

Three measures that need no judge: how well a model predicts held-out documents of the base model's
corpus, how often it answers short questions, and how often it still does what *other* instructions
ask for. Nobody trained it on these since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..common.markup import as_markdown
from ..common.statistics import bootstrap_mean
from ..tasks.triage.corpus import INSTRUCTIONS, QUESTIONS, Document, corpus, opens_as

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def held_out_documents(n: int, seed: int = 0) -> list[Document]:
    """`n` notes and `n` questions like those the base model learnt from, about other services."""
    documents = corpus("evaluation", seed=seed)
    notes = (document for document in documents if document.kind != "question")
    asked = (document for document in corpus("evaluation", seed, questions=1.0))
    return [*islice(notes, n), *islice(asked, n)]


def capability_scores(
    models: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Document],
    *,
    max_new_tokens: int,
    batch_size: int = 64,
) -> pd.DataFrame:
    """How every model does on every document: a line each.

    Columns `model`, `row`, `kind` (of the document), `nats` (negative log-likelihood of the
    response, end included), `tokens`; for questions also `answered`: 1 if the right answer is what
    greedy decoding gives, token by token, else 0; where the instruction asks for one style (a
    ticket, a chat message) also `followed`: 1 if the greedy answer begins in that style, else 0.
    """
    import torch

    from ..lm.generation import generate
    from ..lm.logprobs import encode_pair, score_tokens, token_logps

    def logps_and_best(logits: Any, input_ids: Any) -> Any:
        best = logits[:, :-1].argmax(-1) == input_ids[:, 1:]
        return torch.stack([token_logps(logits, input_ids), best], -1)

    pairs = [encode_pair(tokenizer, item.prompt, item.response) for item in documents]
    styled = {index: item for index, item in enumerate(documents) if _asked_style(item) is not None}
    records = []
    for name, model in models.items():
        scored = score_tokens(model, pairs, logps_and_best, batch_size=batch_size)  # (T, 2) each
        texts = generate(
            model,
            tokenizer,
            [item.prompt for item in styled.values()],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            label=None,
        )
        followed = {
            index: float(opens_as(_asked_style(item), text))
            for (index, item), text in zip(styled.items(), texts, strict=True)
        }
        for index, (document, rows) in enumerate(zip(documents, scored, strict=True)):
            asked = document.kind == "question"
            records.append(
                {
                    "model": name,
                    "row": index,
                    "kind": document.kind,
                    "nats": -rows[:, 0].sum().item(),
                    "tokens": len(rows),
                    "answered": float(rows[:, 1].bool().all()) if asked else float("nan"),
                    "followed": followed.get(index, float("nan")),
                }
            )
    return pd.DataFrame(records)


def _asked_style(document: Document) -> str | None:
    """The one style that the document's instruction asks for, if it is not the report."""
    return INSTRUCTIONS.get(document.prompt.split("\n", 1)[0])


def capability_table(scores: pd.DataFrame, *, before: str) -> pd.DataFrame:
    """What each model has kept of what the model `before` could do.

    Args:
        scores: as from `capability_scores`.

    Returns:
        One row a measure (`perplexity of notes`: exp of the mean nats a token, lower is better;
        `questions answered`, `other instructions followed`: shares), a column a model, and for each
        other model its `change` from `before` with `low` and `high`, paired by document: of the
        perplexity as a ratio, of the shares as a difference.
    """
    models = list(dict.fromkeys(scores["model"]))
    notes = scores[scores["kind"] != "question"]
    nats = notes.pivot(index="row", columns="model", values="nats")
    tokens = notes.groupby("row")["tokens"].first()
    perplexity = {"measure": "perplexity of notes"}
    for model in models:
        perplexity[model] = math.exp(nats[model].sum() / tokens.sum())
        if model != before:
            # Documents weigh by their tokens, so the interval is one of that weighted mean.
            found = bootstrap_mean((nats[model] - nats[before]) / tokens.mean())
            _set_change(perplexity, model, *np.exp([found.value, found.low, found.high]))
    lines = [perplexity]
    for measure, column in (
        ("questions answered", "answered"),
        ("other instructions followed", "followed"),
    ):
        wide = scores.dropna(subset=column).pivot(index="row", columns="model", values=column)
        line = {"measure": measure, **{model: wide[model].mean() for model in models}}
        for model in models:
            if model != before:
                found = bootstrap_mean(wide[model] - wide[before], within=(-1, 1))
                _set_change(line, model, found.value, found.low, found.high)
        lines.append(line)
    return pd.DataFrame(lines).set_index("measure")


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


def severity_questions(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """`n` rows `question`, `choices`, `answer` (index of the right one): which severity?"""
    from ..tasks.triage.alerts import alert_stream
    from ..tasks.triage.policy import SEVERITIES
    from ..tasks.triage.reports import expected_values

    asked = next(text for text, field in QUESTIONS.items() if field == "severity")
    options = [f"severity {severity}" for severity in SEVERITIES]
    return [
        {
            "question": f"{asked}\n{alert.text}",
            "choices": options,
            "answer": options.index(f"severity {expected_values(alert)['severity']}"),
        }
        for alert in islice(alert_stream("evaluation", seed), n)
    ]
