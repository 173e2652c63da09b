"""What the lab's studies show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ...common.statistics import Estimate, bootstrap_mean
from ..lab.record import SFT_ITSELF, compare_runs, reward_at, same_cell
from ..lab.studies import WRONG
from . import Claim, Outcome, with_interval

# 1. The frontier. points: as of `lab.record.points_of`.

LEVELS = (0.25, 0.5, 1.0)  # nats
TRUE, LEARNED = "RLOO, true reward", "RLOO, learned reward"


def sft_reward(points: pd.DataFrame) -> float:
    """The true reward of the SFT model itself, mean over seeds."""
    itself = points[(points["curve"] == SFT_ITSELF) & (points["place"] == 1)]
    return float(itself["reward"].mean())


def _highest(points: pd.DataFrame, method: str, kl: float) -> pd.Series:
    """Of a method's settings the highest reward at that KL, by seed."""
    found = reward_at(points[points["curve"].str.startswith((method, SFT_ITSELF))], kl)
    return found[found["curve"].str.startswith(method)].groupby("seed")["reward"].max()


def _leads(points: pd.DataFrame, method: str, other: str) -> dict[float, pd.Series]:
    """By KL, where both get so far: how much higher `method` is than `other`, by seed."""
    leads = {kl: _highest(points, method, kl) - _highest(points, other, kl) for kl in LEVELS}
    return {kl: lead.dropna() for kl, lead in leads.items() if len(lead.dropna())}


def _as_text(leads: Mapping[float, pd.Series]) -> str:
    return "; ".join(
        f"{lead.mean():+.3f} at a KL of {kl:g} (seeds {lead.min():+.3f} to {lead.max():+.3f})"
        for kl, lead in leads.items()
    )


def dpo_against_rlhf(points: pd.DataFrame) -> Outcome:
    """a: DPO is higher in each seed at each KL, b: RLHF with the true reward is, c: neither."""
    leads = _leads(points, "DPO", TRUE)
    every = pd.concat(leads.values())
    option = "a" if (every > 0).all() else "b" if (every < 0).all() else "c"
    return Outcome(option, f"DPO over RLHF with the true reward: {_as_text(leads)}")


def the_frontier(points: pd.DataFrame) -> list[Claim]:
    """What the figure shows besides: the optimum, the learned reward, how far each goes, and
    what is overdone.
    """
    level = {kl: reward_at(points, kl).groupby("curve")["reward"].mean() for kl in LEVELS}
    trained = {kl: _trained(at).max() for kl, at in level.items()}
    behind = _leads(points, "DPO", LEARNED)
    most = {method: _most(points, method) for method in ("DPO", TRUE)}
    ahead = most[TRUE] - most["DPO"]
    far = points[points["curve"] == "DPO, beta 0.05"].groupby("place")["reward"].mean()
    best = points[points["curve"] == "best of n, learned reward"].groupby("n")["reward"].mean()
    return [
        Claim(
            all(level[kl]["optimum"] > trained[kl] for kl in LEVELS),
            "no trained policy lies above the optimum: at "
            + "; ".join(
                f"a KL of {kl:g} {trained[kl]:.3f} of {level[kl]['optimum']:.3f}" for kl in LEVELS
            ),
        ),
        Claim(
            all((behind[kl] > 0).all() for kl in LEVELS[:2]),
            f"up to half a nat RLHF with the learned reward lies below DPO in each seed; DPO has "
            f"{_as_text(behind)}",
        ),
        Claim(
            (ahead > 0).all(),
            f"RLHF with the true reward gets to {most[TRUE].mean():.3f} in the end, DPO to "
            f"{most['DPO'].mean():.3f}",
        ),
        Claim(
            far.iloc[-1] < far.max() - 0.01,
            f"DPO at the lowest beta is overdone: it rises to {far.max():.3f} and ends at "
            f"{far.iloc[-1]:.3f}",
        ),
        Claim(
            best.iloc[-1] < best.max(),
            f"the learned reward can be overdone: the best of {best.index[-1]:.0f} by it has "
            f"{best.iloc[-1]:.3f}, the best of {best.idxmax():.0f} {best.max():.3f}",
        ),
    ]


def _trained(at: pd.Series) -> pd.Series:
    """The curves whose points are policies that were trained."""
    return at[~at.index.str.startswith(("optimum", "best of n", SFT_ITSELF))]


def _most(points: pd.DataFrame, method: str) -> pd.Series:
    """The highest reward of a method's checkpoints, by seed."""
    return points[points["curve"].str.startswith(method)].groupby("seed")["reward"].max()


# 2. Controls. Tables: as of `lab.record.win_table`, against what stands first.


def _line(table: pd.DataFrame, curve: str) -> pd.Series:
    return table.set_index("curve").loc[curve]


def _is_shown(line: pd.Series, sign: int) -> bool:
    """Whether a difference of that sign is shown, by its interval and by each seed."""
    return bool(line["shown"] and line["difference"] * sign > 0)


def closest_control(table: pd.DataFrame) -> Outcome:
    """Which wins most often. a: SFT on the best of 4, b: on the chosen, c: sampled cooler."""
    options = {
        "a": "SFT on the best of 4",
        "b": "SFT on the chosen",
        "c": "SFT, sampled cooler",
    }
    rates = {letter: _line(table, curve)["win rate"] for letter, curve in options.items()}
    said = ", ".join(f"{curve} {rates[letter]:.1%}" for letter, curve in options.items())
    return Outcome(max(rates, key=rates.get), f"{said}; DPO {_line(table, 'DPO')['win rate']:.1%}")


def what_explains(table: pd.DataFrame) -> list[Claim]:
    """Which of the controls have how much of DPO's lead over 50 %."""
    lead = _line(table, "DPO")["win rate"] - 0.5

    def share(curve: str) -> float:
        return (_line(table, curve)["win rate"] - 0.5) / lead

    def less(curve: str, what: str) -> Claim:
        found = f"{what} has {share(curve):.0%} of DPO's lead over 50 %"
        return Claim(_is_shown(_line(table, curve), -1), found)

    best, chosen = "SFT on the best of 4", "SFT on the chosen"
    return [
        less("DPO, labels by coin", "DPO on a coin's labels"),
        less("more SFT, as many steps", "more SFT, for as many steps,"),
        less("SFT, sampled cooler", "SFT, sampled cooler,"),
        Claim(
            share(chosen) > 0.5,
            f"SFT on the chosen responses has {share(chosen):.0%} of it: much is imitation",
        ),
        Claim(
            share(best) > 0.8,
            f"SFT on the best of four own answers has {share(best):.0%} of it: this win can be had "
            "without DPO, by whoever can say which of four answers is the best",
        ),
    ]


def reproduced(live: Mapping[str, Any], record: Mapping[str, Any]) -> Claim:
    """A run of now against the one that was recorded."""
    return Claim(*compare_runs(live, same_cell(record, live)))


# 3. The family.


def _clean(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["curve"].str.endswith(WRONG)]


def who_beats_dpo(table: pd.DataFrame) -> Outcome:
    """On right labels: a: no other loss, b: one or two, c: more."""
    others = _clean(table).query("curve != 'DPO'")
    better = others[others["shown"] & (others["difference"] > 0)]["curve"].tolist()
    worse = others[others["shown"] & (others["difference"] < 0)]["curve"].tolist()
    option = "c" if len(better) > 2 else "b" if better else "a"
    return Outcome(
        option,
        f"better: {', '.join(better) or 'none'}; worse: {', '.join(worse) or 'none'}",
    )


NOISY = ("DPO", "robust DPO", "KTO", "ORPO")  # of which a prediction asks


def kept_with_wrong_labels(table: pd.DataFrame) -> Outcome:
    """Which of `NOISY`, in their order, keeps most of its lead over 50 % with wrong labels."""
    lead = table.set_index("curve")["win rate"] - 0.5
    kept = {loss: lead[loss + WRONG] / lead[loss] for loss in NOISY}
    said = ", ".join(f"{loss} {share:.0%}" for loss, share in kept.items())
    most = max(kept, key=kept.get)
    return Outcome("abcd"[NOISY.index(most)], f"of their leads they keep: {said}")


def from_the_base(table: pd.DataFrame) -> list[Claim]:
    """Without an SFT model: ORPO has the SFT loss in it, SimPO has not."""
    orpo, simpo = (_line(table, f"{loss}, from the base") for loss in ("ORPO", "SimPO"))
    after = _line(table, "SimPO")
    return [
        Claim(
            orpo["low"] > 0.5,
            f"ORPO learns the task from the base model: it wins {orpo['win rate']:.1%} against SFT",
        ),
        Claim(
            simpo["high"] < 0.5 < after["low"],
            f"SimPO does not: {simpo['win rate']:.1%}, and {after['win rate']:.1%} after SFT",
        ),
    ]


# 4. Fresh answers.


def three_rounds(table: pd.DataFrame) -> Outcome:
    """Against one offline round of as many updates. a: better, b: not shown, c: worse."""
    line = _line(table, "three rounds, reference renewed")
    found = Estimate(line["difference"], line["difference low"], line["difference high"])
    option = "a" if _is_shown(line, 1) else "c" if _is_shown(line, -1) else "b"
    seeds = ", ".join(f"{rate:.1%}" for rate in line["seeds"])
    others = ", ".join(f"{rate:.1%}" for rate in _line(table, "one offline round")["seeds"])
    return Outcome(option, f"{with_interval(found, '+.1%')}; by seed {seeds} against {others}")


def fresh_answers(table: pd.DataFrame) -> list[Claim]:
    """What they are good for: training on, and a reward that knows the truth."""
    thrice = "thrice the updates"
    stale = _line(table, f"one offline round, {thrice}")
    fresh = _line(table, f"three rounds, renewed, {thrice}")
    grpo = _line(table, "GRPO, true reward")
    return [
        Claim(
            _is_shown(stale, -1) and min(fresh["seeds"]) > max(stale["seeds"]),
            f"with {thrice} one round wins {stale['win rate']:.1%} at a KL of {stale['kl']:.0f}, "
            f"and three rounds {fresh['win rate']:.1%} at {fresh['kl']:.1f}: fresh answers let one "
            "train on",
        ),
        Claim(
            _is_shown(grpo, 1),
            f"GRPO on the true reward wins {grpo['win rate']:.1%}",
        ),
    ]


def paid_more(before: Sequence[float], after: Sequence[float]) -> Claim:
    """The learner's own reward, of SFT's answers and of the policy's that was trained on it."""
    gain = bootstrap_mean([b - a for a, b in zip(before, after, strict=True)])
    return Claim(gain.low > 0, f"by your own reward the answers have gained {gain}")


def rubric_follows(course: pd.DataFrame, start_reward: float) -> Outcome:
    """The rubric's reward after training on another. a: up by 0.02 or more, b: stays, c: falls."""
    moved = course["reward"].iloc[-1] - start_reward
    option = "a" if moved > 0.02 else "c" if moved < -0.02 else "b"
    return Outcome(option, f"from {start_reward:.3f} to {course['reward'].iloc[-1]:.3f}")


# 5. How many pairs?


def where_it_saturates(table: pd.DataFrame, within: float = 0.02) -> Outcome:
    """From where more of all pairs give no 2 points. a: up to 100, b: up to 400, c: beyond."""
    rates = {
        int(line.curve.rsplit(", ", 1)[1]): line.rate
        for line in table.rename(columns={"win rate": "rate"}).itertuples()
        if line.curve.startswith("all, ")
    }
    most = max(rates.values())
    enough = min(n for n, rate in rates.items() if rate > most - within)
    option = "a" if enough <= 100 else "b" if enough <= 400 else "c"
    return Outcome(option, ", ".join(f"{n}: {rate:.1%}" for n, rate in rates.items()))


def which_pairs(table: pd.DataFrame) -> Outcome:
    """100 of them, against the first 100. a: the widest margins, b: one a prompt, c: not shown."""
    chosen = {"a": "widest, 100", "b": "one a prompt, 100"}
    found = {letter: _line(table, curve) for letter, curve in chosen.items()}
    better = {letter: line for letter, line in found.items() if _is_shown(line, 1)}
    option = max(better, key=lambda letter: better[letter]["difference"]) if better else "c"
    said = "; ".join(
        f"{chosen[letter]}: {line['difference']:+.1%} "
        f"({line['difference low']:+.1%} to {line['difference high']:+.1%})"
        for letter, line in found.items()
    )
    return Outcome(option, f"against the first 100, {said}")
