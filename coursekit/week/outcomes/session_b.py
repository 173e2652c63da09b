"""What session B's results show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ...common.statistics import Estimate
from . import Claim, Outcome, with_interval

if TYPE_CHECKING:
    from ...common.profile import TrainingSettings
    from ...preferences import Audit
    from ..gallery import Recorded

# 2. The SFT model. Scores: as of `score_responses`.


def copies_facts(copied: pd.Series) -> Claim:
    """copied: the share of greedy answers that give each fact right."""
    return Claim(
        copied.min() >= 0.95,
        "decoded greedily, SFT copies each kind of fact correctly at least 95 % of the time "
        f"(least often the {copied.idxmin()}: {copied.min():.1%})",
    )


def sft_learnt(scores: pd.DataFrame) -> list[Claim]:
    overall = scores.groupby("model")["overall"].mean()
    faultless = (scores.loc[scores["model"] == "SFT", "overall"] == 1).mean()
    return [
        Claim(
            overall["SFT"] > overall["base"] + 0.1,
            "SFT has learnt the task: the overall score rises from "
            f"{overall['base']:.2f} to {overall['SFT']:.2f}",
        ),
        Claim(
            faultless < 0.8,
            f"it has also learnt the vices: only {faultless:.0%} of its answers are without fault",
        ),
    ]


def sft_keeps_the_format(scores: pd.DataFrame) -> list[Claim]:
    means = scores.groupby("model")[["format", "faithfulness"]].mean()
    base, sft = means.loc["base"], means.loc["SFT"]
    return [
        Claim(
            base["format"] <= 0.6,
            f"the base model rarely keeps the format ({base['format']:.0%})",
        ),
        Claim(sft["format"] >= 0.9, f"SFT has learnt the format ({sft['format']:.0%})"),
        Claim(
            sft["faithfulness"] < 0.9,
            f"SFT invents causes: its faithfulness is only {sft['faithfulness']:.0%}",
        ),
    ]


def slips_when_sampled(greedy: pd.Series, sampled: pd.Series) -> Claim:
    """The share of answers that give each fact right, decoded greedily and sampled."""
    worst = sampled.idxmin()
    return Claim(
        sampled[worst] <= greedy[worst],
        f"the {worst} is copied correctly in {greedy[worst]:.1%} of the greedy answers and in "
        f"{sampled[worst]:.1%} of the sampled ones",
    )


# 4. The audit.


def cooler_won(report: Audit) -> Outcome:
    """The cooler sample wins a: half of the time, b: more often, c: nearly always."""
    measured = report.shares["the cooler won"]
    option = "a" if not measured.sure else "c" if measured.low > 0.85 else "b"
    return Outcome(option, str(measured))


def faults_are_gone(before: Audit, after: Audit) -> Claim:
    """Audits of the same rows before and after those with a fault were dropped."""
    mended = [item.check for item in before.problems if item.rows]
    return Claim(
        all(after[check].outcome == "ok" for check in mended),
        f"{after.n} of {before.n} rows remain when the faulty ones are dropped, and no fault is "
        "left",
    )


# 6. DPO, watched.


def chosen_reward(last: pd.Series) -> Outcome:
    """The reward of the chosen a: rises, b: stays near zero, c: falls.

    last: `rewards/chosen` and `rewards/margins` at the end; what is near zero is less than half of
    the margin.
    """
    share = last["rewards/chosen"] / last["rewards/margins"]
    return Outcome(
        "a" if share > 0.5 else "c" if share < -0.5 else "b",
        f"{last['rewards/chosen']:+.2f}, while the margin is {last['rewards/margins']:.2f}. The "
        "loss asks only for the difference, so a chosen reward that does not rise is not a bug",
    )


def margin_has_grown(last: pd.Series, history: Sequence[Mapping[str, float]]) -> list[Claim]:
    """last: means over the last steps; history: what TRL logged."""
    held_out = [entry for entry in history if "eval_loss" in entry][-1]
    ranked = held_out["eval_rewards/accuracies"]
    return [
        Claim(last["rewards/margins"] > 0.1, "the margin has grown on the training triples"),
        Claim(ranked > 0.6, f"on triples it has not seen, {ranked:.0%} are ranked right"),
    ]


def mystery(run: Recorded) -> Outcome:
    """What was changed in a recorded run, and the flags that its metrics raise."""
    from ...training import red_flags

    raised = [flag for flag in red_flags(run.metrics, run.beta) if not flag.harmless]
    return Outcome(
        run.condition.name,
        f"flags: {'; '.join(f'{flag.name}: {flag.evidence}' for flag in raised)}",
    )


def rules_hold(detection: pd.DataFrame) -> list[Claim]:
    """detection: as of `gallery.detection_table`."""
    ill = detection[~detection["disease"].isin(["healthy", ""])].sum()
    well = detection[detection["disease"] == "healthy"].sum()
    return [
        Claim(
            ill["named"] >= 0.9 * ill["runs"],
            f"of {ill['runs']} runs with a disease, {ill['named']} are named",
        ),
        Claim(
            well["false alarms"] <= well["runs"] / 20,
            f"of {well['runs']} healthy runs, {well['false alarms']} raise a false alarm",
        ),
    ]


# 8. Which beta, which learning rate? Sweep: as of `beta_sweep`.


def _by_rate_and_beta(
    sweep: pd.DataFrame, usual: TrainingSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs that differ from the usual settings in the learning rate, and those in beta."""
    by_rate = sweep[sweep["beta"] == usual.beta].sort_values("learning_rate")
    by_beta = sweep[sweep["learning_rate"] == usual.learning_rate].sort_values("beta")
    return by_rate, by_beta


def beta_or_rate(sweep: pd.DataFrame, usual: TrainingSettings) -> Outcome:
    """What moves the win rate more, a: beta, b: the learning rate."""
    by_rate, by_beta = _by_rate_and_beta(sweep, usual)
    moves = {
        name: runs["win_rate"].max() - runs["win_rate"].min()
        for name, runs in (("beta", by_beta), ("the learning rate", by_rate))
    }
    return Outcome(
        "a" if moves["beta"] >= moves["the learning rate"] else "b",
        ", ".join(f"{name} moves it by {points:.1%}" for name, points in moves.items()),
    )


def what_a_sweep_shows(sweep: pd.DataFrame, usual: TrainingSettings) -> list[Claim]:
    by_rate, by_beta = _by_rate_and_beta(sweep, usual)
    best, widest = sweep.loc[sweep["win_rate"].idxmax()], sweep.loc[sweep["gap"].idxmax()]
    least, most = by_beta["gap"].min(), by_beta["gap"].max()
    return [
        Claim(
            by_rate["kl"].is_monotonic_increasing,
            "the higher the learning rate, the further the policy moves",
        ),
        Claim(
            by_beta["margin"].is_monotonic_increasing,
            "the margin grows with beta, because beta is a factor of it",
        ),
        Claim(
            most < 1.5 * least,
            f"the gap hardly depends on beta: {least:.2f} to {most:.2f} nats",
        ),
        Claim(
            widest["win_rate"] < best["win_rate"],
            f"the widest gap ({widest['gap']:.1f} nats) wins {widest['win_rate']:.1%}, "
            f"the best run {best['win_rate']:.1%} with {best['gap']:.1f} nats",
        ),
    ]


# 9. A judge can be wrong.


def asked_in_both_orders(compared: pd.DataFrame) -> str:
    """What asking twice mends, for two ways to err. compared: as of `compare_judges`."""
    once, kept = "wrong, asked once", "wrong, of those kept"
    lines = [
        f"the judge who {judge} is wrong on {compared.loc[name, once]:.0%} of the pairs when asked "
        f"once, and on {compared.loc[name, kept]:.0%} of those kept"
        for judge, name in (("likes the first", "likes the first"), ("errs in 20 %",) * 2)
    ]
    first, errs, careful = compared.loc[["likes the first", "errs in 20 %", "careful"], "kept"]
    lines.append(
        f"they keep {first:.0%} and {errs:.0%} of the pairs; the careful judge keeps {careful:.0%}"
    )
    return "\n".join(lines)


def still_moves(moved: Estimate) -> Claim:
    """moved: the win rate by a judge who likes the first, minus that by the truth."""
    return Claim(
        moved.high < 0,
        "asked in both orders, the judge who likes the first still moves the win rate, by "
        f"{with_interval(moved, '+.1%')}",
    )


# Noise: as of `noise_table`.


def _line(noise: pd.DataFrame, rate: float, loss: str = "DPO") -> pd.Series:
    return noise[(noise["loss"] == loss) & (noise["rate"] == rate)].iloc[0]


def remaining_gain(noise: pd.DataFrame) -> Outcome:
    """Of the gain with clean labels, 40 % wrong ones leave a: all, b: half, c: less, d: nothing."""
    clean, worst = _line(noise, 0.0), _line(noise, 0.4)
    remains = (worst["win_rate"] - 0.5) / (clean["win_rate"] - 0.5)
    return Outcome(
        "a" if remains > 0.75 else "b" if remains > 0.25 else "c" if remains > 0 else "d",
        f"{clean['win_rate']:.1%} with clean labels, {worst['win_rate']:.1%} with 40 % wrong "
        f"({worst['low']:.1%} to {worst['high']:.1%}): {remains:.0%} of the gain",
    )


def robust_against_plain(noise: pd.DataFrame) -> Outcome:
    """With 40 % wrong labels robust DPO wins a: more often, b: as often, c: less often than DPO."""
    robust, plain = _line(noise, 0.4, "robust DPO")["win_rate"], _line(noise, 0.4)["win_rate"]
    ahead = robust - plain
    return Outcome(
        "a" if ahead > 0.02 else "c" if ahead < -0.02 else "b",
        f"robust DPO wins {robust:.1%}, DPO {plain:.1%}: {ahead:+.1%}",
    )


def what_wrong_labels_cost(noise: pd.DataFrame) -> list[Claim]:
    clean, fifth, worst = (_line(noise, rate) for rate in (0.0, 0.2, 0.4))
    spoilt = noise[noise["rate"] > 0]
    return [
        Claim(
            clean["win_rate"] > fifth["win_rate"] > worst["win_rate"],
            "the more labels are wrong, the less often DPO wins",
        ),
        Claim(
            fifth["low"] > 0.5,
            f"with a fifth of the labels wrong it still wins ({fifth['win_rate']:.1%}, at least "
            f"{fifth['low']:.1%})",
        ),
        Claim(
            (spoilt["wrong"] - spoilt["rate"]).abs().max() < 0.1,
            "the labels were wrong as often as they should be",
        ),
    ]


def where_long_training_ends(optima: Mapping[str, float]) -> list[Claim]:
    """optima: the margin that each loss is least at, in nats times beta."""
    clean, plain, robust = optima["DPO, clean labels"], optima["DPO"], optima["robust DPO"]
    return [
        Claim(
            abs(robust - clean) < 0.01,
            "in the end robust DPO reaches the margin that clean labels give",
        ),
        Claim(
            0 < plain < clean / 2,
            "DPO stays nearer to the reference, but ranks the pair the same way",
        ),
    ]


def more_labels(fits: pd.DataFrame, optima: Mapping[str, float]) -> Claim:
    """fits: `margin` and `spread` of fits to more and more labels; optima: as above."""
    timid, clean = optima["DPO"], optima["DPO, clean labels"]
    return Claim(
        fits["spread"].is_monotonic_decreasing and abs(fits["margin"].iloc[-1] - timid) < 0.01,
        f"more labels take away the noise; what is left is the timid margin, {timid:.2f} instead "
        f"of {clean:.2f}",
    )
