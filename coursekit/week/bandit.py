"""The exact world: a few prompts, tens of responses each, every probability written down.

Here nothing is estimated unless we choose to: policies are tables, expectations are sums, and the
optimum of the RLHF objective is known in closed form. What the DPO paper derives can be checked to
many digits, and what training on pairs costs can be measured against the truth.

Tables are float64 tensors of shape (X, Y): X prompts, Y responses. Policies are tables of
log-probabilities whose rows sum to one in probability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..lm.losses import dpo_loss, kto_loss

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class World:
    """log_reference: log pi_ref(y | x), (X, Y); reward: the true r(x, y), (X, Y); features: what a
    reward model may see of each response, (X, Y, D), in which the true reward is linear.
    """

    log_reference: Tensor
    reward: Tensor
    features: Tensor


def make_world(
    n_prompts: int = 3, n_responses: int = 12, n_features: int = 3, seed: int = 0
) -> World:
    """A random world: normal features, a reward linear in them with variance 1, a reference that
    is a softmax of independent normal numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = n_prompts, n_responses
    features = torch.randn(*shape, n_features, generator=generator, dtype=torch.float64)
    direction = torch.randn(n_features, generator=generator, dtype=torch.float64)
    reference = torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1)
    return World(reference, features @ (direction / direction.norm()), features)


def make_tempting_world(
    n_prompts: int = 3, n_responses: int = 60, n_features: int = 8, seed: int = 0
) -> World:
    """A world that tempts a reward model: what looks best lies where nobody has been.

    Responses near the origin of feature space are common under the reference. Their reward grows
    along one direction, which is all that a linear reward model can learn; far from the origin a
    penalty grows with the square, which it cannot. (As with length: in the usual range longer is
    better, and very long is bad.) The reference's expected reward is 0.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = n_prompts, n_responses
    reach = 1.6 * torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
    features = reach * torch.randn(*shape, n_features, generator=generator, dtype=torch.float64)
    direction = torch.randn(n_features, generator=generator, dtype=torch.float64)
    distance = (features**2).sum(-1)
    log_reference = (-distance / 2).log_softmax(-1)
    reward = 1.5 * features @ (direction / direction.norm()) - 1.5 * distance / n_features
    return World(log_reference, reward - expected_reward(log_reference, reward)[:, None], features)


def expected_reward(log_policy: Tensor, reward: Tensor) -> Tensor:
    """E[r(x, y)] for y from the policy, at each prompt, (X,)."""
    return (log_policy.exp() * reward).sum(-1)


def kl_divergence(log_policy: Tensor, log_reference: Tensor) -> Tensor:
    """KL(pi || pi_ref) at each prompt, in nats, (X,)."""
    return (log_policy.exp() * (log_policy - log_reference)).sum(-1)


def objective(log_policy: Tensor, log_reference: Tensor, reward: Tensor, beta: float) -> Tensor:
    """What RLHF *maximises*: expected reward minus beta times KL, averaged over prompts, scalar.

    DPO paper (arXiv:2305.18290), equation 3.
    """
    kl = kl_divergence(log_policy, log_reference)
    return (expected_reward(log_policy, reward) - beta * kl).mean()


def optimal_policy(log_reference: Tensor, reward: Tensor, beta: float) -> Tensor:
    """The objective's maximiser, log of pi_ref exp(r / beta) / Z, (X, Y) (DPO paper, equation 4).

    Raises ValueError unless beta > 0: without the KL term the best response takes all.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}: it must be greater than 0")
    return (log_reference + reward / beta).log_softmax(-1)


def log_partition(log_reference: Tensor, reward: Tensor, beta: float) -> Tensor:
    """log Z(x), the logarithm of the sum over y of pi_ref(y | x) exp(r(x, y) / beta), (X,)."""
    return (log_reference + reward / beta).logsumexp(-1)


def total_variation(log_policy: Tensor, log_other: Tensor) -> Tensor:
    """Half the summed absolute difference of probabilities, from 0 to 1, at each prompt, (X,)."""
    return (log_policy.exp() - log_other.exp()).abs().sum(-1) / 2


def maximise(value: Callable[[Tensor], Tensor], start: Tensor, steps: int = 3000) -> Tensor:
    """The tensor near `start` at which the scalar `value` is greatest, by L-BFGS.

    Knows nothing of closed forms: it follows autograd's gradient, in float64. Raises RuntimeError
    if the gradient has not vanished after `steps` steps.
    """
    point = start.detach().clone().double().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [point],
        max_iter=steps,
        tolerance_grad=1e-10,
        tolerance_change=1e-16,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -value(point)
        loss.backward()
        return loss

    optimizer.step(closure)
    closure()
    if not point.grad.abs().max() < 1e-5:
        raise RuntimeError(
            f"not at a maximum after {steps} steps (gradient {point.grad.abs().max():.1e}): the "
            "function may grow without bound, as a likelihood does for choices that never vary"
        )
    return point.detach()


@dataclass(frozen=True)
class Pairs:
    """N judged pairs: the index of the prompt, of the chosen and of the rejected response, (N,)."""

    prompts: Tensor
    chosen: Tensor
    rejected: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def tally(self) -> tuple[Pairs, Tensor]:
        """Each different pair once, and its share of all: the same likelihood, much faster."""
        table = torch.stack([self.prompts, self.chosen, self.rejected])  # (3, N)
        size = int(table.max()) + 1 if len(self) else 1
        # One number a pair, since `unique` of rows takes four times as long.
        numbers = (table[0] * size + table[1]) * size + table[2]
        unique, counts = numbers.unique(return_counts=True)
        different = Pairs(unique // size**2, unique // size % size, unique % size)
        return different, counts.double() / max(len(self), 1)


def sample_pairs(
    world: World,
    n: int,
    seed: int = 0,
    *,
    log_behaviour: Tensor | None = None,
    flipped: float = 0.0,
) -> Pairs:
    """`n` pairs of different responses, drawn from a policy and judged as Bradley and Terry say.

    The first of two responses wins with probability sigmoid(r_1 - r_2); then a share `flipped` of
    the labels is turned around. `log_behaviour`, (X, Y), is the policy that responds; without one,
    the reference. Responses it never gives are missing from the pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    behaviour = world.log_reference if log_behaviour is None else log_behaviour
    prompts = torch.randint(len(behaviour), (n,), generator=generator)
    drawn = (
        torch.multinomial(behaviour.exp()[prompts], 2, generator=generator)
        if n
        else torch.empty(0, 2, dtype=torch.long)
    )
    first, second = drawn.unbind(-1)
    difference = world.reward[prompts, first] - world.reward[prompts, second]
    wins = torch.rand(n, generator=generator, dtype=torch.float64) < torch.sigmoid(difference)
    wins ^= torch.rand(n, generator=generator) < flipped
    return Pairs(prompts, torch.where(wins, first, second), torch.where(wins, second, first))


def fit_reward(pairs: Pairs, features: Tensor, ridge: float = 0.1) -> Tensor:
    """A reward model: the Bradley-Terry likelihood's maximum among rewards linear in `features`.

    Args:
        features: (X, Y, D). The identity, (X, Y, X * Y) by `one_hot_features`, gives every response
            a reward of its own.
        ridge: what the summed log-likelihood pays for each squared weight (a normal prior with
            variance 1 / (2 ridge)): without it choices that never vary leave the maximum at
            infinity, and responses never seen leave it undecided.

    Returns:
        The fitted reward of each response, (X, Y). Only differences within a prompt mean anything.
    """
    unique, share = pairs.tally()
    difference = features[unique.prompts, unique.chosen] - features[unique.prompts, unique.rejected]
    ridge = ridge / max(len(pairs), 1)
    weights = maximise(
        lambda w: share @ F.logsigmoid(difference @ w) - ridge * (w @ w),
        torch.zeros(features.shape[-1]),
    )
    return features @ weights


def one_hot_features(n_prompts: int, n_responses: int) -> Tensor:
    """Features that tell every response apart and say nothing else, (X, Y, X * Y)."""
    size = n_prompts * n_responses
    return torch.eye(size, dtype=torch.float64).view(n_prompts, n_responses, size)


def policy_gradient(
    log_reference: Tensor, reward: Tensor, beta: float, steps: int = 500, step_size: float = 1.0
) -> list[Tensor]:
    """Climb `objective` by exact natural policy gradient from the reference; beta may be 0.

    What PPO approximates with samples: in a table, adding the advantage to the logits is the
    natural gradient step (Kakade 2001). With beta > 0 it converges to `optimal_policy`. Each step
    adds a multiple of the reward to log pi / pi_ref and, with beta > 0, shrinks it: whatever beta,
    the path runs along the policies pi_ref exp(c r) / Z, and beta says how far.

    Returns:
        steps + 1 policies, each (X, Y), from the reference on.
    """
    path = [log_reference]
    for _ in range(steps):
        log_policy = path[-1]
        value = reward - beta * (log_policy - log_reference)  # (X, Y)
        advantage = value - expected_reward(log_policy, value)[:, None]
        path.append((log_policy + step_size * advantage).log_softmax(-1))
    return path


def regret(log_policy: Tensor, world: World, beta: float) -> float:
    """How far `objective` at the true reward falls short of its maximum, averaged over prompts."""
    best = optimal_policy(world.log_reference, world.reward, beta)
    return (
        objective(best, world.log_reference, world.reward, beta)
        - objective(log_policy, world.log_reference, world.reward, beta)
    ).item()


def fit_dpo(pairs: Pairs, log_reference: Tensor, beta: float, ridge: float = 0.1) -> Tensor:
    """A policy trained by DPO on `pairs`, every logit free: log pi, (X, Y).

    `ridge` penalises squared implicit rewards as `fit_reward` penalises weights.
    """
    unique, share = pairs.tally()
    ridge = ridge / max(len(pairs), 1)

    def value(logits: Tensor) -> Tensor:
        log_policy = logits.log_softmax(-1)
        loss, _, _ = dpo_loss(
            log_policy[unique.prompts, unique.chosen],
            log_policy[unique.prompts, unique.rejected],
            log_reference[unique.prompts, unique.chosen],
            log_reference[unique.prompts, unique.rejected],
            beta=beta,
        )
        implicit_reward = beta * (logits - log_reference)
        return -share @ loss - ridge * (implicit_reward**2).sum()

    return maximise(value, log_reference).log_softmax(-1)


@dataclass(frozen=True)
class Condition:
    """What data an estimator gets: `pairs` pairs with a share `flipped` of wrong labels; `unseen`:
    the share of responses that never occur in pairs; `visible`: how many of the features, in which
    the true reward is linear, the reward model sees (None: all).
    """

    pairs: int
    flipped: float = 0.0
    unseen: float = 0.0
    visible: int | None = None


CONDITIONS = {
    "plenty of pairs": Condition(20_000),
    "few pairs": Condition(100),
    "few, 30 % flipped": Condition(100, flipped=0.3),
    "half never seen": Condition(20_000, unseen=0.5),
    "reward model blind": Condition(20_000, visible=1),
}


def compare_estimators(
    conditions: dict[str, Condition], seeds: int = 12, beta: float = 1.0, ridge: float = 0.1
) -> pd.DataFrame:
    """DPO against reward model and policy gradient, in one random world a seed.

    DPO has a free logit for every response; the reward model is linear in the features and its
    policy comes by `policy_gradient`. `ridge` is that of both fits: on the reward model's few
    weights, and on each of DPO's implicit rewards.

    Returns:
        One row for each condition, seed and `method`, with its `regret`; method `reference` is the
        policy without training.
    """
    import pandas as pd

    rows = []
    for name, condition in conditions.items():
        for seed in range(seeds):
            world = make_world(seed=seed)
            behaviour = world.log_reference.clone()
            behaviour[:, : round(condition.unseen * behaviour.shape[1])] = -torch.inf
            pairs = sample_pairs(
                world,
                condition.pairs,
                seed=seed,
                log_behaviour=behaviour.log_softmax(-1),
                flipped=condition.flipped,
            )
            reward = fit_reward(pairs, world.features[..., : condition.visible], ridge)
            policies = {
                "reference": world.log_reference,
                "DPO": fit_dpo(pairs, world.log_reference, beta, ridge),
                "RLHF": policy_gradient(world.log_reference, reward, beta, 100, 0.5)[-1],
            }
            rows += [
                {
                    "condition": name,
                    "seed": seed,
                    "method": method,
                    "regret": regret(policy, world, beta),
                }
                for method, policy in policies.items()
            ]
    return pd.DataFrame(rows)


def excess_regret(results: pd.DataFrame) -> pd.Series:
    """DPO's regret minus RLHF's, by condition and seed: above 0, the reward model is nearer.

    results: as from `compare_estimators`.
    """
    paired = results.pivot(index=["condition", "seed"], columns="method", values="regret")
    return paired["DPO"] - paired["RLHF"]


def overoptimise(
    beta: float, seeds: int = 20, pairs: int = 40, steps: int = 80, step_size: float = 0.1
) -> pd.DataFrame:
    """Climb reward models fitted on few pairs, in one tempting world a seed.

    Returns:
        One row for each seed and step: `kl` from the reference in nats, `proxy` (the fitted
        reward) and `true` reward, each expected under the policy and averaged over prompts. Both
        rewards are 0 for the reference.
    """
    import pandas as pd

    rows = []
    for seed in range(seeds):
        world = make_tempting_world(seed=seed)
        proxy = fit_reward(sample_pairs(world, pairs, seed=seed), world.features)
        proxy -= expected_reward(world.log_reference, proxy)[:, None]
        path = policy_gradient(world.log_reference, proxy, beta, steps, step_size)
        rows += [
            {
                "seed": seed,
                "step": step,
                "kl": kl_divergence(policy, world.log_reference).mean().item(),
                "proxy": expected_reward(policy, proxy).mean().item(),
                "true": expected_reward(policy, world.reward).mean().item(),
            }
            for step, policy in enumerate(path)
        ]
    return pd.DataFrame(rows)


def true_at_kl(path: pd.DataFrame, kl: pd.Series) -> pd.Series:
    """The true reward in each world of `path` where its policy is so far from the reference.

    Stopping early, in other words: the same climb, ended at a given KL divergence.

    Args:
        path: as from `overoptimise`.
        kl: the KL divergence at which to stop, in nats, by seed.

    Returns:
        The true reward by seed, linear between steps.

    Raises ValueError for a world whose path does not go so far.
    """
    import pandas as pd

    found = {}
    for seed, world in path.groupby("seed"):
        furthest = world["kl"].max()
        if kl[seed] > furthest:
            raise ValueError(
                f"world {seed} goes {furthest:.2f} nats at most, not {kl[seed]:.2f}: ask for less, "
                "or take more steps"
            )
        found[seed] = np.interp(kl[seed], world["kl"], world["true"])
    return pd.Series(found, name="true")


def fit_kto(
    prompts: Tensor,
    responses: Tensor,
    desirable: Tensor,
    log_reference: Tensor,
    beta: float,
    steps: int = 300,
    step_size: float = 0.1,
) -> Tensor:
    """A policy trained by KTO on single responses with thumbs, every logit free: log pi, (X, Y).

    prompts, responses: indices, (N,); desirable: (N,), bool. The point of reference is the exact
    KL divergence of each prompt. Adam; KTO's loss flattens out, so that the steps end it.
    """
    logits = log_reference.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=step_size)
    for _ in range(steps):
        log_policy = logits.log_softmax(-1)
        kl = kl_divergence(log_policy, log_reference).detach()
        loss, _ = kto_loss(
            log_policy[prompts, responses],
            log_reference[prompts, responses],
            desirable,
            kl[prompts],
            beta=beta,
        )
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return logits.detach().log_softmax(-1)
