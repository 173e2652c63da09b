"""Shared fixtures. The hub is switched off: nothing here may need a network. The course's own
settings are those that nobody has changed.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import gc
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

for name in ("MODEL", "REVISION", "PROFILE", "TASK", "JUDGE"):
    os.environ.pop(f"COURSE_{name}", None)  # whoever runs the tests may have set them for a course

os.environ["COURSE_DIARY"] = "off"  # what tests answer is no learner's

# Who runs the tests in the background of a shell script has Ctrl-C ignored, in every child too.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
# By how much the log-probability of a response may differ between two ways to compute it. Some 60
# tokens, of each the difference of two float32 numbers up to 32, whose neighbours lie 2e-6 apart;
# the passes before leave a few of those steps. Measured: 1e-5 or less; a wrong model: 0.1 or more.
NATS = 1e-3


def pytest_collection_finish():
    """Every training begins with a collection of garbage, which need not go through libraries."""
    gc.freeze()


@pytest.fixture(scope="session")
def profile(tmp_path_factory):
    from coursekit.common.profile import load_profile

    return replace(load_profile("tiny"), artifacts=tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def quick(profile):
    """The tiny profile with training cut to a few steps."""
    return replace(
        profile,
        sft=replace(profile.sft, epochs=1, batch_size=16),
        dpo=replace(profile.dpo, learning_rate=1e-3, epochs=2, batch_size=8),
    )


@pytest.fixture(scope="session")
def tokenizer(profile):
    from coursekit.lm.loading import load_tokenizer

    return load_tokenizer(profile.base_model, profile)


@pytest.fixture()
def model(profile):
    from coursekit.lm.loading import load_model

    return load_model(profile.base_model, profile)


@pytest.fixture(scope="session")
def triples():
    """Sixteen triples without a model: a faultless report against an imperfect one."""
    import random

    from coursekit.tasks.triage import build_prompt, sample_alerts
    from coursekit.tasks.triage.demonstrations import Vices, write_imperfectly
    from coursekit.tasks.triage.reports import expected_values, write_report

    rng = random.Random(0)
    return [
        {
            "prompt": build_prompt(alert),
            "chosen": write_report(expected_values(alert)),
            "rejected": write_imperfectly(alert, rng, Vices(1, 1, 1, 0, 0, 0)),
            "facts": alert.to_dict(),
        }
        for alert in sample_alerts("preferences", 16)
    ]


@pytest.fixture(scope="session")
def sft_folder(quick):
    """An SFT adapter of a few steps, saved."""
    from coursekit.tasks.triage import sample_demonstrations
    from coursekit.training import train_sft

    return train_sft(
        quick.base_model, sample_demonstrations(64, quick), quick.artifacts / "sft", quick
    ).folder


def frozen_copy(model):
    """An independent copy of a plain model, in evaluation mode, without gradients.

    `copy.deepcopy` will not do: a trainer leaves a `forward` behind in the instance, bound to the
    original, so the copy would compute with the weights of the model it was copied from.
    """
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(device=model.device, dtype=model.dtype).eval().requires_grad_(False)
