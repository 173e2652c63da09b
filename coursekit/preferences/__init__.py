"""Preference triples: sampled, judged, saved as they are made, read back with every row checked."""

from .sampling import sample_candidates
from .triples import (
    COLUMNS,
    alert_rows,
    check_triples,
    judge_candidates,
    load_triples,
    save_dataset,
    save_jsonl,
    split_by_prompt,
    to_trl,
)

__all__ = [
    "COLUMNS",
    "alert_rows",
    "check_triples",
    "judge_candidates",
    "load_triples",
    "sample_candidates",
    "save_dataset",
    "save_jsonl",
    "split_by_prompt",
    "to_trl",
]
