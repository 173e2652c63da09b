"""The exercises of session A, in the order in which the notebook asks them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .exercise import Exercise, Mistake


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# 1. The Bradley-Terry model.


def _preference_probability(reward_w: Tensor, reward_l: Tensor) -> Tensor:
    return torch.sigmoid(reward_w - reward_l)


preference_probability = Exercise(
    title="the Bradley-Terry model",
    task=(
        "Two responses have rewards reward_w and reward_l, each of shape (B,). Return the "
        "probability that the first is preferred, (B,)."
    ),
    difficulty=1,
    importance=5,
    minutes=5,
    hint="exp(r_w) / (exp(r_w) + exp(r_l)): divide numerator and denominator by exp(r_w).",
    solution=_preference_probability,
    cases=[
        (_numbers(2.0, 0.5, -1.0), _numbers(1.0, 0.5, 3.0)),
        (_numbers(800.0), _numbers(-800.0)),
    ],
    mistakes=[
        Mistake(
            lambda won, lost: torch.sigmoid(lost - won),
            "the sign is turned around: this is the probability that the *second* is preferred.",
        ),
        Mistake(
            lambda won, lost: won - lost,
            "this is the difference of rewards; a probability is what the sigmoid makes of it.",
        ),
        Mistake(
            lambda won, lost: won / (won + lost),
            "a ratio of rewards is no probability (rewards may be negative): take exponentials.",
        ),
        Mistake(
            lambda won, lost: won.exp() / (won.exp() + lost.exp()),
            "right for small rewards, but exp overflows for large ones and gives nan: write it as "
            "a sigmoid of the difference.",
        ),
        Mistake(
            lambda won, lost: F.logsigmoid(won - lost),
            "this is the *log*-probability; the exercise asks for the probability.",
        ),
    ],
)


# 2. The closed form.


def _closed_form(log_reference: Tensor, reward: Tensor, beta: float) -> Tensor:
    return (log_reference + reward / beta).log_softmax(-1)


closed_form = Exercise(
    title="the optimal policy",
    task=(
        "Return the logarithm of the policy that maximises E[r] - beta KL(pi || pi_ref), (X, Y), "
        "from log_reference and reward, both (X, Y)."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint="pi_ref(y|x) exp(r(x,y) / beta) / Z(x). In logarithms, and log_softmax divides by Z.",
    solution=_closed_form,
    cases=[
        (
            torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)),
            torch.tensor([[1.0, 0.0, 2.0], [-1.0, 0.5, 0.0]], dtype=torch.float64),
            0.5,
        )
    ],
    mistakes=[
        Mistake(
            lambda ref, r, beta: (ref + r * beta).log_softmax(-1),
            "the reward is multiplied by beta: it is divided. A small beta lets the reward count.",
        ),
        Mistake(
            lambda ref, r, beta: (r / beta).log_softmax(-1),
            "the reference is missing: without it this is the optimum for a uniform reference.",
        ),
        Mistake(
            lambda ref, r, beta: ref + r / beta,
            "not normalised: the probabilities of a row must sum to 1 (log Z is missing).",
        ),
        Mistake(
            lambda ref, r, beta: (ref + r / beta).softmax(-1),
            "these are probabilities; the exercise asks for their logarithms.",
        ),
        Mistake(
            lambda ref, r, beta: (ref - r / beta).log_softmax(-1),
            "the sign of the reward is wrong: this policy prefers what is rewarded least.",
        ),
    ],
)


# 3. The implicit reward.


def _implicit_reward(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    return beta * (policy_logps - reference_logps)


implicit_reward = Exercise(
    title="the implicit reward",
    task=(
        "Solve the closed form for the reward: return r(x, y) - beta log Z(x) for responses with "
        "log-probabilities policy_logps and reference_logps, (B,)."
    ),
    difficulty=1,
    importance=5,
    minutes=5,
    hint="log pi = log pi_ref + r / beta - log Z. Bring r to one side; log Z stays out.",
    solution=_implicit_reward,
    cases=[(_numbers(-10.0, -25.0, -3.0), _numbers(-12.0, -20.0, -3.0), 0.1)],
    mistakes=[
        Mistake(
            lambda policy, ref, beta: beta * (ref - policy),
            "the sign is turned around: what the policy makes *more* likely has a higher reward.",
        ),
        Mistake(
            lambda policy, ref, beta: (policy - ref) / beta,
            "divided by beta where it should be multiplied: the closed form has r / beta.",
        ),
        Mistake(
            lambda policy, ref, beta: policy - ref,
            "beta is missing: this is the log-ratio, in nats, not the reward.",
        ),
        Mistake(
            lambda policy, ref, beta: beta * policy / ref,
            "the ratio is of probabilities: in logarithms that is a difference.",
        ),
        Mistake(
            lambda policy, ref, beta: beta * (policy.exp() - ref.exp()),
            "these are differences of probabilities; the reward is a difference of *logarithms*.",
        ),
    ],
)


# 4. The loss.

_FOUR = (
    _numbers(-10.0, -31.0, -20.0),
    _numbers(-12.0, -30.0, -60.0),
    _numbers(-11.0, -30.0, -25.0),
    _numbers(-11.5, -33.0, -40.0),
)


def _dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> Tensor:
    chosen_reward = beta * (policy_chosen - reference_chosen)
    rejected_reward = beta * (policy_rejected - reference_rejected)
    return -F.logsigmoid(chosen_reward - rejected_reward)


dpo_loss = Exercise(
    title="the DPO loss",
    task=(
        "Put the implicit reward into the Bradley-Terry likelihood: return the negative "
        "log-likelihood of each pair, (B,), from four vectors of log-probabilities and beta."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint="The margin is the difference of two implicit rewards; F.logsigmoid is stable.",
    solution=_dpo_loss,
    cases=[(*_FOUR, 0.1), (*_FOUR, 2.0)],
    mistakes=[
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * ((pl - rl) - (pw - rw))),
            "chosen and rejected have swapped roles (or a sign is wrong): this loss teaches the "
            "policy to prefer what was rejected.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -beta * F.logsigmoid((pw - rw) - (pl - rl)),
            "beta stands outside the logarithm: it belongs in the sigmoid, with the log-ratios.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid((pw - rw) - (pl - rl)),
            "beta is missing.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * (pw - pl)),
            "the reference is missing: without training the loss would not be ln 2.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: F.logsigmoid(beta * ((pw - rw) - (pl - rl))),
            "the sign: a loss is minimised, so it is the *negative* log-likelihood.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -torch.sigmoid(beta * ((pw - rw) - (pl - rl))),
            "the logarithm is missing: -log sigmoid, not -sigmoid.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * ((pw - rw) - (pl - rl))).mean(),
            "averaged over the batch: return the loss of each pair, (B,).",
        ),
    ],
)


# 5. The weight in the gradient.


def _gradient_weight(chosen_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    return torch.sigmoid(rejected_reward - chosen_reward)


gradient_weight = Exercise(
    title="what the gradient weighs",
    task=(
        "The gradient of the DPO loss is -beta * weight * (grad log pi(y_w) - grad log pi(y_l)). "
        "Return the weight of each pair, (B,), from its implicit rewards (beta is in them)."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint="The derivative of -log sigmoid(m) is -sigmoid(-m), where m is the margin.",
    solution=_gradient_weight,
    cases=[(_numbers(0.0, 1.0, -2.0), _numbers(0.0, -1.0, 0.5))],
    mistakes=[
        Mistake(
            lambda won, lost: torch.sigmoid(won - lost),
            "this is the probability of the *right* order: pairs would count more the better they "
            "are known. It is the other way round.",
        ),
        Mistake(
            lambda won, lost: -torch.sigmoid(lost - won),
            "the minus stands in front of the formula already: the weight itself is positive.",
        ),
        Mistake(
            lambda won, lost: torch.sigmoid(lost - won) * torch.sigmoid(won - lost),
            "this is the derivative of the sigmoid; the loss is its *logarithm*.",
        ),
        Mistake(
            lambda won, lost: lost - won,
            "this is the margin with its sign turned; the weight is a probability.",
        ),
    ],
)


# 6. Which logits predict which token.


def _token_logps(logits: Tensor, input_ids: Tensor) -> Tensor:
    logps = logits[:, :-1].log_softmax(-1)
    return logps.gather(-1, input_ids[:, 1:, None]).squeeze(-1)


_LOGITS = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
_IDS = torch.tensor([[1, 4, 2, 6, 0], [3, 3, 5, 1, 2]])

token_logps = Exercise(
    title="log-probabilities of tokens",
    task=(
        "logits is (B, T, V), input_ids is (B, T). Return log pi of each token given those before "
        "it, (B, T - 1): the first token has none before it."
    ),
    difficulty=3,
    importance=5,
    minutes=15,
    hint="The logits at position t score the token at position t + 1. torch.gather picks.",
    solution=_token_logps,
    cases=[(_LOGITS, _IDS)],
    mistakes=[
        Mistake(
            lambda logits, ids: (
                logits[:, 1:].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
            ),
            "off by one: these are the logits *after* each token, which score the next one.",
        ),
        Mistake(
            lambda logits, ids: logits.log_softmax(-1).gather(-1, ids[:, :, None]).squeeze(-1),
            "not shifted: the logits at position t score the token at t + 1, and the first token "
            "has no prediction, so there are T - 1 values.",
        ),
        Mistake(
            lambda logits, ids: (
                logits[:, :-1].log_softmax(-1).gather(-1, ids[:, :-1, None]).squeeze(-1)
            ),
            "off by one: this scores each token with the logits at its own position.",
        ),
        Mistake(
            lambda logits, ids: logits[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1),
            "these are logits, not log-probabilities: log_softmax over the vocabulary is missing.",
        ),
        Mistake(
            lambda logits, ids: logits[:, :-1].softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1),
            "these are probabilities: their logarithms are what can be summed.",
        ),
    ],
)


# 7. The sum over the response.


def _response_logp(per_token: Tensor, response_mask: Tensor) -> Tensor:
    return (per_token * response_mask[:, 1:]).sum(-1)


# Two prompt tokens, three of the response with its end token; then one and two, and padding.
_MASK = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
_PER_TOKEN = -torch.tensor([[0.1, 0.2, 0.4, 0.8], [1.6, 3.2, 6.4, 12.8]], dtype=torch.float64)


def _without_last(mask: Tensor) -> Tensor:
    last = mask.cumsum(-1) == mask.sum(-1, keepdim=True)
    return mask * ~last


response_logp = Exercise(
    title="the log-probability of a response",
    task=(
        "per_token is (B, T - 1), as from the exercise before. response_mask is (B, T) and 1 on "
        "the response's tokens, the end token included. Return log pi(y | x), (B,)."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint="Entry t of per_token belongs to token t + 1, so the mask loses its first column.",
    solution=_response_logp,
    cases=[(_PER_TOKEN, _MASK)],
    mistakes=[
        Mistake(
            lambda logps, mask: (logps * mask[:, 1:]).sum(-1) / mask[:, 1:].sum(-1),
            "this is the mean over tokens; log pi(y | x) is a *sum*. With means the loss is "
            "another one, and long responses count less.",
        ),
        Mistake(
            lambda logps, mask: (logps * mask[:, :-1]).sum(-1),
            "the mask is off by one: it leaves out the end token (or what comes last) and counts "
            "a token of the wrong place.",
        ),
        Mistake(
            lambda logps, mask: logps.sum(-1),
            "prompt and padding are counted: only the response's tokens belong to log pi(y | x).",
        ),
        Mistake(
            lambda logps, mask: (logps * _without_last(mask)[:, 1:]).sum(-1),
            "the end token is left out: a policy is also scored on stopping, or never learns to.",
        ),
        Mistake(
            lambda logps, mask: (logps * mask[:, 1:]).sum(),
            "summed over the batch as well: return one value for each response, (B,).",
        ),
    ],
)


# 8. IPO.


def _ipo_loss(chosen_log_ratio: Tensor, rejected_log_ratio: Tensor, beta: float) -> Tensor:
    return (chosen_log_ratio - rejected_log_ratio - 1 / (2 * beta)) ** 2


ipo_loss = Exercise(
    title="the IPO loss",
    task=(
        "From the log-ratios log pi / pi_ref of chosen and rejected, (B,), return IPO's loss of "
        "each pair: the squared distance of their difference from where it should settle."
    ),
    difficulty=2,
    importance=3,
    minutes=10,
    hint="It settles at 1 / (2 beta). The log-ratios are in nats; beta is not in them.",
    solution=_ipo_loss,
    cases=[(_numbers(1.0, -2.0, 6.0), _numbers(0.0, 1.0, 1.0), 0.1)],
    mistakes=[
        Mistake(
            lambda won, lost, beta: (won - lost - 1 / beta) ** 2,
            "the target is 1 / (2 beta), half of this.",
        ),
        Mistake(
            lambda won, lost, beta: (beta * (won - lost) - 1 / (2 * beta)) ** 2,
            "beta is not in the difference: it stands in the target only.",
        ),
        Mistake(
            lambda won, lost, beta: (won - lost - beta / 2) ** 2,
            "the target is 1 / (2 beta), not beta / 2: a smaller beta lets it go further.",
        ),
        Mistake(
            lambda won, lost, beta: (lost - won - 1 / (2 * beta)) ** 2,
            "chosen and rejected have swapped roles.",
        ),
        Mistake(
            lambda won, lost, beta: won - lost - 1 / (2 * beta),
            "the square is missing: a loss must grow on both sides of the target.",
        ),
    ],
)


# 9. KTO's point of reference.


def _kto_desirable(log_ratio: Tensor, mismatched_log_ratio: Tensor, beta: float) -> Tensor:
    z = mismatched_log_ratio.mean().clamp(min=0).detach()
    return 1 - torch.sigmoid(beta * (log_ratio - z))


kto_desirable = Exercise(
    title="KTO and its point of reference",
    task=(
        "Return KTO's loss for desirable responses, (B,): 1 - sigmoid(beta (log_ratio - z)), where "
        "z is the mean of mismatched_log_ratio, not below 0, through which no gradient flows."
    ),
    difficulty=3,
    importance=3,
    minutes=10,
    hint="clamp(min=0) after the mean, and detach().",
    solution=_kto_desirable,
    cases=[
        (_numbers(1.0, -2.0), _numbers(0.5, 2.5, -0.3), 0.5),
        (_numbers(1.0, -2.0), _numbers(-4.0, 1.0), 0.5),
    ],
    mistakes=[
        Mistake(
            lambda ratio, other, beta: (
                1 - torch.sigmoid(beta * (ratio - other.mean().clamp(min=0)))
            ),
            "no detach: a gradient flows through z, which is only a point of reference. The values "
            "are right, the training is not.",
        ),
        Mistake(
            lambda ratio, other, beta: 1 - torch.sigmoid(beta * (ratio - other.mean().detach())),
            "z must not fall below 0: it stands for a KL divergence, which is never negative.",
        ),
        Mistake(
            lambda ratio, other, beta: torch.sigmoid(
                beta * (ratio - other.mean().clamp(min=0).detach())
            ),
            "this is the *value* that is to grow (and an undesirable response's loss): the loss is "
            "1 minus it.",
        ),
        Mistake(
            lambda ratio, other, beta: (
                1 - torch.sigmoid(beta * ratio - other.mean().clamp(min=0).detach())
            ),
            "beta multiplies the whole difference, z included.",
        ),
    ],
    compare_gradients=True,
)


# 10. ORPO's odds.


def _log_odds_ratio(chosen_mean_logps: Tensor, rejected_mean_logps: Tensor) -> Tensor:
    chosen = chosen_mean_logps - torch.log(-torch.expm1(chosen_mean_logps))
    rejected = rejected_mean_logps - torch.log(-torch.expm1(rejected_mean_logps))
    return chosen - rejected


log_odds_ratio = Exercise(
    title="ORPO's odds ratio",
    task=(
        "p is exp of the *mean* log-probability of a response's tokens. Return log odds(p_w) - "
        "log odds(p_l), (B,), with odds(p) = p / (1 - p), from those means."
    ),
    difficulty=3,
    importance=2,
    minutes=10,
    hint="log odds = log p - log(1 - p), and 1 - p is -torch.expm1(log p).",
    solution=_log_odds_ratio,
    cases=[(_numbers(-0.1, -2.0), _numbers(-0.5, -1.0)), (_numbers(-1e-12), _numbers(-1.0))],
    mistakes=[
        Mistake(
            lambda won, lost: won - lost,
            "this is the log-ratio of probabilities; the odds also divide by 1 - p.",
        ),
        Mistake(
            lambda won, lost: (won + torch.log1p(-won.exp())) - (lost + torch.log1p(-lost.exp())),
            "log odds = log p *minus* log(1 - p).",
        ),
        Mistake(
            lambda won, lost: _log_odds_ratio(lost, won),
            "chosen and rejected have swapped roles.",
        ),
        Mistake(
            lambda won, lost: torch.exp(_log_odds_ratio(won, lost)),
            "this is the odds ratio itself; the exercise asks for its logarithm.",
        ),
    ],
)

EXERCISES = {name: value for name, value in list(globals().items()) if isinstance(value, Exercise)}

QUIZ = [
    (
        "Why does DPO need no reward model?",
        "The optimal policy determines the reward up to a constant per prompt, and the constant "
        "cancels in Bradley-Terry: the likelihood of the pairs can be written in the policy.",
    ),
    (
        "The first-step loss is 0.7045. What is wrong?",
        "Policy and reference differ before training (equal, they give ln 2 = 0.6931): the "
        "reference is not the model that training starts from. Which of the two is the wrong one "
        "this number does not tell: compare both with the SFT model.",
    ),
    (
        "It is exactly ln 2. Is the reference right?",
        "Not proven: it also holds if both are the same wrong model. Compare the reference's "
        "log-probabilities with the SFT model's.",
    ),
    (
        "The chosen responses' log-probability falls while the margin grows. A bug?",
        "Not by itself: the loss asks for the difference only. Look at the KL and at samples.",
    ),
    (
        "What does a smaller beta do?",
        "It makes the first gradient smaller and the optimum more distant. What you see depends "
        "on the optimiser and on when you stop.",
    ),
    (
        "logps/rejected is -250. Collapse?",
        "A sum over tokens: 100 of them at 2.5 nats. Compare per token, and with the reference.",
    ),
    (
        "How does KTO differ from DPO in its data?",
        "Single responses with a thumb up or down; neither in pairs nor in equal numbers.",
    ),
    (
        "What does ORPO change?",
        "No reference and no separate SFT stage: the SFT loss plus a penalty on the odds of the "
        "rejected response, with length-normalised likelihoods.",
    ),
    (
        "What is reward hacking, and what guards against it?",
        "The policy finds where the reward model errs; proxy up, truth down. A KL term and early "
        "stopping both end the climb sooner, and buy the same at the same distance; a reward model "
        "that errs less needs better data; and evaluate by something that was not optimised.",
    ),
]
