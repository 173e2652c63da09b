"""The exercises of the optional lab, in the order in which its notebook asks them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .diagnosis import Mistake
from .draw import Draw, numbers
from .exercise import exercise
from .reward import verifiable_reward

# 1. How far the best of n is from the SFT model.


@exercise(
    title="how far is the best of n?",
    task=(
        "Of n responses of the SFT model the best is given. Return how far that is, at most, from "
        "giving a single one: KL(best of n || SFT) is log n - (n - 1) / n nats if no two responses "
        "are equally good, and less otherwise (Beirami et al. 2024, arXiv:2401.01879)."
    ),
    difficulty=1,
    importance=3,
    minutes=5,
    hint=(
        "Natural logarithms give nats: `import math`, then `math.log(n)`. Try n = 1, where there "
        "is nothing to choose from: the distance has to be 0."
    ),
    cases=lambda draw: [
        *((4,), (2,), (1,), (16,)),
        *[(draw.randrange(3, 2000),) for _ in range(4)],
    ],
    mistakes=[
        Mistake(
            lambda n: math.log(n),
            "this is log n alone, the log-ratio of the very best response. The KL is the mean over "
            "what is given, and (n - 1) / n less. (`//` would cut that down to 0: write `/`.)",
        ),
        Mistake(
            lambda n: math.log(n) - 1,
            "1 is what (n - 1) / n comes to for *many* samples: for n = 1 nothing is chosen, and "
            "the distance is 0.",
        ),
        Mistake(
            lambda n: math.log2(n) - (n - 1) / n,
            "log2 counts in bits, the term that is taken off in nats: write math.log(n).",
        ),
        Mistake(
            lambda n: math.log10(n) - (n - 1) / n,
            "log10 is the logarithm to base 10: write math.log(n), the natural one.",
        ),
        Mistake(
            lambda n: math.log(n) + (n - 1) / n,
            "(n - 1) / n is added: take it off. No choice among n is further than log n.",
        ),
        Mistake(
            lambda n: math.log(n) - n / (n - 1),
            "the fraction is upside down: (n - 1) / n, which is 0 for n = 1.",
        ),
        Mistake(
            lambda n: math.log(n) - 1 / n,
            "1 / n is taken off: (n - 1) / n is 1 - 1 / n.",
        ),
        Mistake(
            lambda n: math.log(n) - n - 1 / n,
            "a bracket is missing: without it, 1 / n and all of n are taken off. Write "
            "(n - 1) / n.",
        ),
        Mistake(
            lambda n: (math.log(n) - (n - 1)) / n,
            "log n is divided by n as well: the fraction is (n - 1) / n alone.",
        ),
        Mistake(
            lambda n: (n - 1) / n,
            "this is only what is taken off: log n less that.",
        ),
        Mistake(
            lambda n: n - 1 - math.log(n),
            "this is KL(SFT || best of n), the other way round, which grows like n: the responses "
            "are drawn from the best of n.",
        ),
    ],
)
def best_of_n_kl(n: int) -> float:
    return math.log(n) - (n - 1) / n


# 2. Unlikelihood.


@exercise(
    title="unlikelihood",
    task=(
        "chosen and rejected, (B,), are the policy's mean log-probabilities a token, log p_w and "
        "log p_l. Return the loss of each pair, (B,), of the DPO paper's simplest baseline: raise "
        "log p_w, and lower log p_l with weight alpha. There is no reference, and no bound."
    ),
    difficulty=1,
    importance=3,
    minutes=5,
    hint=(
        "What is to rise stands in a loss with a minus, what is to fall with a plus. SFT's loss is "
        "`-chosen`; one term is missing."
    ),
    gradients=("chosen", "rejected"),
    cases=lambda draw: [
        (numbers(-0.5, -1.0), numbers(-2.0, -0.25), 0.5),
        (numbers(-0.1, -3.0, -2.0), numbers(-30.0, -0.01, -2.0), 0.1),
        *[
            (-draw.uniforms(4, low=0.1, high=4), -draw.uniforms(4, low=0.1, high=4), weight)
            for weight in (1.0, draw.uniform(0.1, 0.9), draw.uniform(1.1, 2))
        ],
    ],
    mistakes=[
        Mistake(
            lambda chosen, rejected, alpha: chosen - alpha * rejected,
            "the signs are turned around: training makes a loss *smaller*, and this one would be "
            "smaller the less likely the chosen response is.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: -chosen - alpha * rejected,
            "both responses are made likelier: the rejected one is to fall, so its term has a "
            "plus.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: chosen + alpha * rejected,
            "both responses are made less likely: the chosen one is to rise, so its term has a "
            "minus.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: -chosen,
            "this is SFT on the chosen responses: the rejected ones are not lowered.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: alpha * (rejected - chosen),
            "alpha weighs both terms: it belongs to the rejected response alone.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: rejected - alpha * chosen,
            "alpha weighs the chosen response: it belongs to the rejected one.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: alpha * rejected - (1 - alpha) * chosen,
            "the two weights are made to add up to 1: the chosen response has weight 1.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: (
                -chosen - alpha * torch.log1p(-rejected.clamp(max=-1e-6).exp())
            ),
            "this is another loss of the same name, -log(1 - p) (Welleck et al. 2019): the DPO "
            "paper's takes log p_l itself.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: -F.logsigmoid(chosen - alpha * rejected),
            "the log-sigmoid is DPO's: it stops pushing where the margin is wide. This baseline "
            "has nothing of the kind.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: alpha * rejected.exp() - chosen.exp(),
            "these are probabilities: the loss takes their logarithms, as they are given.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: alpha * rejected.detach() - chosen,
            "the rejected response is detached: the value is right, but nothing lowers it.",
        ),
        Mistake(
            lambda chosen, rejected, alpha: alpha * rejected.clamp(min=-5) - chosen,
            "the rejected response is clamped: that is a sound idea, but another loss.",
        ),
    ],
)
def unlikelihood_loss(chosen: torch.Tensor, rejected: torch.Tensor, alpha: float) -> torch.Tensor:
    return -chosen + alpha * rejected


# 3. RLOO's advantage.


def _groups(draw: Draw) -> list[Tensor]:
    """Rewards (G, n): the first small, one with a group of equals, all of at least two groups."""
    return [
        numbers(1, 0, 0.5, 0.25).reshape(2, 2),
        numbers(1, 0, 0, 1, 0.5, 0.5, 0.5, 0.5).reshape(2, 4),
        draw.uniforms(3, 3),
        draw.normals(2, 5, mean=1),
        draw.normals(4, 3, sd=2),
        draw.uniforms(3, 6).float(),
    ]


def _less_the_others_in(rewards: Tensor, axis: int) -> Tensor:
    others = rewards.sum(axis, keepdim=True) - rewards
    return rewards - others / (rewards.shape[axis] - 1)


@exercise(
    title="RLOO's advantage",
    task=(
        "rewards, (G, n), are those of n responses to each of G prompts. Return the advantage of "
        "each, (G, n): its reward, less the mean reward of the *other* n - 1 responses to the same "
        "prompt (Ahmadian et al. 2024, arXiv:2402.14740)."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint=(
        "`rewards.sum(-1, keepdim=True) - rewards` are the sums of the others, for all responses "
        "at once. How many others are there? `rewards.shape[-1]` is n."
    ),
    cases=lambda draw: [(rewards,) for rewards in _groups(draw)],
    mistakes=[
        Mistake(
            lambda rewards: rewards - rewards.mean(-1, keepdim=True),
            "the response's own reward is in its baseline: the advantage is too small by a factor "
            "of (n - 1) / n. Take the mean of the *others*.",
        ),
        Mistake(
            lambda rewards: rewards - _less_the_others_in(rewards, -1),
            "this is the baseline, the mean of the others: the advantage is the reward less that.",
        ),
        Mistake(
            lambda rewards: 2 * rewards - rewards.sum(-1, keepdim=True),
            "the others' *sum* is taken off: their mean is that over n - 1.",
        ),
        Mistake(
            lambda rewards: rewards - (rewards.sum(-1, keepdim=True) - rewards) / rewards.shape[-1],
            "the others' sum is divided by n: there are n - 1 others.",
        ),
        Mistake(
            lambda rewards: (2 * rewards - rewards.sum(-1, keepdim=True)) / (rewards.shape[-1] - 1),
            "a bracket is missing: the reward is divided by n - 1 as well, and only the others' "
            "sum is to be.",
        ),
        Mistake(
            lambda rewards: rewards - rewards.sum(-1, keepdim=True) / (rewards.shape[-1] - 1),
            "the sum of all, its own reward included, is divided by n - 1: take that reward off "
            "the sum first.",
        ),
        Mistake(
            lambda rewards: rewards - (rewards.sum(-1) - rewards) / (rewards.shape[-1] - 1),
            "the sums, (G,), are laid along the wrong axis, and where G is not n they do not fit: "
            "sum with keepdim=True, which gives (G, 1).",
        ),
        Mistake(
            lambda rewards: _less_the_others_in(rewards, 0),
            "the others are those of the other *prompts* (first axis): an easy prompt would make "
            "all its responses look good. Sum over the last axis.",
        ),
        Mistake(
            lambda rewards: rewards - (rewards.sum() - rewards) / (rewards.numel() - 1),
            "the others are those of all prompts: an easy prompt would make all its responses look "
            "good. Keep to each prompt's own.",
        ),
        Mistake(
            lambda rewards: rewards - rewards.mean(),
            "one mean is taken over all prompts: an easy prompt would make all its responses look "
            "good. Keep to each prompt's own.",
        ),
        Mistake(
            lambda rewards: (
                (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + 1e-4)
            ),
            "this is GRPO's, which divides by the group's spread: RLOO does not divide.",
        ),
        Mistake(
            lambda rewards: (
                _less_the_others_in(rewards, -1) / (rewards.std(-1, keepdim=True) + 1e-4)
            ),
            "this divides by the group's spread: GRPO does so, RLOO does not.",
        ),
    ],
)
def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    others = rewards.sum(-1, keepdim=True) - rewards  # (G, n)
    return rewards - others / (rewards.shape[-1] - 1)


# 4. GRPO's advantage.


def _centred(rewards: Tensor) -> Tensor:
    return rewards - rewards.mean(-1, keepdim=True)


@exercise(
    title="GRPO's advantage",
    task=(
        "rewards, (G, n), are those of n responses to each of G prompts. Return the advantage of "
        "each, (G, n): its reward less its group's mean, divided by the group's standard deviation "
        "plus epsilon. The deviation is the sample's, with n - 1 below the line (Shao et al. 2024, "
        "arXiv:2402.03300, as TRL computes it)."
    ),
    difficulty=2,
    importance=4,
    minutes=5,
    hint=(
        "A group is a row: `rewards.mean(-1, keepdim=True)` has one number for each, (G, 1). "
        "`rewards.std(-1, keepdim=True)` has n - 1 below the line already."
    ),
    cases=lambda draw: [
        (rewards, epsilon)
        for rewards, epsilon in zip(
            _groups(draw), (0.1, 1e-4, 0.5, 1e-4, draw.uniform(0.1, 1), 0.2), strict=True
        )
    ],
    mistakes=[
        Mistake(
            lambda rewards, epsilon: (
                _centred(rewards) / (rewards.std(-1, correction=0, keepdim=True) + epsilon)
            ),
            "the deviation is the population's, with n below the line: asked for is n - 1, as "
            "torch's std has it (numpy's wants ddof=1).",
        ),
        Mistake(
            lambda rewards, epsilon: _centred(rewards) / rewards.std(-1, keepdim=True),
            "epsilon is missing: where all responses are equally good this is 0 / 0, and one nan "
            "spoils the step.",
        ),
        Mistake(
            lambda rewards, epsilon: (
                _centred(rewards) / (rewards.var(-1, keepdim=True) + epsilon).sqrt()
            ),
            "epsilon is added under the root: it is added to the deviation itself.",
        ),
        Mistake(
            lambda rewards, epsilon: _centred(rewards) / (rewards.var(-1, keepdim=True) + epsilon),
            "divided by the *variance*: the standard deviation is its square root.",
        ),
        Mistake(
            lambda rewards, epsilon: (
                _centred(rewards) / rewards.std(-1, keepdim=True).clamp(min=epsilon)
            ),
            "the deviation is kept above epsilon: add epsilon to it.",
        ),
        Mistake(
            lambda rewards, epsilon: _centred(rewards) / rewards.std(-1, keepdim=True) + epsilon,
            "a bracket is missing: epsilon is added to the result. It belongs below the line.",
        ),
        Mistake(
            lambda rewards, epsilon: _centred(rewards),
            "not divided by the deviation (Liu et al. 2025, arXiv:2503.20783, advise this; GRPO "
            "divides).",
        ),
        Mistake(
            lambda rewards, epsilon: rewards / (rewards.std(-1, keepdim=True) + epsilon),
            "the mean is not taken off: every response with a positive reward would be made "
            "likelier.",
        ),
        Mistake(
            lambda rewards, epsilon: (rewards - rewards.mean()) / (rewards.std() + epsilon),
            "mean and deviation are those of all prompts together: take each row's own.",
        ),
        Mistake(
            lambda rewards, epsilon: _centred(rewards) / (rewards.std() + epsilon),
            "the deviation is that of all prompts together: take each row's own.",
        ),
        Mistake(
            lambda rewards, epsilon: (rewards - rewards.mean(0)) / (rewards.std(0) + epsilon),
            "mean and deviation are taken over the *prompts* (first axis): a group is a row, so "
            "take the last.",
        ),
        Mistake(
            lambda rewards, epsilon: (rewards - rewards.mean(-1)) / (rewards.std(-1) + epsilon),
            "means and deviations, (G,), are laid along the wrong axis, and where G is not n they "
            "do not fit: keepdim=True gives (G, 1).",
        ),
        Mistake(
            lambda rewards, epsilon: (
                _less_the_others_in(rewards, -1) / (rewards.std(-1, keepdim=True) + epsilon)
            ),
            "the mean is that of the *others*, as in RLOO: GRPO takes the whole group's.",
        ),
    ],
)
def group_advantage(rewards: torch.Tensor, epsilon: float) -> torch.Tensor:
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + epsilon)


# 5. A reward that a program checks: `verifiable_reward`, about the course's own task alone.


# 6. The frontier.


def _points(draw: Draw, n: int) -> list[tuple[float, float]]:
    """Points on a coarse grid, in any order: some share their KL, some their reward, one is twice
    there.
    """
    points = [(draw.randrange(6) / 2, draw.randrange(7) / 10) for _ in range(n)]
    points += [(0.5, 0.7), (0.5, 0.2), (2.5, 0.7), (2.0, 0.9), (1.0, 0.8), (2.0, 0.9)]
    return draw.sample(points, len(points))


def _best_so_far(points: list) -> list[bool]:
    """Whether each has a higher reward than all before it."""
    return [
        reward > max((r for _, r in points[:i]), default=-math.inf)
        for i, (_, reward) in enumerate(points)
    ]


def _by_kl(points: list) -> list:
    return sorted(points, key=lambda point: (point[0], -point[1]))


@exercise(
    title="the frontier",
    task=(
        "points is a list of (kl, reward). Return a list that says for each, in its place, whether "
        "it is on the frontier: whether *no* other point has at most its KL and at least its "
        "reward, and is better in one of the two. Of equal points none is better: both stay."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint=(
        "When does point (k, r) beat (kl, reward)? If k <= kl and r >= reward and they are not the "
        "same point. Python's `any(r >= 0.5 for k, r in points)` says whether one of them does; "
        "compare two points whole with `points[0] != points[1]`."
    ),
    cases=lambda draw: [
        ([(0.0, 0.5), (2.0, 0.8), (1.0, 0.7), (2.0, 0.6), (3.0, 0.8)],),
        ([(1.0, 0.9), (1.0, 0.9), (0.5, 0.4), (0.25, 0.4)],),
        ([(2.0, 0.8), (0.5, 0.9), (1.0, 0.3)],),
        *[(_points(draw, draw.randrange(3, 8)),) for _ in range(4)],
    ],
    mistakes=[
        Mistake(
            lambda points: [
                not any(k < kl and r > reward for k, r in points) for kl, reward in points
            ],
            "a point that is as good in one of the two and better in the other beats as well: "
            "`<=` and `>=`, for points that are not the same.",
        ),
        Mistake(
            lambda points: [
                not any(k <= kl and r > reward for k, r in points) for kl, reward in points
            ],
            "the same reward for less KL is better too: `r >= reward`, for points that are not the "
            "same.",
        ),
        Mistake(
            lambda points: [
                not any(k < kl and r >= reward for k, r in points) for kl, reward in points
            ],
            "more reward for the same KL is better too: `k <= kl`, for points that are not the "
            "same.",
        ),
        Mistake(
            lambda points: [
                not any(k <= kl and r >= reward for k, r in points) for kl, reward in points
            ],
            "each point is compared with itself, and beats itself: leave out those that are the "
            "same.",
        ),
        Mistake(
            lambda points: [
                not any(k <= kl and r >= reward for j, (k, r) in enumerate(points) if j != i)
                for i, (kl, reward) in enumerate(points)
            ],
            "equal points throw each other out: compare the points, not their places; of equals "
            "none is better.",
        ),
        Mistake(
            lambda points: [
                not any(k >= kl and r >= reward and (k, r) != (kl, reward) for k, r in points)
                for kl, reward in points
            ],
            "more KL is taken for better: it is the price. A point beats by *at most* the KL.",
        ),
        Mistake(
            lambda points: [
                not any((k <= kl or r >= reward) and (k, r) != (kl, reward) for k, r in points)
                for kl, reward in points
            ],
            "`or` where both must hold: less KL alone beats nothing, if the reward is lower too.",
        ),
        Mistake(
            lambda points: [not stays for stays in on_frontier.solution(points)],
            "these are the points that are beaten: True is for those that are not.",
        ),
        Mistake(
            lambda points: [i for i, stays in enumerate(on_frontier.solution(points)) if stays],
            "these are the places of the points: return True or False for *each* point.",
        ),
        Mistake(
            lambda points: [p for p in points if on_frontier.solution([*points, p])[-1]],
            "these are the points themselves: return True or False for *each* point.",
        ),
        Mistake(
            lambda points: [reward == max(r for _, r in points) for _, reward in points],
            "only the highest reward is looked for: a point with less of it, but nearer than all "
            "above it, is on the frontier too.",
        ),
        Mistake(
            lambda points: [
                reward == max(r for k, r in points if k == kl) for kl, reward in points
            ],
            "a point is compared with those of its own KL alone: those with less KL count too.",
        ),
        Mistake(
            lambda points: [
                not any(k <= kl and r >= reward for k, r in points[:i])
                for i, (kl, reward) in enumerate(points)
            ],
            "a point is compared only with those that stand before it: they come in any order.",
        ),
        Mistake(
            _best_so_far,
            "the highest reward so far, in the order given: that is right only for points sorted "
            "by KL.",
        ),
        Mistake(
            lambda points: _best_so_far(_by_kl(points)),
            "the answers stand in the order of KL: give them back in that of points. (And of equal "
            "points both stay.)",
        ),
        Mistake(
            lambda points: on_frontier.solution(_by_kl(points)),
            "the answers stand in the order of KL: give them back in that of points.",
        ),
    ],
)
def on_frontier(points: list) -> list:
    return [
        not any(k <= kl and r >= reward and (k, r) != (kl, reward) for k, r in points)
        for kl, reward in points
    ]


IN_ORDER = (
    *(best_of_n_kl, unlikelihood_loss, leave_one_out, group_advantage),
    *(verifiable_reward, on_frontier),
)
EXERCISES = {each.solution.__name__: each for each in IN_ORDER}
