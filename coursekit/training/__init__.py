"""Training: SFT, DPO and reward models, watched, checked and released."""

from .checklist import preflight
from .monitor import Monitor, load_metrics
from .red_flags import KL_A_TOKEN, Flag, red_flags
from .runs import ReferenceError, TrainingRun, load_run, train_dpo, train_sft, trl_loss
from .win_rate_callback import WinRateCallback

__all__ = [
    "KL_A_TOKEN",
    "Flag",
    "Monitor",
    "ReferenceError",
    "TrainingRun",
    "WinRateCallback",
    "load_metrics",
    "load_run",
    "preflight",
    "red_flags",
    "train_dpo",
    "train_sft",
    "trl_loss",
]
