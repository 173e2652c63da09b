"""Judges: who says which of two responses is better, behind one small protocol."""

from .agreement import Agreement, agreement
from .compare import compare_judges
from .judge import Judge, Verdict, Winner, both_orders, one_order, side_by_side
from .rubric_judge import RubricJudge
from .settings import load_judge

__all__ = [
    "Agreement",
    "Judge",
    "RubricJudge",
    "Verdict",
    "Winner",
    "agreement",
    "both_orders",
    "compare_judges",
    "load_judge",
    "one_order",
    "side_by_side",
]
