"""Watching a DPO run: the KL from the reference, and what else TRL does not log."""

# First, for what it silences: the import of transformers below would speak up.
from ..quiet import quiet  # noqa: F401
from .contest import Contest
from .kl import KL, estimate_kl, sample_responses
from .monitor import Monitor, load_metrics
from .red_flags import KL_A_TOKEN, Flag, red_flags

__all__ = [
    "KL",
    "KL_A_TOKEN",
    "Contest",
    "Flag",
    "Monitor",
    "estimate_kl",
    "load_metrics",
    "red_flags",
    "sample_responses",
]
