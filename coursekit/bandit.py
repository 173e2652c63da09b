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

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses import dpo_loss


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
        table = torch.stack([self.prompts, self.chosen, self.rejected], dim=1)
        unique, counts = table.unique(dim=0, return_counts=True)
        return Pairs(*unique.unbind(-1)), counts.double() / max(len(self), 1)


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
    natural gradient step (Kakade 2001). With beta > 0 it converges to `optimal_policy`.

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
