"""The rules at their thresholds: silent on the threshold itself, heard just beyond it.

The metrics are made by hand, a healthy run in which a table changes what the rule looks at.
"""

import math

import pandas as pd
import pytest

from coursekit.training import red_flags

BETA = 0.5
INFINITE, NONE = math.inf, math.nan
HEALTHY = {
    # Measured at the steps 0, 3, 6 and 9.
    "kl/k1": [0.0, 1.0, 2.0, 3.0],
    "kl/k1_se": 1.0,
    "policy/length": 100.0,
    "policy/entropy": 2.0,
    "policy/ended": 0.8,
    "held/margin": [0.0, 0.2, 0.3, 0.4],
    "held/accuracy": [0.5, 0.8, 0.85, 0.9],
    "held/chosen_shift": 0.0,
    # Trained at the steps 1 to 8.
    "loss": 0.6,
    "grad_norm": 0.5,
    "rewards/chosen": [0.0] + [0.3] * 7,
    "rewards/rejected": [0.0] + [-0.3] * 7,
    "rewards/margins": 0.6,
    "rewards/accuracies": 0.9,
}


def metrics(changes, steps=8):
    columns = HEALTHY | changes
    lines = {"measured": {"step": [0, 3, 6, 9]}, "trained": {"step": list(range(1, steps + 1))}}
    for name, values in columns.items():
        part = lines["trained" if name.startswith(("loss", "grad", "rewards")) else "measured"]
        part[name] = values if isinstance(values, float) else values[-len(part["step"]) :]
    frames = [pd.DataFrame(part) for part in lines.values()]
    return pd.concat(frames, ignore_index=True).sort_values("step", ignore_index=True)


def flags(changes, steps=8):
    return {flag.name: flag for flag in red_flags(metrics(changes, steps), BETA)}


def test_a_healthy_run_has_none():
    assert red_flags(metrics({}), BETA) == []


STANDSTILL = {"held/margin": 0.9e-6, "kl/k1": -0.9e-6}
UNMOVED = {"held/margin": [0.4, 0.3, 0.2, 0.049], "rewards/margins": 0.049, "kl/k1": 0.49}
NOISY = {
    "rewards/accuracies": [0.9] * 6 + [0.80, 0.75],
    "held/accuracy": [0.9, 0.9, 0.9, 0.69],
    "rewards/margins": 0.051,
}
LEARNT = {"rewards/accuracies": 0.951}
PEAK = [0.0, 0.5, 0.3, 0.39]

RAISED = [
    # Flag, what differs from the healthy run, since which step, how sure, and the evidence.
    ("divergence", {"loss": [0.6] * 3 + [3 * math.log(2) + 1e-9, 3.0, 0.6, 0.6, 0.6]},
     4, "sure", "the loss is 2.08, the gradient's norm 0.5"),
    ("divergence", {"loss": [0.6] * 6 + [NONE, NONE]},
     7, "sure", "the loss is nan, the gradient's norm 0.5"),
    ("divergence", {"grad_norm": [0.5] * 6 + [INFINITE] * 2},
     7, "sure", "the loss is 0.6, the gradient's norm inf"),
    ("wrong reference", {"rewards/chosen": [-0.2501] + [0.0] * 7},
     1, "sure", "differ by 0.5 nats a response"),
    ("wrong reference", {"rewards/rejected": [0.35] + [0.0] * 7},
     1, "sure", "differ by 0.7 nats a response"),
    ("wrong reference", STANDSTILL, 1, "sure", "though gradients flow"),
    ("collapse", {"kl/k1": [0.0, 50.1, 50.0, 3.0], "policy/entropy": [2.0, 3.0, 2.0, 4.0]},
     3, "sure", "entropy 2.0 times that of the start, KL 3 nats, 80% of the responses end"),
    ("collapse", {"policy/entropy": [2.0, 2.0, 3.0, 5.01]},
     9, "sure", "entropy 2.5 times that of the start, KL 3 nats, 80% of"),
    ("collapse", {"policy/entropy": [2.0, 4.0, 0.159, 4.0]},
     6, "sure", "entropy 2.0 times that of the start, KL 3 nats, 80% of"),
    ("collapse", {"policy/ended": [0.8, 0.7, 0.49, 0.6]},
     6, "sure", "entropy 1.0 times that of the start, KL 3 nats, 60% of"),
    ("KL running away", {"kl/k1": [0.0, 1.0, 6.0, 6.1]}, 9, "likely", "0.061 nats a token"),
    ("KL running away", {"kl/k1": [0.0, 6.1, 6.1, 1.0]}, 3, "likely", "0.010 nats a token"),
    ("KL running away", {"kl/k1": [0.0, 1.0, 7.0, 11.0]}, 6, "likely", "0.110 nats a token"),
    ("KL running away", {"kl/k1": [0.0, 1.0, 7.0, 11.1]}, 6, "sure", "0.111 nats a token"),
    ("no learning", UNMOVED, 0, "likely", "0.10 nats apart after 8 steps"),
    ("no learning", UNMOVED | {"held/margin": 0.009, "rewards/margins": 0.01},
     0, "likely", "0.02 nats apart"),
    ("no learning", UNMOVED | {"held/margin": 0.009, "rewards/margins": 0.009},
     0, "sure", "0.02 nats apart"),
    ("noisy labels", NOISY, 0, "likely", "78% of training and 69% of held-out triples"),
    ("noisy labels", NOISY | {"held/accuracy": [0.9, 0.9, 0.9, 0.6]},
     0, "likely", "78% of training and 60% of held-out triples"),
    ("noisy labels", NOISY | {"held/accuracy": [0.9, 0.9, 0.9, 0.59]},
     0, "sure", "78% of training and 59% of held-out triples"),
    ("overfitting", LEARNT | {"held/margin": PEAK}, 3, "likely",
     "the margin is 0.60 on training and 0.39 on held-out triples, where it was 0.50 at step 3"),
    ("overfitting", LEARNT | {"rewards/margins": 0.801},
     9, "likely", "the margin is 0.80 on training and 0.40 on held-out triples"),
    ("overfitting", LEARNT | {"held/margin": PEAK, "rewards/margins": 0.781}, 3, "sure",
     "the margin is 0.78 on training and 0.39 on held-out triples, where it was 0.50 at step 3"),
    ("overfitting", LEARNT | {"held/margin": PEAK, "rewards/margins": 0.051}, 3, "likely",
     "the margin is 0.05 on training and 0.39 on held-out triples, where it was 0.50 at step 3"),
    ("length growth", {"policy/length": [100.0, 108.0, 107.1, 103.1]},
     3, "likely", "responses are 3% longer"),
    ("length growth", {"policy/length": [100.0, 102.9, 106.0, 110.0]},
     6, "likely", "responses are 10% longer"),
    ("length growth", {"policy/length": [100.0, 111.9, 111.9, 111.9]}, 3, "likely", "are 12%"),
    ("length growth", {"policy/length": [100.0, 57.0, 110.0, 169.0]}, 6, "likely", "are 69%"),
    ("length growth", {"policy/length": [100.0, 112.1, 112.1, 112.1]}, 3, "sure", "are 12%"),
    ("likelihood displacement", {"held/chosen_shift": [0.0, 0.1, -0.01, -0.0101]},
     9, "likely", "(-0.010 nats a token); the KL is small"),
    ("likelihood displacement", {"held/chosen_shift": [0.0, 0.1, -0.02, -0.03]},
     6, "likely", "(-0.030 nats a token); the KL is small"),
    ("likelihood displacement", {"held/chosen_shift": [0.0, 0.1, -0.02, -0.031]},
     6, "sure", "(-0.031 nats a token); the KL is small"),
    ("likelihood displacement",
     {"held/chosen_shift": [0.0, -0.02, 0.1, -0.02], "kl/k1": [0.0, 1.0, 1.0, 5.0]},
     3, "likely", "(-0.020 nats a token)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "since", "certainty", "evidence"), RAISED)
def test_beyond_the_threshold_the_flag_is_raised(name, changes, since, certainty, evidence):
    flag = flags(changes)[name]
    assert (flag.since, flag.certainty) == (since, certainty)
    assert evidence in flag.evidence
    assert ("the KL is small" in evidence) == ("the KL is small" in flag.evidence) == flag.harmless
    assert ("where it was" in evidence) == ("where it was" in flag.evidence)


NOT_RAISED = [
    ("divergence", {"loss": 3 * math.log(2)}),
    ("wrong reference", {"rewards/chosen": [0.25] * 8, "rewards/rejected": [-0.25] + [-0.9] * 7}),
    ("wrong reference", STANDSTILL | {"held/margin": 1e-6}),
    ("wrong reference", STANDSTILL | {"kl/k1": 1e-6}),
    ("wrong reference", STANDSTILL | {"held/margin": [0.0, 0.0, 0.0, 0.1]}),
    ("wrong reference", STANDSTILL | {"kl/k1": [0.0, 0.0, 0.0, 0.1]}),
    ("wrong reference", STANDSTILL | {"grad_norm": [0.0] + [0.5] * 7}),
    ("collapse", {"kl/k1": [60.0, 50.0, 50.0, 50.0]}),
    ("collapse", {"policy/entropy": [2.0, 4.0, 3.0, 5.0]}),
    ("collapse", {"policy/entropy": [2.0, 4.0, 3.0, 0.16]}),
    ("collapse", {"policy/ended": [0.8, 0.9, 0.5, 0.5]}),
    ("KL running away", {"kl/k1": [0.0, 1.0, 6.1, 6.0]}),
    ("no learning", UNMOVED | {"kl/k1": [0.0, 0.0, 0.0, 0.5]}),
    ("no learning", UNMOVED | {"kl/k1": [0.0, 0.0, 0.0, -0.5]}),
    ("no learning", UNMOVED | {"held/margin": [0.0, 0.0, 0.0, 0.05]}),
    ("no learning", UNMOVED | {"rewards/margins": [0.0] * 6 + [0.05] * 2}),
    ("noisy labels", NOISY | {"rewards/accuracies": [0.5] * 6 + [0.78] * 2}),
    ("noisy labels", NOISY | {"held/accuracy": [0.5, 0.5, 0.5, 0.7]}),
    ("noisy labels", NOISY | {"rewards/margins": [0.6] * 6 + [0.05] * 2}),
    ("overfitting", {"held/margin": PEAK, "rewards/accuracies": [1.0] * 6 + [0.95] * 2}),
    ("overfitting", LEARNT | {"held/margin": [0.0, 0.5, 0.3, 0.4], "rewards/margins": 0.8}),
    ("overfitting", LEARNT | {"held/margin": PEAK, "rewards/margins": [0.6] * 6 + [0.05] * 2}),
    ("length growth", {"policy/length": [100.0, 105.9, 105.9, 105.9]}),
    ("length growth", {"policy/length": [100.0, 104.0, 104.0, 109.0]}),
    ("length growth", {"policy/length": [100.0, 110.0, 110.0, 102.9]}),
    ("likelihood displacement", {"held/chosen_shift": [0.0, -0.02, -0.02, -0.01]}),
    ("likelihood displacement", {"held/chosen_shift": -0.02, "held/margin": [0.5, 0.5, 0.5, 0.0]}),
]


@pytest.mark.parametrize(("name", "changes"), NOT_RAISED)
def test_on_the_threshold_it_is_not(name, changes):
    assert name not in flags(changes)


@pytest.mark.parametrize(("steps", "expected"), [(1, 0.04), (3, 0.04), (4, 0.04), (8, 0.03)])
def test_late_is_the_last_quarter_of_the_run_and_a_step_at_least(steps, expected):
    changes = {"rewards/margins": [*[0.0] * 6, 0.02, 0.04], "rewards/chosen": 0.0}
    changes |= {"rewards/rejected": 0.0}
    evidence = flags(UNMOVED | changes, steps)["no learning"].evidence
    assert f"{expected / BETA:.2f} nats apart after {steps} steps" in evidence


@pytest.mark.parametrize(
    "worst", [{"loss": NONE}, {"rewards/chosen": 1.0}], ids=["divergence", "wrong reference"]
)
def test_what_follows_from_the_gravest_is_not_told_besides(worst):
    changes = {"kl/k1": [0.0, 70.0, 70.0, 70.0], "policy/ended": [0.8, 0.1, 0.1, 0.1]}
    assert len(flags(changes)) == 2 and len(flags(changes | worst)) == 1


def test_two_measurements_and_a_step_are_enough_and_fewer_are_told():
    whole = metrics({})
    measured, trained = whole[whole["loss"].isna()], whole[whole["loss"].notna()]
    assert red_flags(pd.concat([measured[-2:], trained[:1]]), BETA) == []
    for few, told in (([measured[:1], trained], 1), ([trained], 0), ([measured], 4)):
        with pytest.raises(ValueError, match=f"{told} measurements .*train with monitor="):
            red_flags(pd.concat(few), BETA)
