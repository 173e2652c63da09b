"""What session C's results show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...common.statistics import Estimate, bootstrap_mean, prompts_needed
from ..gap import rank_correlation
from ..recorded import GREEDY, LEFT_OUT, SECOND_ROUND, SHUFFLED
from . import Claim, Outcome, by_interval, lab, with_interval

if TYPE_CHECKING:
    from ...evaluation import WinRate
    from ...tasks import Task
    from ..gallery import Recorded

Points = Sequence[float | None]  # of a win rate: a number for each prompt, None without a verdict

# 2. The table. Tables: as of `comparison_table`.


def with_more_prompts(scores: pd.DataFrame, table: pd.DataFrame, small: pd.DataFrame) -> Outcome:
    """With all prompts the intervals are a: a tenth, b: about a third, c: as wide.

    scores: of all prompts; table, small: of all, and of the first thirty.
    """
    n = scores["row"].nunique()
    shares = [name for name in table.index if scores[name].dropna().between(0, 1).all()]
    wide, narrow = ((each["high"] - each["low"])[shares].mean() for each in (small, table))
    ratio = narrow / wide
    return Outcome(
        "a" if ratio < 0.2 else "b" if ratio < 0.5 else "c",
        f"on average {narrow:.3f} wide, not {wide:.3f}: {ratio:.0%} "
        f"(√(30/{n}) is {(30 / n) ** 0.5:.0%})",
    )


def truer_than_sft(table: pd.DataFrame, task: Task) -> list[Claim]:
    """Of the metrics that know the truth, at least half are higher, and so is the overall score."""
    truths = [metric.name for metric in task.metrics if metric.kind == "truth"]
    higher = table.loc[truths].query("low > 0")
    overall = table.loc["overall"]
    return [
        Claim(
            len(higher) >= len(truths) / 2,
            "; ".join(
                f"{name} is higher than SFT's ({row.difference:+.2f}, at least {row.low:+.2f})"
                for name, row in higher.iterrows()
            )
            or "half of what is true of the answers got better",
        ),
        Claim(
            overall["low"] > 0,
            f"overall SFT+DPO scores higher ({overall['difference']:+.2f}, at least "
            f"{overall['low']:+.2f})",
        ),
    ]


def same_interval(low: float, high: float, line: pd.Series) -> Claim:
    """An interval by hand, and the table's line for the same difference."""
    return Claim(
        abs(low - line["low"]) < 0.01 and abs(high - line["high"]) < 0.01,
        f"by hand: {low:+.3f} to {high:+.3f}; in the table: {line['low']:+.3f} to "
        f"{line['high']:+.3f}",
    )


def pairing_narrows(paired: float, separate: float, correlation: float) -> Claim:
    """The widths of the two intervals, and how far the models' scores go together (no NaN)."""
    return Claim(
        (paired < separate) == (correlation > 0) and correlation == correlation,
        "pairing narrows the interval exactly where the two models' scores go together",
    )


# 3. Response against response.


def dpo_wins(result: WinRate) -> list[Claim]:
    won = result.estimate
    return [
        Claim(won.value >= 0.6, f"SFT+DPO wins at least 60 % ({won.value:.1%})"),
        Claim(won.low > 0.5, f"the lower end of the interval, {won.low:.1%}, is above one half"),
    ]


def what_else_explains(controls: pd.DataFrame) -> list[Claim]:
    """What the lab finds in its controls."""
    return lab.what_explains(controls)


# 4. How many prompts?


def thirty_are_enough(by_prompts: pd.DataFrame, n: int) -> Outcome:
    """Thirty of `n` prompts show the lead a: nearly always, b: mostly, c: not reliably.

    by_prompts: as of `interval_by_prompts`, of the win rate minus one half.
    """
    line = by_prompts.set_index("n").loc[min(30, n)]
    often = line["shown"]
    return Outcome(
        "a" if often > 0.95 else "b" if often >= 0.8 else "c",
        f"in {often:.0%} of the draws; the estimates go from {0.5 + line['estimate low']:.0%} "
        f"to {0.5 + line['estimate high']:.0%}",
    )


# 5. Is it only longer?


def longer_chosen(points: Points, longer: Sequence[float], truth: Points) -> list[float]:
    """1 or 0 for each pair that ties in truth: did the judge choose the longer response?

    longer: candidate's length minus the baseline's. Pairs of one length, and those on which the
    judge did not choose, are left out.
    """
    return [
        float((point > 0.5) == (more > 0))
        for point, more, right in zip(points, longer, truth, strict=True)
        if right == 0.5 and point not in (0.5, None) and more != 0
    ]


def taste_for_length(judge: str, chosen: Sequence[float], taste: float | None) -> str:
    """chosen: as of `longer_chosen`; taste: its mean, by the learner's function."""
    if not chosen:
        return (
            "no pair is a tie in truth and differs in length: a taste for length cannot be "
            "seen here"
        )
    sure = bootstrap_mean(chosen, within=(0, 1))
    verdict = "a taste for length" if sure.low > 0.5 else "so few pairs show nothing by themselves"
    return (
        f"where the truth is a tie, {judge!r} prefers the longer one in {taste:.0%} "
        f"({sure.low:.0%} to {sure.high:.0%}) of {len(chosen)} pairs: {verdict}"
    )


def at_equal_length(by_judge: pd.DataFrame) -> list[Claim]:
    """by_judge: `win rate`, `from`, `to`; `length-controlled`, `low`, `high`; a line a judge."""
    truth, tempted = by_judge.loc["truth"], by_judge.loc["likes length"]
    return [
        Claim(
            truth["low"] > 0.5,
            "at equal length SFT+DPO still wins, so it is not the length alone",
        ),
        Claim(
            tempted["to"] < truth["from"] and tempted["low"] > 0.5,
            f"the judge who likes length sees less of a win ({tempted['win rate']:.0%}, at most "
            f"{tempted['to']:.0%}); at equal length SFT+DPO wins with that judge too "
            f"({tempted['length-controlled']:.0%}, at least {tempted['low']:.0%})",
        ),
    ]


# 6. Other judges.


def lead_is_understated(found: WinRate, truth: WinRate, errors: float) -> Claim:
    """A share `errors` of wrong verdicts, either way, shrinks the lead by twice as much."""
    expected = 0.5 + (1 - 2 * errors) * (truth.estimate.value - 0.5)
    return Claim(
        abs(found.estimate.value - expected) < 0.06,
        f"expected with such errors: {expected:.1%}; the lead is understated, not invented",
    )


def better_ranker(ahead: Estimate, pairs: Sequence[Mapping[str, Any]]) -> Outcome:
    """Ranks more pairs right, a: the reward model, b: DPO's implicit reward, c: neither.

    ahead: the reward model's share minus the other's, on these pairs.
    """
    prompts = len({row["prompt"] for row in pairs})
    return Outcome(
        by_interval(ahead, above="a", below="b", neither="c"),
        "the reward model's share minus the implicit reward's is "
        f"{with_interval(ahead, '+.1%')}, on {len(pairs)} pairs from {prompts} prompts",
    )


def length_misleads(moved: Estimate) -> Claim:
    """moved: the win rate by a judge who likes length, minus that by the truth."""
    return Claim(
        moved.high < -0.05,
        "the judge who likes length moves the reported win rate by more than five points "
        f"({with_interval(moved, '+.1%')})",
    )


# 7. Does the reward gap predict the win?


def what_wide_gaps_mean(correlation: Estimate, checkpoints: int) -> Outcome:
    """Wider gaps mean a: more wins, b: nothing clear, c: fewer. correlation: of gap and wins."""
    low, high = correlation.low, correlation.high
    return Outcome(
        by_interval(correlation, above="a", below="c", neither="b"),
        f"rank correlation {correlation.value:+.2f} ({low:+.2f} to {high:+.2f}) over {checkpoints} "
        "checkpoints",
    )


def gap_misleads(final: pd.DataFrame) -> list[Claim]:
    """final: a line a run, with `gap`, `win_rate`, and whether the gap `lied`."""
    liars = final[final["lied"]]
    healthy = final[final["run"] == "healthy"].iloc[0]
    widest = final.loc[final["gap"].idxmax()]
    return [
        Claim(
            len(liars) > 0,
            f"the gap lied in {', '.join(liars['run'])}: it is at least the healthy run's, and "
            "they lose",
        ),
        Claim(
            widest["win_rate"] < healthy["win_rate"],
            "the widest gap of all is not the best run",
        ),
    ]


def own_sweep(runs: pd.DataFrame) -> str:
    """What the runs of session B show of gap and win rate; runs: as of `kept_trials`."""
    found = rank_correlation(runs.assign(run=range(len(runs)), seed=0), "gap")
    widest = runs.loc[runs["gap"].idxmax()]
    return (
        f"rank correlation {found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})\n"
        f"the widest gap: {widest['gap']:.1f} nats, at learning rate {widest['learning_rate']:g}, "
        f"with a win rate of {widest['win_rate']:.1%}; the highest win rate: "
        f"{runs['win_rate'].max():.1%}"
    )


# 8. What did it cost elsewhere? Capability: as of `capability_table`, before the base model.


def still_follows(capability: pd.DataFrame) -> Outcome:
    """SFT+DPO follows other instructions a: nearly always, b: mostly, c: less than half."""
    followed = capability.loc["other instructions followed"]
    share = followed["SFT+DPO"]
    return Outcome(
        "a" if share >= 0.9 else "b" if share >= 0.5 else "c",
        f"{share:.0%}; base {followed['base']:.0%}, SFT {followed['SFT']:.0%}",
    )


def sft_has_cost(capability: pd.DataFrame) -> Claim:
    return Claim(
        capability.loc["perplexity of notes", "SFT low"] > 1,
        "SFT has cost the model some of what it knew",
    )


def stays_near_sft(kl: Estimate, tokens: float, limit: float) -> Claim:
    """kl: nats a response of so many tokens; limit: nats a token that the red flags allow."""
    return Claim(
        kl.high / tokens < limit,
        f"KL from SFT: {kl.value:.2f} nats a response (95 % interval {kl.low:.2f} to "
        f"{kl.high:.2f}), or {kl.value / tokens:.3f} a token; the red flags say *running away* "
        f"from {limit} on",
    )


# 9. The failure gallery. Cases: recorded runs with `end`, by letter.


def healthy_run(cases: Mapping[str, Recorded], winners: Sequence[str]) -> Outcome:
    """Which of the runs that beat SFT is the healthy one, and what the others are."""
    healthy = next(name for name, run in cases.items() if run.condition.disease == "healthy")
    return Outcome(healthy, ", ".join(f"{name}: {cases[name].condition.name}" for name in winners))


def lost_to_sft(cases: Mapping[str, Recorded]) -> list[str]:
    """The letters of the runs whose whole interval lies below one half."""
    return [name for name, run in cases.items() if run.end.win_rate[2] < 0.5]


def with_a_good_margin(cases: Mapping[str, Recorded]) -> str:
    """Which runs lose to SFT for sure, and in which of these the margin does not show it."""
    lost = lost_to_sft(cases)
    fine = [name for name in lost if cases[name].metrics["held/margin"].iloc[-1] >= 0.1]
    return (
        f"lose to SFT for sure: {', '.join(lost)}; of these the margin still looks good in: "
        f"{', '.join(fine) or 'none'}"
    )


def worse_than_none(cases: Mapping[str, Recorded]) -> Claim:
    lost = lost_to_sft(cases)
    return Claim(len(lost) >= 2, f"{len(lost)} of {len(cases)} runs are worse than no DPO at all")


# 10. The same week on a real model.


def real_model_wins(won: Estimate) -> Outcome:
    """On the real model SFT+DPO a: wins, b: does neither for sure, c: loses."""
    return Outcome(
        by_interval(won, above="a", below="c", neither="b", at=0.5), with_interval(won, ".1%")
    )


def without_their_lesson(unknown: pd.DataFrame) -> Outcome:
    """Trained without the pairs that praise it, SFT+DPO says "unknown" where a change is named
    a: about as often, b: about half as often, c: hardly ever.

    unknown: how often each model says so, as from `unknown_by_alert`.
    """
    line = unknown.loc["names a change"]
    before, after = line["SFT+DPO"], line[LEFT_OUT]
    ratio = after / before
    return Outcome(
        "c" if ratio < 0.2 else "b" if ratio < 0.75 else "a",
        f"{after:.0%} of them, and {before:.0%} with the pairs",
    )


def second_round_tells_when(lessons: pd.DataFrame, unknown: pd.DataFrame) -> list[Claim]:
    """The second round's pairs blame "unknown" where it is wrong; its model says it where it may be
    right.

    lessons: of these pairs, as from `lessons_on_unknown`; unknown: as from `unknown_by_alert`.
    """
    wrong = lessons.loc["names a change"]
    praised, blamed = wrong["only the chosen says unknown"], wrong["only the rejected does"]
    change, none = unknown[SECOND_ROUND][["names a change", "names none"]]
    return [
        Claim(
            blamed > 2 * praised,
            f"where a change is named, {blamed} pairs blame unknown and {praised} praise it",
        ),
        Claim(
            none - change > 0.25,
            f"then it says unknown in {change:.0%} of the cases where a change is named, and in "
            f"{none:.0%} of those where none is",
        ),
    ]


def second_round_helps(rounds: WinRate, over_sft: WinRate, against: pd.DataFrame) -> list[Claim]:
    """The second round beats the first; against SFT it stays open; what else could explain it?

    rounds, over_sft: of the second round's model; against: as from `controls`.
    """
    won, lead = rounds.estimate, over_sft.estimate.value - 0.5
    needed = prompts_needed(over_sft.rated, abs(lead)) if lead else math.inf
    shuffled, greedy = against["win rate"][[SHUFFLED, GREEDY["SFT"]]]
    return [
        Claim(won.low > 0.5, f"the second round beats the first: {with_interval(won, '.1%')}"),
        Claim(
            over_sft.estimate.low < 0.5 < over_sft.estimate.value,
            f"whether it beats SFT stays open on {len(over_sft.rated)} prompts: a lead of "
            f"{lead:.1%} would take some {needed}",
        ),
        Claim(shuffled < 0.5, f"labels at random do not win: {shuffled:.1%}"),
        Claim(
            greedy > over_sft.estimate.low,
            f"SFT alone, answering greedily, wins {greedy:.1%} against itself at temperature 0.7: "
            "a lead of this size is had for nothing",
        ),
    ]
