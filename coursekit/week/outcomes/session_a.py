"""What session A's results show."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ...common.statistics import Estimate, bootstrap_mean
from ...lm.memory_budget import GIB
from ..bandit import excess_regret
from . import Claim, Outcome, by_interval

# 1. Why preferences?


def _of(model: str, scores: pd.DataFrame, metric: str) -> pd.Series:
    """One model's score of each prompt."""
    return scores[scores["model"] == model].set_index("row")[metric]


def without_fault(scores: pd.DataFrame) -> Outcome:
    """a: nearly all of SFT's answers, b: some, c: hardly any. scores: as of `score_responses`."""
    faultless = bootstrap_mean(_of("SFT", scores, "overall") == 1, within=(0, 1))
    share = faultless.value
    return Outcome(
        "a" if share > 0.8 else "c" if share < 0.2 else "b",
        f"a share of {faultless} is without fault (in brackets the 95 % interval over prompts)",
    )


def sft_taught_the_task(scores: pd.DataFrame) -> Claim:
    gain = bootstrap_mean(_of("SFT", scores, "overall") - _of("base", scores, "overall"))
    return Claim(
        gain.low > 0.1, f"SFT has taught the task: its overall score is {gain} above the base's"
    )


def sft_invents_causes(scores: pd.DataFrame) -> Claim:
    faithful = bootstrap_mean(_of("SFT", scores, "faithfulness"), within=(0, 1))
    return Claim(
        faithful.high < 0.9,
        f"SFT has not taught it to say 'unknown'; it invents causes: faithfulness {faithful}",
    )


# 2. RLHF in three stages. Paths: by beta, as of `bandit.overoptimise`.


def _means(path: pd.DataFrame) -> pd.DataFrame:
    """Over worlds, at each step."""
    return path.groupby("step")[["kl", "proxy", "true"]].mean()


def proxy_climbed(paths: Mapping[float, pd.DataFrame]) -> Outcome:
    """With the KL term off the true reward a: stays up, b: rises and falls, c: never rises."""
    off = _means(paths[0.0])
    top, end = off["true"].max(), off["true"].iloc[-1]
    return Outcome(
        "c" if top < 0.1 else "b" if end < top - 0.1 else "a",
        f"on average it goes from 0 up to {top:.2f} and ends at {end:.2f}, while the proxy climbs "
        f"to {off['proxy'].iloc[-1]:.2f}",
    )


def kl_term_holds_back(paths: Mapping[float, pd.DataFrame]) -> list[Claim]:
    """Without a KL term the true reward falls in most worlds; with one it falls less, or not."""
    off, weak, on = (_means(paths[beta]) for beta in (0.0, 0.3, 1.0))
    top, end = off["true"].max(), off["true"].iloc[-1]
    single = paths[0.0].groupby("seed")["true"]
    falls = (single.max() - single.last() > 0.1).sum()
    kept = bootstrap_mean(paths[1.0].groupby("seed")["true"].last())
    stays_near = on["kl"].iloc[-1] < off["kl"].iloc[-1] / 5
    return [
        Claim(
            falls >= 0.75 * single.ngroups,
            f"the true reward falls from its maximum in {falls} of {single.ngroups} worlds",
        ),
        Claim(
            off["proxy"].is_monotonic_increasing,
            "the proxy never stops rising, so it cannot warn you",
        ),
        Claim(
            end < weak["true"].iloc[-1] < top - 0.1,
            "with beta 0.3 it falls as well, but less far",
        ),
        Claim(
            kept.value > on["true"].max() - 0.05 and stays_near,
            f"with beta 1 the policy stays near the reference ({on['kl'].iloc[-1]:.1f} nats, not "
            f"{off['kl'].iloc[-1]:.1f}) and keeps what it gained ({kept} over worlds)",
        ),
    ]


def same_if_stopped(beta: float, ends: pd.Series, stopped: pd.Series) -> Claim:
    """ends, stopped: true rewards by world, with a KL term and without one at the same KL."""
    return Claim(
        (ends - stopped).abs().max() < 0.01,
        f"beta {beta:g} ends at a true reward of {ends.mean():.3f}; without a KL term, stopped at "
        f"the same KL: {stopped.mean():.3f}",
    )


def full_dpo_of_7b(recipes: pd.DataFrame, table: pd.DataFrame) -> list[Claim]:
    """recipes: as of `recipe_table(7e9)`; table: as of `memory_table`, with the same model."""
    total = recipes["total"]
    mixed = total["bf16, fp32 master copy"]
    return [
        Claim(
            mixed == table.loc[("7B", "DPO"), "total"],
            f"before activations, {mixed:.0f} GiB by the recipe of the table above, "
            f"{total['all bf16']:.0f} with everything in bf16 (where small updates may be rounded "
            f"away), {total['all fp32']:.0f} for a model loaded in fp32",
        ),
        Claim(
            (total[["bf16, fp32 master copy", "all fp32"]] > 80e9 / GIB).all()
            and total["all bf16"] <= 80e9 / GIB,
            "only the recipe with everything in bf16 fits on a card of 80 GB",
        ),
    ]


def vocabulary_counts(small: float, large: float) -> Claim:
    """GiB of QLoRA with few and with many of the weights in embeddings and head."""
    return Claim(
        large > 1.15 * small,
        f"QLoRA of an 8B model: {small:.1f} GiB with 4 % of the weights in embeddings and head, "
        f"{large:.1f} with 13 % (a vocabulary of 128,000, as Llama 3 has)",
    )


# 4. Beta from both sides.


def sides_of_beta(gradients: Mapping[float, float], kls: Mapping[float, float]) -> Outcome:
    """a: beta 0.1 has both, b: 0.1 the larger gradient and 1.0 the farther optimum, c: the reverse.

    gradients: norm of the first gradient, by beta; kls: of the optimum from the reference, nats.

    Raises KeyError if 1.0 has both: no option says that.
    """
    harder, farther = max(gradients, key=gradients.get), max(kls, key=kls.get)
    return Outcome(
        {(0.1, 0.1): "a", (0.1, 1.0): "b", (1.0, 0.1): "c"}[harder, farther],
        f"gradient norms {gradients[0.1]:.3f} and {gradients[1.0]:.3f}; "
        f"optima at {kls[0.1]:.2f} and {kls[1.0]:.2f} nats",
    )


# 6. DPO against RLHF. Results: as of `bandit.compare_estimators`.


def where_half_is_unseen(results: pd.DataFrame) -> Outcome:
    """a: DPO is nearer to the optimum, b: the reward model, c: neither."""
    unseen = bootstrap_mean(excess_regret(results).loc["half never seen"])
    return Outcome(
        by_interval(unseen, above="b", below="a", neither="c"),
        f"DPO's regret is {unseen.value:+.3f} above the other's "
        f"(95 % interval {unseen.low:+.3f} to {unseen.high:+.3f})",
    )


def who_is_nearer(results: pd.DataFrame) -> list[Claim]:
    """With plenty of pairs both; with few the reward model; and DPO, if that is blind."""
    excess = excess_regret(results)
    few, blind = (bootstrap_mean(excess.loc[name]) for name in ("few pairs", "reward model blind"))
    plenty = results[results["condition"] == "plenty of pairs"].groupby("method")["regret"].mean()
    return [
        Claim(
            (plenty[["DPO", "RLHF"]] < 0.01).all(), "with plenty of pairs both reach the optimum"
        ),
        Claim(few.low > 0, "with few pairs, a reward model whose features fit is nearer"),
        Claim(
            blind.high < 0, "a reward model that cannot express the truth stays wrong; DPO does not"
        ),
    ]


def ridge_decides_little(by_ridge: Mapping[float, Estimate]) -> list[Claim]:
    """by_ridge: DPO's regret minus the other's, by the ridge of both fits, the weakest first."""
    weakest, next_one, *_ = by_ridge.values()
    return [
        Claim(
            all(excess.low > 0 for excess in by_ridge.values()),
            "with each, the reward model is nearer",
        ),
        Claim(weakest.low > next_one.high, "DPO suffers most from a weak ridge"),
    ]
