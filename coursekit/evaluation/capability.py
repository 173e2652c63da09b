"""What training cost elsewhere: text and a skill that the base model had, asked of its heirs.

Two measures that need no judge: how well a model predicts held-out documents of the base model's
corpus, and how often it answers short questions, which nobody trained it on since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..triage.corpus import QUESTIONS, Document, corpus
from .intervals import bootstrap_mean

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
    batch_size: int = 64,
) -> pd.DataFrame:
    """How every model does on every document: a line each.

    Columns `model`, `row`, `kind` (of the document), `nats` (negative log-likelihood of the
    response, end included), `tokens`; for questions also `answered`: 1 if the right answer is what
    greedy decoding gives, token by token, else 0.
    """
    import torch

    from ..logprobs import encode_pair, score_tokens, token_logps

    def logps_and_best(logits: Any, input_ids: Any) -> Any:
        best = logits[:, :-1].argmax(-1) == input_ids[:, 1:]
        return torch.stack([token_logps(logits, input_ids), best], -1)

    pairs = [encode_pair(tokenizer, item.prompt, item.response) for item in documents]
    records = []
    for name, model in models.items():
        scored = score_tokens(model, pairs, logps_and_best, batch_size=batch_size)  # (T, 2) each
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
                }
            )
    return pd.DataFrame(records)


def capability_table(scores: pd.DataFrame, *, before: str) -> pd.DataFrame:
    """What each model has kept of what the model `before` could do.

    Args:
        scores: as from `capability_scores`.

    Returns:
        One row a measure (`perplexity of notes`: exp of the mean nats a token, lower is better;
        `questions answered`: share), a column a model, and for each other model its `change` from
        `before` with `low` and `high`, paired by document: of the perplexity as a ratio, of the
        share as a difference.
    """
    models = list(dict.fromkeys(scores["model"]))
    notes, asked = scores[scores["kind"] != "question"], scores[scores["kind"] == "question"]
    nats = notes.pivot(index="row", columns="model", values="nats")
    tokens = notes.groupby("row")["tokens"].first()
    answered = asked.pivot(index="row", columns="model", values="answered")
    perplexity = {"measure": "perplexity of notes"}
    right = {"measure": "questions answered"}
    for model in models:
        perplexity[model] = math.exp(nats[model].sum() / tokens.sum())
        right[model] = answered[model].mean()
        if model == before:
            continue
        # Documents weigh by their tokens, so the interval is one of that weighted mean.
        more = (nats[model] - nats[before]) / tokens.mean()
        found = bootstrap_mean(more)
        ends = np.exp([found.value, found.low, found.high])
        share = bootstrap_mean(answered[model] - answered[before], within=(-1, 1))
        for line, values in ((perplexity, ends), (right, (share.value, share.low, share.high))):
            for end, value in zip(("change", "low", "high"), values, strict=True):
                line[f"{model} {end}"] = float(value)
    return pd.DataFrame([perplexity, right]).set_index("measure")


def severity_questions(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """`n` rows `question`, `choices`, `answer` (index of the right one): which severity?"""
    from ..triage.alerts import alert_stream
    from ..triage.policy import SEVERITIES
    from ..triage.reports import expected_values

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
