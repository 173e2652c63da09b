"""Preference losses as pure functions of log-probabilities."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The DPO loss of each pair (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

    Args:
        policy_chosen_logps, policy_rejected_logps: log pi_theta(y_w | x) and (y_l | x), (B,).
        reference_chosen_logps, reference_rejected_logps: the same under pi_ref, (B,). All are sums
            over the response's tokens, in nats.
        beta: how dear it is to leave the reference, > 0.

    Returns:
        loss, chosen_rewards, rejected_rewards, each (B,). The implicit rewards carry beta and no
        gradient; their difference is the margin. Without training the loss is ln 2.
    """
    chosen_rewards = beta * (policy_chosen_logps - reference_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - reference_rejected_logps)
    loss = -F.logsigmoid(chosen_rewards - rejected_rewards)
    return loss, chosen_rewards.detach(), rejected_rewards.detach()
