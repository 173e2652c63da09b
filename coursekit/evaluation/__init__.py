"""Evaluation: scores of the same prompts under several models, compared with intervals.

Everything here takes and gives plain data frames and texts. Intervals are for 95 %, and paired
wherever two models answered the same prompts.
"""

from .annotations import (
    Annotation,
    annotated_win_rate,
    from_win_rate,
    length_controlled,
    read_annotations,
)
from .capability import capability_scores, capability_table, held_out_documents
from .gap import checkpoints, gap_and_win, rank_correlation
from .intervals import Estimate, bootstrap_mean, mcnemar, prompts_needed
from .kl import kl_from_reference
from .pairwise import WinRate, all_pairs, win_rate
from .record import ThreeWayRecord, load_three_way, save_three_way
from .scores import HEURISTICS, copy_accuracy, score_responses
from .table import comparison_table, interval_by_prompts, to_markdown

__all__ = [
    "HEURISTICS",
    "Annotation",
    "Estimate",
    "ThreeWayRecord",
    "WinRate",
    "all_pairs",
    "annotated_win_rate",
    "bootstrap_mean",
    "capability_scores",
    "capability_table",
    "checkpoints",
    "comparison_table",
    "copy_accuracy",
    "from_win_rate",
    "gap_and_win",
    "held_out_documents",
    "interval_by_prompts",
    "kl_from_reference",
    "length_controlled",
    "load_three_way",
    "mcnemar",
    "prompts_needed",
    "rank_correlation",
    "read_annotations",
    "save_three_way",
    "score_responses",
    "to_markdown",
    "win_rate",
]
