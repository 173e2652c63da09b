"""Preference triples: sampled, judged, saved as they are made; read, written, audited."""

from .auditing import Audit, Finding, audit
from .card import data_card, save_card
from .designs import design_table
from .pairs import judge_pairs, make_triples, to_triples
from .readers import load_triples, parse_rows, write_triples
from .sampling import (
    Design,
    Source,
    profile_design,
    ranked_samples,
    reference_against_sample,
    sample_candidates,
    two_system_prompts,
    two_temperatures,
)
from .triples import (
    COLUMNS,
    check_triples,
    save_dataset,
    split_by_prompt,
    to_trl,
)

__all__ = [
    "COLUMNS",
    "Audit",
    "Design",
    "Finding",
    "Source",
    "audit",
    "check_triples",
    "data_card",
    "design_table",
    "judge_pairs",
    "load_triples",
    "make_triples",
    "parse_rows",
    "profile_design",
    "ranked_samples",
    "reference_against_sample",
    "sample_candidates",
    "save_card",
    "save_dataset",
    "split_by_prompt",
    "to_triples",
    "to_trl",
    "two_system_prompts",
    "two_temperatures",
    "write_triples",
]
