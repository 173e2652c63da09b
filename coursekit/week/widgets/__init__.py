"""What a notebook shows and asks: responses, tables, predictions, claims, pairs to label."""

from .exhibition import exhibits
from .exploring import explore
from .labelling import label_pairs
from .moving import beta_slider, live
from .page import file_link
from .predictions import Prediction, claim, claims, held, predict, quiz
from .responses import pager, side_by_side, token_strip
from .tables import checklist, comparison, findings, flags, head_tables, win_rates

__all__ = [
    "Prediction",
    "beta_slider",
    "checklist",
    "claim",
    "claims",
    "comparison",
    "exhibits",
    "explore",
    "file_link",
    "findings",
    "flags",
    "head_tables",
    "held",
    "label_pairs",
    "live",
    "pager",
    "predict",
    "quiz",
    "side_by_side",
    "token_strip",
    "win_rates",
]

head_tables()
