"""The course's own task: an alert goes in, a short structured triage report comes out."""

from .alerts import METRICS, POOLS, Alert, sample_alerts
from .demonstrations import sample_demonstrations
from .policy import SEVERITIES, severity_policy
from .reports import FIELDS, INSTRUCTION, INSTRUCTION_IN_FULL, ask, build_prompt, parse_report
from .scoring import Scores, fact_accuracy, report_faults, score_report
from .task import TRIAGE, Triage, alert_of

__all__ = [
    "FIELDS",
    "INSTRUCTION",
    "INSTRUCTION_IN_FULL",
    "METRICS",
    "POOLS",
    "SEVERITIES",
    "TRIAGE",
    "Alert",
    "Scores",
    "Triage",
    "alert_of",
    "ask",
    "build_prompt",
    "fact_accuracy",
    "parse_report",
    "report_faults",
    "sample_alerts",
    "sample_demonstrations",
    "score_report",
    "severity_policy",
]
