"""Evaluation: what may be concluded from answers to the same prompts, and by which judges."""

from .alignment_tax import capability_scores, capability_table
from .annotations import (
    Annotation,
    annotated_win_rate,
    from_win_rate,
    length_controlled,
    read_annotations,
)
from .kl import kl_from_reference
from .record import ThreeWayRecord, load_three_way, save_three_way
from .scores import copy_accuracy, score_responses, with_faults
from .table import comparison_table, interval_by_prompts, to_markdown
from .win_rates import WinRate, all_pairs, moved_by, win_rate

__all__ = [
    "Annotation",
    "ThreeWayRecord",
    "WinRate",
    "all_pairs",
    "annotated_win_rate",
    "capability_scores",
    "capability_table",
    "comparison_table",
    "copy_accuracy",
    "from_win_rate",
    "interval_by_prompts",
    "kl_from_reference",
    "length_controlled",
    "load_three_way",
    "moved_by",
    "read_annotations",
    "save_three_way",
    "score_responses",
    "to_markdown",
    "win_rate",
    "with_faults",
]
