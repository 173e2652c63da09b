"""The studies: which cells each question needs, the same number of updates in all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Curve = tuple[str, str, dict[str, Any]]  # name, method, settings

PROMPTS, EVALUATION = 250, 300  # rows to train on, and to measure by
QUICK_PROMPTS, QUICK_STEPS = 24, 12  # the first update, at a rate of 0, changes nothing
ONLINE = {"learning_rate": 1e-3}  # twice DPO's; half of it was tried with one seed: the same curves
CHECKPOINTS = 6  # of a run
THRICE = 216  # updates, of rounds that have as many each as a whole run elsewhere
FAR = 108  # updates of the frontier, three times through the triples: where curves bend


@dataclass(frozen=True)
class Cell:
    """One run. curve: what the figures call it; method: one of `METHODS`; settings: its own."""

    curve: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    times: int = CHECKPOINTS


def _frontier() -> list[Curve]:
    """The curves of the DPO paper's figure 2 (left), and what they are to be compared with."""
    trained = [
        *((f"DPO, beta {beta:g}", "DPO", {"beta": beta}) for beta in (0.05, 0.1, 1.0, 5.0)),
        ("preferred-FT", "preferred-FT", {}),
        *(
            (f"unlikelihood, alpha {weight:g}", "unlikelihood", {"weight": weight})
            for weight in (0.05, 0.1, 0.5, 1.0)
        ),
        *(
            (
                f"RLOO, {reward} reward, beta {beta:g}",
                f"RLOO, {reward} reward",
                {"beta": beta, **ONLINE},
            )
            for reward, betas in (("learned", (0.05, 0.2)), ("true", (0.01, 0.05)))
            for beta in betas
        ),
    ]
    return [
        *((name, method, {**settings, "steps": FAR}) for name, method, settings in trained),
        # The first of these is the SFT model itself.
        ("SFT, cooler", "SFT, cooler", {"temperatures": [1.0, 0.85, 0.7, 0.5, 0.3]}),
        ("best of n, learned reward", "best of n", {"reward": "learned"}),
        ("best of n, true reward", "best of n", {"reward": "true"}),
        ("optimum", "optimum", {"betas": [1.0, 0.3, 0.15, 0.1, 0.07, 0.05]}),
    ]


def _controls() -> list[Curve]:
    """What else could explain that DPO's model beats SFT's?"""
    return [
        ("DPO", "DPO", {}),
        ("SFT on the chosen", "preferred-FT", {}),
        ("SFT on the best of 4", "preferred-FT", {"rows": "best of 4"}),
        ("more SFT, as many steps", "preferred-FT", {"rows": "demonstrations"}),
        ("SFT, sampled cooler", "SFT, cooler", {"temperatures": [0.5]}),
        ("DPO, labels by coin", "DPO", {"wrong": 0.5}),
        ("DPO, pairs of one temperature", "DPO", {"one_temperature": True}),
    ]


FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "DPO": ("DPO", {}),
    # TRL's IPO and its normalised DPO count by the token: IPO's target is half a nat of each.
    "IPO": ("DPO", {"loss_type": "ipo", "beta": 1.0}),
    "robust DPO": ("DPO", {"loss_type": "robust", "label_smoothing": 0.3}),
    "DPO with an SFT term": (
        "DPO",
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]},
    ),
    "DPO, normalised by length": ("DPO", {"loss_type": "sigmoid_norm", "beta": 2.0}),
    "KTO": ("KTO", {}),
    "ORPO": ("ORPO", {"weight": 0.5}),
    "ORPO, from the base": ("ORPO", {"weight": 0.5, "from_base": True}),
    "SimPO": ("SimPO", {"beta": 2.0, "gamma": 0.5}),
    "SimPO, from the base": ("SimPO", {"beta": 2.0, "gamma": 0.5, "from_base": True}),
}
RATES = (2e-4, 5e-4, 1e-3)  # of the search, in which the other settings stay
NEAR = 1.0  # nats a response: what a rate of the search may cost
WRONG = ", 30 % wrong labels"  # what is added to the curve's name


def _family() -> list[Curve]:
    """Every loss at every rate: the search, of which `at_best_rates` makes the study."""
    return [
        (name, method, {**settings, "learning_rate": rate})
        for name, (method, settings) in FAMILY.items()
        for rate in RATES
    ]


def at_best_rates(searched: Sequence[dict[str, Any]]) -> list[Curve]:
    """Every loss at the rate that won its search, on clean labels and on 30 % wrong ones.

    The rate with the highest reward among those that stay `NEAR` SFT; if none does, among all. A
    higher rate may have more reward with the search's one seed, and run away with the next.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for result in searched:
        runs.setdefault(result["curve"], []).append(result)
    best = {name: max(_near(of) or of, key=_reward) for name, of in runs.items()}
    return [
        (name + said, result["method"], {**result["settings"], "wrong": wrong})
        for name, result in best.items()
        for wrong, said in ((0.0, ""), (0.3, WRONG))
    ]


def _near(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in results if result["points"][-1]["kl"] <= NEAR]


def _reward(result: dict[str, Any]) -> float:
    """The true reward at the end of a run."""
    return result["points"][-1]["reward"]


def _on_policy() -> list[Curve]:
    """Rounds on fresh answers against one round on the SFT model's, at as many judge calls."""
    return [
        ("one offline round", "DPO", {}),
        ("three rounds, reference kept", "iterative DPO", {"renew": False}),
        ("three rounds, reference renewed", "iterative DPO", {"renew": True}),
        ("one offline round, thrice the updates", "DPO", {"steps": THRICE}),
        (
            "three rounds, renewed, thrice the updates",
            "iterative DPO",
            {"renew": True, "steps": THRICE},
        ),
        ("online DPO", "online DPO", {"beta": 0.1}),
        ("GRPO, true reward", "GRPO, true reward", {"beta": 0.0, **ONLINE}),
        ("GRPO, true reward, beta 0.05", "GRPO, true reward", {"beta": 0.05, **ONLINE}),
    ]


def _data() -> list[Curve]:
    """DPO on more and more triples: all, those of the widest margins, or one a prompt."""
    sizes = {
        "all": (25, 100, 200, 400, 800, 2000),
        "widest": (25, 100, 400),
        "one a prompt": (25, 100, 400),
    }
    return [
        (f"{choice}, {n}", "DPO", {"n": n, "choice": choice})
        for choice, counts in sizes.items()
        for n in counts
    ]


@dataclass(frozen=True)
class Study:
    """A question. curves: of its figure or table; times: checkpoints a run; prompts: to train on.

    search: the curves differ in the learning rate as well, and are run once on rows of their own;
    the study is what `at_best_rates` makes of that.
    """

    question: str
    curves: Callable[[], list[Curve]]
    times: int
    prompts: int = PROMPTS
    search: bool = False


STUDIES = {
    "frontier": Study("How much true reward at which KL?", _frontier, times=CHECKPOINTS),
    "controls": Study("What else could explain DPO's win?", _controls, times=1),
    "family": Study("Which loss, at its best rate?", _family, times=1, search=True),
    "on-policy": Study("What do fresh answers add?", _on_policy, times=3),
    "data": Study("How many pairs?", _data, times=1, prompts=900),
}


def cells_of(curves: Sequence[Curve], seeds: Sequence[int], times: int) -> list[Cell]:
    """The grid, seed by seed: stopped after the first, there is one of everything."""
    return [
        Cell(curve, method, settings, seed, times)
        for seed in seeds
        for curve, method, settings in curves
    ]


UNTRAINED = ("SFT, cooler", "best of n", "optimum")  # methods that take no steps


def shortened(curve: Curve) -> Curve:
    """The same in a few steps, to see that it runs. The numbers mean nothing."""
    name, method, settings = curve
    short: dict[str, Any] = {} if method in UNTRAINED else {"steps": QUICK_STEPS}
    if method in ("best of n", "optimum"):
        short["samples"] = 4
    if "n" in settings:
        short["n"] = min(settings["n"], 25)
    return name, method, {**settings, **short}
