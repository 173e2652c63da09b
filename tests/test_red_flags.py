"""The rules on recorded runs: the diseased are named, the healthy left in peace.

The thresholds were set on the seeds in `TUNED_SEEDS`; the others are what can tell.
"""

import math
import shutil

import pytest

from coursekit.training import red_flags
from coursekit.training.red_flags import KL_A_TOKEN
from coursekit.week.gallery import (
    CONDITIONS,
    RECORDED_RUNS,
    TUNED_SEEDS,
    detection_table,
    load_recorded,
)

RUNS = load_recorded()
HEALTHY = [run for run in RUNS if run.condition.disease == "healthy"]
DISEASED = [run for run in RUNS if run.condition.disease not in ("healthy", "")]


def alarms(run):
    return [flag.name for flag in red_flags(run.metrics, run.beta) if not flag.harmless]


def test_there_are_runs_enough():
    assert len(HEALTHY) >= 20 and len(DISEASED) >= 20 and len(HEALTHY + DISEASED) >= 40
    assert {run.condition.name for run in RUNS} == {condition.name for condition in CONDITIONS}
    assert {run.seed for run in HEALTHY} > {0, 1} and {run.seed for run in DISEASED} > {0, 1}


def test_the_diseased_are_named():
    missed = [run for run in DISEASED if run.condition.disease not in alarms(run)]
    assert len(missed) <= 0.1 * len(DISEASED), [(run.condition.name, run.seed) for run in missed]
    unseen = [run for run in DISEASED if run.seed > 1]
    assert len([run for run in missed if run.seed > 1]) <= 0.1 * len(unseen)


def test_the_healthy_are_left_in_peace():
    false = [(run.condition.name, run.seed, alarms(run)) for run in HEALTHY if alarms(run)]
    assert len(false) <= len(HEALTHY) // 20, false


def test_on_seeds_that_no_threshold_has_seen_they_are_as_good():
    table = detection_table([run for run in RUNS if run.seed not in TUNED_SEEDS])
    ill = table[~table["disease"].isin(["healthy", ""])]
    assert ill["runs"].sum() >= 10 and (ill["runs"] > 0).all()
    assert ill["named"].sum() == ill["runs"].sum()
    healthy = table[table["disease"] == "healthy"]
    assert healthy["runs"].sum() >= 12 and healthy["false alarms"].sum() == 0


def test_every_rule_but_displacement_has_a_disease():
    diseases = {run.condition.disease for run in DISEASED}
    assert diseases == {
        "no learning",
        "KL running away",
        "collapse",
        "divergence",
        "noisy labels",
        "wrong reference",
        "length growth",
        "overfitting",
    }


def test_displacement_is_flagged_and_told_harmless_where_it_is():
    found = [(run, flag) for run in RUNS for flag in red_flags(run.metrics, run.beta)]
    displaced = [(run, flag) for run, flag in found if flag.name == "likelihood displacement"]
    assert {flag.harmless for _, flag in displaced} == {True, False}
    for run, flag in displaced:
        last = run.metrics.dropna(subset="kl/k1").iloc[-1]
        assert flag.harmless == (last["kl/k1"] / last["policy/length"] < KL_A_TOKEN)
        assert flag.harmless == ("the KL is small" in flag.evidence)
        assert last["held/chosen_shift"] < 0 < last["held/margin"]


def test_each_flag_says_when_how_sure_why_and_what_to_try():
    for run in RUNS:
        for flag in red_flags(run.metrics, run.beta):
            assert 0 <= flag.since <= run.metrics["step"].max()
            assert flag.certainty in ("sure", "likely")
            assert any(letter.isdigit() for letter in flag.evidence) and flag.advice


@pytest.fixture()
def healthy():
    return next(run for run in HEALTHY if run.condition.name == "healthy").metrics.copy()


def test_a_reference_that_moves_with_the_policy_is_named(healthy):
    """The trap of a copied model: all margins 0, KL 0, loss ln 2, and gradients all the while."""
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        healthy.loc[healthy[name].notna(), name] = 0.0
    for name in ("held/margin", "kl/k1", "kl/k3"):
        healthy.loc[healthy[name].notna(), name] = 0.0
    healthy.loc[healthy["loss"].notna(), "loss"] = math.log(2)
    (flag,) = red_flags(healthy, 0.1)
    assert flag.name == "wrong reference" and "moves with the policy" in flag.evidence


def test_a_loss_that_is_no_number_is_divergence(healthy):
    healthy.loc[healthy["step"] >= 7, "loss"] = float("nan")
    healthy.loc[healthy["step"] == 9, "loss"] = float("inf")
    (flag,) = red_flags(healthy, 0.1)
    assert flag.name == "divergence" and flag.since in (7, 9)


def test_a_frozen_policy_and_one_that_never_stops_have_collapsed(healthy):
    for name, value in (("policy/entropy", 0.001), ("policy/ended", 0.2)):
        frame = healthy.copy()
        late = (frame["step"] > 20) & frame[name].notna()
        frame.loc[late, name] = value
        assert "collapse" in [flag.name for flag in red_flags(frame, 0.1)]


def test_metrics_without_a_monitor_are_told(healthy):
    with pytest.raises(ValueError, match="train with monitor="):
        red_flags(healthy[healthy["step"] == 1], 0.1)


DAMAGE = {
    "cut at a line": (
        "healthy.0.csv",
        lambda path: path.write_text(path.read_text(encoding="utf-8")[:1500], encoding="utf-8"),
    ),
    "a number changed": (
        "healthy.1.csv",
        lambda path: path.write_text(
            path.read_text(encoding="utf-8").replace("0.6931", "0.6932", 1), encoding="utf-8"
        ),
    ),
    "missing": ("healthy.0.csv", lambda path: path.unlink()),
    "its end missing": ("healthy.0.json", lambda path: path.unlink()),
    "one too many": (
        "healthy.9.csv",
        lambda path: path.write_text("step,loss\n1,0.7\n", encoding="utf-8"),
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_recorded_runs_are_read_whole_or_not_at_all(how, tmp_path):
    folder = shutil.copytree(RECORDED_RUNS, tmp_path / "recorded")
    name, damage = DAMAGE[how]
    damage(folder / name)
    with pytest.raises(ValueError, match=f"{name} is (cut|missing).*git checkout"):
        load_recorded(folder)


def test_recorded_runs_need_their_checksums_and_no_special_line_ends(tmp_path):
    folder = shutil.copytree(RECORDED_RUNS, tmp_path / "recorded")
    path = folder / "healthy.0.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(load_recorded(folder)) == len(RUNS)
    (folder / "sums.json").unlink()
    with pytest.raises(ValueError, match=r"sums.json cannot be read"):
        load_recorded(folder)
