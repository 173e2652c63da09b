"""Judges: who says which of two responses is better, behind one small protocol."""

from .agreement import Agreement, agreement
from .compare import calibration, compare_judges
from .judge import Judge, Verdict, Winner, announce, both_orders, one_order, side_by_side
from .program import FlawedJudge, ProgramJudge
from .questions import Question, build_prompt, parse_answer
from .settings import load_judge, load_truth

__all__ = [
    "Agreement",
    "FlawedJudge",
    "Judge",
    "ProgramJudge",
    "Question",
    "Verdict",
    "Winner",
    "agreement",
    "announce",
    "both_orders",
    "build_prompt",
    "calibration",
    "compare_judges",
    "load_judge",
    "load_truth",
    "one_order",
    "parse_answer",
    "side_by_side",
]
