"""Training: SFT, DPO and reward models, watched, checked and released."""

from .checklist import preflight
from .dpo import train_dpo
from .monitor import Monitor, load_metrics
from .one_batch import trl_loss
from .red_flags import KL_A_TOKEN, Flag, red_flags
from .reference import ReferenceError
from .run import TrainingRun, load_run
from .sft import train_sft
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
