"""The data card: what the triples are, written from the triples themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.markup import as_code, as_markdown, from_markdown
from ..common.prompts import prompt_key
from .auditing import Audit

Rows = Sequence[dict[str, Any]]

_COLUMNS = {
    "prompt": "what the model is asked (one turn of the user, or messages)",
    "chosen": "the better response",
    "rejected": "the worse response",
    "chosen_source": "where it came from in the sampling design",
    "rejected_source": "the same for the rejected one",
    "chosen_temperature": "at which it was sampled; none if it was written",
    "rejected_temperature": "the same for the rejected one",
    "chosen_score": "the judge's points",
    "rejected_score": "the same for the rejected one",
    "chosen_position": "1 or 2: where the chosen one stood when the judge was first asked",
    "asked": "how often the judge was asked about the pair: 2 for both orders",
    "consistent": "whether it said the same in both orders",
    "judge": "who chose",
    "design": "how the candidates were sampled and paired",
    "seed": "of the sampling",
    "prompt_id": "the same for all pairs of one prompt",
    "facts": "what the task itself knows of the prompt",
}


def data_card(
    train: Rows, validation: Rows, audit: Audit, *, title: str, pairs: Rows = (), model: str = ""
) -> str:
    """A card in markdown. What the rows, the audit and the caller say stands in it as text.

    Args:
        train, validation: the triples. audit: of the training triples.
        pairs: all judged pairs: for ties and consistency. model: that was sampled.
    """
    rows = [*train, *validation]
    return "\n\n".join(
        part
        for part in (
            f"# {as_markdown(title)}",
            _summary(train, validation),
            _making(rows, pairs, model),
            _columns(rows),
            _lengths(rows),
            _audited(audit),
            "## Limits\n\nThe labels are those of the judge named above: they hold as far as it is "
            "right. The prompts cover what they cover; a model trained on them is no better "
            "elsewhere. Add here what you know and the data do not tell: who wrote the prompts, "
            "whose data they contain, under which licence they may be used.",
        )
        if part
    )


def save_card(card: str, folder: str | Path) -> Path:
    """Write the card into the folder as `README.md`, with the header that the hub reads."""
    from huggingface_hub import DatasetCardData

    path = Path(folder) / "README.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    title = from_markdown(card.split("\n", 1)[0].removeprefix("# "))
    header = DatasetCardData(pretty_name=title, tags=["preference", "dpo"]).to_yaml()
    path.write_text(f"---\n{header}\n---\n\n{card}\n", encoding="utf-8")
    return path


def _summary(train: Rows, validation: Rows) -> str:
    lines = ["| split | triples | prompts |", "|---|---|---|"]
    for name, rows in (("train", train), ("validation", validation)):
        prompts = len({prompt_key(row["prompt"]) for row in rows})
        lines.append(f"| {name} | {len(rows)} | {prompts} |")
    shared = {prompt_key(row["prompt"]) for row in train} & {
        prompt_key(row["prompt"]) for row in validation
    }
    lines.append(f"\nPrompts in both splits: {len(shared)}.")
    return "\n".join(lines)


def _making(rows: Rows, pairs: Rows, model: str) -> str:
    said = []
    if model:
        said.append(f"Responses were sampled from {as_markdown(model)}.")
    for column, what in (("design", "Design"), ("judge", "Judge"), ("seed", "Seed")):
        values = sorted({str(row[column]) for row in rows if column in row})
        if values:
            said.append(f"{what}: {', '.join(map(as_markdown, values))}.")
    sources: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        for side in ("chosen", "rejected"):
            if f"{side}_source" in row:
                temperature = _temperature(row.get(f"{side}_temperature"))
                sources[str(row[f"{side}_source"]), temperature][side] += 1
    lines = [" ".join(said)] if said else []
    if sources:
        lines += ["| source | temperature | chosen | rejected |", "|---|---|---|---|"]
        lines += [
            f"| {as_markdown(source)} | {as_markdown(temperature)} | {found['chosen']} | "
            f"{found['rejected']} |"
            for (source, temperature), found in sorted(sources.items())
        ]
    if pairs:
        ties = sum(pair["winner"] == "tie" for pair in pairs)
        flipped = sum(not pair["consistent"] for pair in pairs)
        lines.append(
            f"\nThe judge saw {len(pairs)} pairs; {ties} were ties ({ties / len(pairs):.0%}), of "
            f"these {flipped} because the verdict changed with the order. A tie makes no triple."
        )
    return "## How they were made\n\n" + "\n".join(lines) if lines else ""


def _temperature(value: Any) -> str:
    """As it is, whatever a file holds; a response without one was written."""
    if value is None:
        return "written"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _columns(rows: Rows) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["## Columns\n", "| column | what it is |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| {as_code(name)} | {_COLUMNS.get(name, '')} |" for name in names)]
    )


def _lengths(rows: Rows) -> str:
    lines = ["## Lengths, in characters\n", "| | median | 5 % | 95 % |", "|---|---|---|---|"]
    for side in ("chosen", "rejected"):
        low, middle, high = np.percentile([len(row[side]) for row in rows], [5, 50, 95])
        lines.append(f"| {side} | {middle:.0f} | {low:.0f} | {high:.0f} |")
    return "\n".join(lines)


def _audited(audit: Audit) -> str:
    lines = ["## Audit of the training split\n", "| check | outcome | found |", "|---|---|---|"]
    for item in audit.findings:
        cells = map(as_markdown, (item.check, item.outcome, item.found))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
