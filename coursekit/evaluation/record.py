"""The three-way evaluation on the disk: for the terminal, for the model card, for later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.hypertext import unbroken
from ..common.made_from import MadeFrom, differences, plain
from ..common.markup import as_markdown
from ..common.statistics import Estimate
from .alignment_tax import capability_markdown
from .table import to_markdown
from .win_rates import WinRate

if TYPE_CHECKING:
    import pandas as pd

RECORD = "three_way"


@dataclass(frozen=True)
class ThreeWayRecord:
    """What session C found, as it was saved.

    made_from: what it was found on: `models`, the identity of each by name; the task and how it
    scores; the evaluation's rows; the judge (see `Workspace.evaluated`). markdown: the table;
    pairwise: the line on wins; sections: all of it by heading, for a model card.
    """

    made_from: MadeFrom
    n: int
    markdown: str
    pairwise: str
    sections: Mapping[str, str]

    def differs(self, wanted: Mapping[str, Any]) -> str:
        """What of `wanted` it was not made from, in a sentence; empty where all agrees."""
        found = differences(self.made_from, wanted)
        return f"the evaluation was made from something else ({'; '.join(found)})" if found else ""


def save_three_way(
    folder: str | Path,
    table: pd.DataFrame,
    wins: WinRate,
    *,
    made_from: Mapping[str, Any],
    length_controlled: Estimate,
    kl: Estimate,
    capability: pd.DataFrame | None = None,
) -> ThreeWayRecord:
    """Save the evaluation as `three_way.json`, `.md` and `.txt` (for a terminal) in `folder`.

    Args:
        table: as from `comparison_table`, of whose candidate and baseline the rest is too.
        made_from: what all of it was found on, with `models` in the order of the table.
        capability: as from `capability_table`, what it cost elsewhere.
    """
    folder = Path(folder)
    models = list(made_from["models"])
    *_, before, last = models
    candidate = table.attrs.get("candidate", last)
    baseline = table.attrs.get("baseline", before)
    pairwise = f"{candidate} against {baseline}: {wins}"
    lines = [
        pairwise,
        f"With length held equal: {length_controlled.value:.1%} "
        f"[{length_controlled.low:.1%}, {length_controlled.high:.1%}]",
        f"KL from {baseline}: {kl} nats a response",
    ]
    n = len(wins.rated)
    head = f"Evaluation on {n} prompts"
    means = unbroken(to_markdown(table))
    sections = {
        head: f"{means}\n\nMeans, and paired differences with 95 % intervals.",
        "Response against response": "\n".join(f"- {as_markdown(line)}" for line in lines)
        + "\n\nA tie counts half; both orders were asked.",
    }
    if capability is not None:
        sections["What it cost elsewhere"] = (
            f"{capability_markdown(capability, models)}\n\nChange of "
            f"{as_markdown(last)} over {as_markdown(models[0])}, paired by document."
        )
    record = ThreeWayRecord(plain(made_from), n, sections[head], pairwise, sections)
    folder.mkdir(parents=True, exist_ok=True)
    _write(record, folder, table[[*models, "difference", "low", "high"]], lines)
    return record


def _write(record: ThreeWayRecord, folder: Path, table: pd.DataFrame, lines: Sequence[str]) -> None:
    """The three files; the terminal's shows `table`, and below it `lines`, the last one first."""
    markdown = [f"## {name}\n\n{text}" for name, text in record.sections.items()]
    shown = [table.rename_axis(None).round(2).to_string(), "", *reversed(lines)]
    for ending, text in (
        ("md", "\n\n".join(markdown) + "\n"),
        ("txt", "\n".join(shown) + "\n"),
        ("json", json.dumps(vars(record), indent=1)),  # last: where it stands the record is whole
    ):
        (folder / f"{RECORD}.{ending}").write_text(text, encoding="utf-8")


def load_three_way(folder: str | Path) -> ThreeWayRecord | None:
    """What was saved in `folder`, or None. Raises ValueError for a damaged file."""
    path = Path(folder) / f"{RECORD}.json"
    if not path.is_file():
        return None
    try:
        return ThreeWayRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it, and run session C's section 11 again"
        ) from error
