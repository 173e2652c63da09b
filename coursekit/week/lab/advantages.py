"""How much better than its siblings: the advantages of RLOO and of GRPO.

Both draw several responses to one prompt and let these be each other's baseline, so that no value
model is needed. Rewards and advantages are (G, n): n responses to each of G prompts.
"""

from __future__ import annotations

from torch import Tensor


def leave_one_out(rewards: Tensor) -> Tensor:
    """RLOO: the reward less the mean reward of the *other* responses to the prompt, (G, n).

    Ahmadian et al. 2024 (arXiv:2402.14740), section 2.2. The baseline does not contain the response
    that it is taken off, so the gradient is unbiased; n / (n - 1) times the distance from the mean.

    Raises ValueError for groups of fewer than two.
    """
    n = _group_size(rewards)
    return rewards - (rewards.sum(-1, keepdim=True) - rewards) / (n - 1)


def group_normalised(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """GRPO: the reward less the group's mean, over the group's standard deviation, (G, n).

    Shao et al. 2024 (arXiv:2402.03300), section 4.1.2. The deviation is the sample's (n - 1 in the
    denominator) with `epsilon` added, as in TRL. Dividing makes a prompt on which responses hardly
    differ count as much as any other (Liu et al. 2025, arXiv:2503.20783, advise against it).

    Raises ValueError for groups of fewer than two.
    """
    _group_size(rewards)
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + epsilon)


def _group_size(rewards: Tensor) -> int:
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(
            f"rewards are of shape {tuple(rewards.shape)}: give (G, n), at least n = 2 responses "
            "to each of G prompts, or nothing is there to compare with"
        )
    return rewards.shape[1]
