"""Judges: who says which of two responses is better, behind one small protocol."""

from .agreement import Agreement, agreement
from .compare import calibration, compare_judges
from .judge import Judge, Verdict, Winner, announce, both_orders, one_order, side_by_side
from .questions import Question, build_prompt, parse_answer
from .rubric_judge import RubricJudge
from .settings import load_judge
from .written_rubric import WrittenRubric, load_rubric

__all__ = [
    "Agreement",
    "Judge",
    "Question",
    "RubricJudge",
    "Verdict",
    "Winner",
    "WrittenRubric",
    "agreement",
    "announce",
    "both_orders",
    "build_prompt",
    "calibration",
    "compare_judges",
    "load_judge",
    "load_rubric",
    "one_order",
    "parse_answer",
    "side_by_side",
]
