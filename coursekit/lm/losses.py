"""The preference losses as pure functions of log-probabilities: DPO and its family.

Every function takes log-probabilities, one per pair (or per response, for KTO), and returns the
loss of each, not averaged; those that imply rewards return these as well, without gradient.
**The convention matters**: DPO, cDPO, robust DPO, IPO and KTO take *sums* over the response's
tokens, ORPO, SimPO and unlikelihood *means*. Mixing them up gives numbers that look like losses.

y_w and y_l are the chosen and the rejected response, h the difference of their log-ratios to the
reference: h = log pi(y_w|x) / pi_ref(y_w|x) - log pi(y_l|x) / pi_ref(y_l|x).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """DPO: the negative log-likelihood of the choices, -log sigmoid(beta h).

    Rafailov et al. 2023 (arXiv:2305.18290), equation 7.

    Args:
        policy_chosen_logps, policy_rejected_logps: log pi_theta(y_w | x) and (y_l | x), (B,), sums
            over the response's tokens, in nats.
        reference_chosen_logps, reference_rejected_logps: the same under pi_ref, (B,).
        beta: what a nat of distance from the reference costs, in units of the reward, > 0.

    Returns:
        loss, chosen_rewards, rejected_rewards, each (B,). The implicit rewards carry beta; their
        difference is the margin. Without training the loss is ln 2.

    Raises:
        ValueError: shapes that differ, a log-probability that is no number, beta that is not > 0.
    """
    chosen_rewards, rejected_rewards = _implicit_rewards(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        beta,
    )
    loss = -F.logsigmoid(chosen_rewards - rejected_rewards)
    return loss, chosen_rewards.detach(), rejected_rewards.detach()


def cdpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Conservative DPO: cross-entropy against labels that are wrong with a known probability.

    -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), with e = `label_smoothing`: least at a
    margin of log((1 - e) / e), so that the policy stops there. Mitchell 2023, "A note on DPO with
    noisy preferences" (ericmitchell.ai/cdpo.pdf). Sums, arguments and results as in
    `dpo_loss`; 0 <= label_smoothing < 0.5.
    """
    _check_smoothing(label_smoothing)
    chosen_rewards, rejected_rewards = _implicit_rewards(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        beta,
    )
    margin = chosen_rewards - rejected_rewards
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return loss, chosen_rewards.detach(), rejected_rewards.detach()


def robust_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Robust DPO: an unbiased estimate of the loss that clean labels would have given.

    (-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1 - 2e), where each label is flipped
    with probability e = `label_smoothing`. Its mean over flipped labels is the DPO loss; a single
    value may be negative. Chowdhury et al. 2024 (arXiv:2403.00409). Sums, arguments
    and results as in `dpo_loss`; 0 <= label_smoothing < 0.5.
    """
    _check_smoothing(label_smoothing)
    chosen_rewards, rejected_rewards = _implicit_rewards(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        beta,
    )
    margin = chosen_rewards - rejected_rewards
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) + label_smoothing * F.logsigmoid(-margin)
    return loss / (1 - 2 * label_smoothing), chosen_rewards.detach(), rejected_rewards.detach()


def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """IPO: the squared distance of h from 1 / (2 beta), where it therefore settles.

    (h - 1 / (2 beta))^2, where DPO's margin grows for as long as preferences look certain. Azar et
    al. 2023 (arXiv:2310.12036), equation 17, whose tau is beta here. As the paper writes it, h is
    of sums, as here. TRL divides each log-ratio by its response's length, so that the target is per
    token; its authors note in the source that IPO's confirmed this, and that the paper's results
    were had so. For that form, give means.
    Arguments and results as in `dpo_loss`.
    """
    chosen_rewards, rejected_rewards = _implicit_rewards(
        policy_chosen_logps,
        policy_rejected_logps,
        reference_chosen_logps,
        reference_rejected_logps,
        beta,
    )
    h = (chosen_rewards - rejected_rewards) / beta
    return (h - 1 / (2 * beta)) ** 2, chosen_rewards.detach(), rejected_rewards.detach()


def kto_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """KTO: learn from single responses with a thumb up or down, no pairs.

    With r = log pi(y|x) / pi_ref(y|x) and z = max(0, `kl`), the loss is
    w_d (1 - sigmoid(beta (r - z))) for a desirable response and w_u (1 - sigmoid(beta (z - r)))
    for an undesirable one. Ethayarajh et al. 2024 (arXiv:2402.01306), L_KTO in section 4.

    Args:
        policy_logps, reference_logps: of each response, (B,), sums over tokens, in nats.
        desirable: (B,), bool.
        kl: the point of reference z, an estimate of KL(pi || pi_ref) in nats; no gradient flows
            through it. The paper takes the mean log-ratio of mismatched prompts and responses.
        beta: as in DPO, > 0.
        desirable_weight, undesirable_weight: to balance unequal numbers of the two.

    Returns:
        loss and rewards beta r, each (B,).

    Raises:
        ValueError: as `dpo_loss`, and for a `desirable` that is not bool.
    """
    _check(beta, policy_logps=policy_logps, reference_logps=reference_logps)
    if desirable.dtype != torch.bool or desirable.shape != policy_logps.shape:
        raise ValueError(
            f"desirable is {desirable.dtype} of shape {tuple(desirable.shape)}: give bool, one for "
            f"each of the {tuple(policy_logps.shape)} responses"
        )
    rewards = beta * (policy_logps - reference_logps)
    z = beta * torch.as_tensor(kl, dtype=rewards.dtype, device=rewards.device).detach().clamp(min=0)
    loss = torch.where(
        desirable,
        desirable_weight * (1 - torch.sigmoid(rewards - z)),
        undesirable_weight * (1 - torch.sigmoid(z - rewards)),
    )
    return loss, rewards.detach()


def orpo_loss(
    policy_chosen_mean_logps: Tensor, policy_rejected_mean_logps: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """ORPO: SFT on the chosen response plus a penalty on the odds of the rejected one.

    -log p_w - `weight` * log sigmoid(log odds(p_w) - log odds(p_l)), odds(p) = p / (1 - p). No
    reference and no SFT stage. Hong et al. 2024 (arXiv:2403.07691), equations 6 and 7. p is the
    *length-normalised* likelihood, exp of the **mean** log-probability of the response's tokens:
    that of a sum is so small that the odds equal it.

    Args:
        policy_chosen_mean_logps, policy_rejected_mean_logps: (B,), nats a token, below 0.
        weight: of the odds-ratio term (lambda in the paper, `beta` in TRL), > 0.

    Returns:
        loss and log odds ratio, each (B,).

    Raises:
        ValueError: as `dpo_loss`, and for a mean log-probability above 0.
    """
    both = {
        "policy_chosen_mean_logps": policy_chosen_mean_logps,
        "policy_rejected_mean_logps": policy_rejected_mean_logps,
    }
    _check(weight, "weight", **both)
    for name, logps in both.items():
        if (logps > 0).any():
            raise ValueError(f"{name} is above 0 ({logps.max():.3g}): it is no log-probability")
    log_odds_ratio = (policy_chosen_mean_logps - policy_rejected_mean_logps) - (
        _log1mexp(policy_chosen_mean_logps) - _log1mexp(policy_rejected_mean_logps)
    )
    loss = -policy_chosen_mean_logps - weight * F.logsigmoid(log_odds_ratio)
    return loss, log_odds_ratio.detach()


def simpo_loss(
    policy_chosen_mean_logps: Tensor, policy_rejected_mean_logps: Tensor, beta: float, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """SimPO: DPO's form without a reference, on means, with a margin to reach.

    -log sigmoid(beta (mean log p_w - mean log p_l) - gamma). Meng et al. 2024 (arXiv:2405.14734),
    equation 6. Without a reference nothing holds the policy near the SFT model.

    Args:
        policy_chosen_mean_logps, policy_rejected_mean_logps: (B,), **means**, nats a token.
        beta: scale of the reward, > 0 (the paper uses 2 to 10).
        gamma: the margin that the rewards should differ by, in units of the reward.

    Returns:
        loss, chosen_rewards, rejected_rewards, each (B,).

    Raises:
        ValueError: as `dpo_loss`.
    """
    _check(
        beta,
        policy_chosen_mean_logps=policy_chosen_mean_logps,
        policy_rejected_mean_logps=policy_rejected_mean_logps,
    )
    chosen_rewards = beta * policy_chosen_mean_logps
    rejected_rewards = beta * policy_rejected_mean_logps
    loss = -F.logsigmoid(chosen_rewards - rejected_rewards - gamma)
    return loss, chosen_rewards.detach(), rejected_rewards.detach()


def unlikelihood_loss(
    policy_chosen_mean_logps: Tensor, policy_rejected_mean_logps: Tensor, weight: float
) -> Tensor:
    """Unlikelihood, a baseline of the DPO paper: raise the chosen response, lower the rejected.

    -log p_w + `weight` * log p_l (Rafailov et al. 2023, arXiv:2305.18290, section 6; weight is its
    alpha). No reference, and nothing that says how low is low enough: the second term has no bound.
    (Not Welleck's loss of the same name, -log(1 - p) of single tokens.) The paper does not say
    whether sums or means; here **means**, as in SFT's loss.

    Args:
        policy_chosen_mean_logps, policy_rejected_mean_logps: (B,), nats a token.
        weight: of the rejected response, > 0.

    Returns:
        loss, (B,).

    Raises:
        ValueError: as `dpo_loss`.
    """
    _check(
        weight,
        "weight",
        policy_chosen_mean_logps=policy_chosen_mean_logps,
        policy_rejected_mean_logps=policy_rejected_mean_logps,
    )
    return -policy_chosen_mean_logps + weight * policy_rejected_mean_logps


def _implicit_rewards(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """beta log pi_theta(y|x) / pi_ref(y|x) for chosen and rejected, (B,) each."""
    _check(
        beta,
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    chosen_rewards = beta * (policy_chosen_logps - reference_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - reference_rejected_logps)
    return chosen_rewards, rejected_rewards


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, exact at both ends (Maechler 2012) and never infinite.

    At x = 0 the odds are infinite; x is kept the smallest step below it.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near_zero = x > -0.6931
    # Each branch sees only arguments that are harmless to it: `where` passes gradients to both.
    small = torch.log(-torch.expm1(torch.where(near_zero, x, -1.0)))
    large = torch.log1p(-torch.exp(torch.where(near_zero, -1.0, x)))
    return torch.where(near_zero, small, large)


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}: it is the share of wrong labels, from 0 to "
            "below 0.5 (where labels say nothing)"
        )


def _check(scale: float, scale_name: str = "beta", /, **logps: Tensor) -> None:
    """Raise ValueError unless `scale` is > 0 and all `logps` are numbers, (B,), of one shape."""
    if not scale > 0:
        raise ValueError(f"{scale_name} is {scale}: it must be greater than 0")
    shapes = {name: tuple(values.shape) for name, values in logps.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the shapes differ, one log-probability per pair each: {shapes}")
    for name, values in logps.items():
        if torch.isnan(values).any():
            rows = torch.isnan(values).nonzero().flatten().tolist()
            raise ValueError(f"{name} is not a number in rows {rows[:5]}: look at the logits there")
