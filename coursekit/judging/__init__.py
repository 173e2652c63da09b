"""Judges: who says which of two responses is better, behind one small protocol."""

from .judge import Judge, Verdict, both_orders
from .rubric_judge import RubricJudge

__all__ = ["Judge", "RubricJudge", "Verdict", "both_orders"]
