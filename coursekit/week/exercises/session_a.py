"""The exercises of session A, in the order in which the notebook asks them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .diagnosis import Mistake
from .draw import Draw, numbers
from .exercise import Exercise, exercise

# 1. The Bradley-Terry model.


@exercise(
    title="the Bradley-Terry model",
    task=(
        "Two responses have rewards reward_w and reward_l, tensors of one shape, such as (B,). "
        "Return the probability that the first is preferred, of that shape."
    ),
    difficulty=1,
    importance=5,
    minutes=5,
    hint=(
        "exp(r_w) / (exp(r_w) + exp(r_l)): divide numerator and denominator by exp(r_w). "
        "`torch.sigmoid(reward_w)` is 1 / (1 + exp(-r_w))."
    ),
    cases=lambda draw: [
        (numbers(2.0, 0.5, -1.0), numbers(1.0, 0.5, 3.0)),
        (draw.normals(4, sd=2), draw.normals(4, sd=2)),
        (draw.normals(2, 3), draw.normals(2, 3)),
        (numbers(800.0, -800.0), numbers(-800.0, 800.0)),
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
        Mistake(
            lambda won, lost: torch.sigmoid(won) / (torch.sigmoid(won) + torch.sigmoid(lost)),
            "each reward has its own sigmoid here: only the *difference* of the two counts.",
        ),
        Mistake(
            lambda won, lost: torch.sigmoid(won / lost),
            "the ratio of exponentials is a *difference* in the exponent, not a quotient.",
        ),
        Mistake(
            lambda won, lost: (won > lost).double(),
            "the better one does not always win: the wider apart, the surer. That is the sigmoid.",
        ),
    ],
)
def preference_probability(reward_w: torch.Tensor, reward_l: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(reward_w - reward_l)


# 2. The closed form.


@exercise(
    title="the optimal policy",
    task=(
        "Return the logarithm of the policy that maximises E[r] - beta KL(pi || pi_ref), (X, Y), "
        "from log_reference and reward, both (X, Y): one row for each prompt. beta may be small."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint=(
        "pi_ref(y|x) exp(r(x,y) / beta) / Z(x). In logarithms, and log_softmax divides by Z: the "
        "probabilities in each row of `reward.log_softmax(-1).exp()` sum to 1."
    ),
    cases=lambda draw: [
        (
            numbers(0.5, 0.3, 0.2, 0.1, 0.1, 0.8).reshape(2, 3).log(),
            numbers(1.0, 0.0, 2.0, -1.0, 0.5, 0.0).reshape(2, 3),
            0.5,
        ),
        *[
            (draw.normals(2, 3).log_softmax(-1), draw.normals(2, 3), draw.uniform(0.1, 3.0))
            for _ in range(3)
        ],
        (draw.normals(3, 5).log_softmax(-1), draw.normals(3, 5), 1.7),
        (draw.normals(2, 3).log_softmax(-1), numbers(*range(6)).reshape(2, 3), 0.001),
    ],
    mistakes=[
        Mistake(
            lambda ref, r, beta: (ref + r * beta).log_softmax(-1),
            "the reward is multiplied by beta: it is divided. A small beta lets the reward count.",
        ),
        Mistake(
            lambda ref, r, beta: (ref + r).log_softmax(-1),
            "beta is missing: the reward is divided by it.",
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
            lambda ref, r, beta: (ref + r / beta).softmax(-1).log(),
            "right for a large beta; for a small one a probability becomes 0 and its logarithm "
            "-inf. log_softmax takes both steps at once and stays finite.",
        ),
        Mistake(
            lambda ref, r, beta: ref + r / beta - (ref + r / beta).exp().sum(-1, True).log(),
            "right for a large beta; for a small one exp overflows. logsumexp, or log_softmax, "
            "stays finite.",
        ),
        Mistake(
            lambda ref, r, beta: (ref - r / beta).log_softmax(-1),
            "the sign of the reward is wrong: this policy prefers what is rewarded least.",
        ),
        Mistake(
            lambda ref, r, beta: (ref + r / beta).log_softmax(0),
            "normalised over the prompts (first axis): Z(x) sums over responses, the last one.",
        ),
        Mistake(
            lambda ref, r, beta: (ref.exp() + r / beta).log_softmax(-1),
            "log_reference is a logarithm already: pi_ref exp(r / beta) is a *sum* in logarithms.",
        ),
        Mistake(
            lambda ref, r, beta: ((ref + r) / beta).log_softmax(-1),
            "the reference is divided by beta as well: the reward alone is.",
        ),
    ],
)
def closed_form(log_reference: torch.Tensor, reward: torch.Tensor, beta: float) -> torch.Tensor:
    return (log_reference + reward / beta).log_softmax(-1)


# 3. The implicit reward.


@exercise(
    title="the implicit reward",
    task=(
        "Solve the closed form for the reward: return r(x, y) - beta log Z(x) for responses with "
        "log-probabilities policy_logps and reference_logps, tensors of one shape, such as (B,)."
    ),
    difficulty=1,
    importance=5,
    minutes=5,
    hint=(
        "log pi = log pi_ref + r / beta - log Z. Bring r to one side; log Z stays out. "
        "`policy_logps - reference_logps` is the log-ratio."
    ),
    cases=lambda draw: [
        (numbers(-10.0, -25.0, -3.0), numbers(-12.0, -20.0, -3.0), 0.1),
        *[
            (
                draw.normals(3, mean=-30, sd=9),
                draw.normals(3, mean=-30, sd=9),
                draw.uniform(0.05, 2),
            )
            for _ in range(3)
        ],
        (draw.normals(2, 3).log_softmax(-1), draw.normals(2, 3).log_softmax(-1), 1.0),
    ],
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
            lambda policy, ref, beta: beta * torch.log(policy / ref),
            "these are logarithms already: the logarithm of a ratio is their *difference*.",
        ),
        Mistake(
            lambda policy, ref, beta: beta * (policy.exp() - ref.exp()),
            "these are differences of probabilities; the reward is a difference of *logarithms*.",
        ),
        Mistake(
            lambda policy, ref, beta: beta * (policy - ref).exp(),
            "this is the ratio of probabilities; the reward has its *logarithm*.",
        ),
        Mistake(
            lambda policy, ref, beta: beta * policy,
            "the reference is forgotten: a response that was likely before has earned nothing yet.",
        ),
        Mistake(
            lambda policy, ref, beta: beta * policy - ref,
            "beta multiplies the whole log-ratio, the reference's part included.",
        ),
        Mistake(
            lambda policy, ref, beta: beta * (policy + ref),
            "added where it should be subtracted: a log-*ratio* is a difference.",
        ),
        Mistake(
            lambda policy, ref, beta: torch.sigmoid(beta * (policy - ref)),
            "the sigmoid comes later, around the *difference* of two rewards.",
        ),
    ],
)
def implicit_reward(
    policy_logps: torch.Tensor, reference_logps: torch.Tensor, beta: float
) -> torch.Tensor:
    return beta * (policy_logps - reference_logps)


# 4. The loss.

_FOUR = (
    numbers(-10.0, -31.0, -20.0),
    numbers(-12.0, -30.0, -60.0),
    numbers(-11.0, -30.0, -25.0),
    numbers(-11.5, -33.0, -40.0),
)


@exercise(
    title="the DPO loss",
    task=(
        "Put the implicit reward into the Bradley-Terry likelihood: return the negative "
        "log-likelihood of each pair, (B,), from four vectors of log-probabilities and beta. It "
        "is trained with, so its gradient counts too, and a pair may be ranked wrong by far."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint=(
        "The margin is the difference of two implicit rewards; `F.logsigmoid(policy_chosen)` is "
        "log(sigmoid(policy_chosen)), but stable."
    ),
    cases=lambda draw: [
        (*_FOUR, 0.1),
        (*_FOUR, 2.0),
        *[
            (*(draw.normals(3, mean=-30, sd=6) for _ in range(4)), draw.uniform(0.05, 0.5))
            for _ in range(3)
        ],
        (numbers(-900, -50), numbers(-50, -900), numbers(-50, -50), numbers(-50, -50), 1.0),
        (*(each.float() for each in _FOUR), 0.3),
    ],
    gradients=("policy_chosen", "policy_rejected"),
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
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(((pw - rw) - (pl - rl)) / beta),
            "the log-ratios are divided by beta: the implicit reward is beta *times* them.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * (pw - pl)),
            "the reference is missing: without training the loss would not be ln 2.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * (pw - rw)),
            "the rejected response is missing: the likelihood is that of a *pair*.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * ((pw - rw) + (pl - rl))),
            "the two rewards are added: the margin is their difference.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * (pw - rw - pl - rl)),
            "a bracket is missing: minus (log pi - log pi_ref) of the rejected response *adds* its "
            "reference.",
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
            lambda pw, pl, rw, rl, beta: 1 - torch.sigmoid(beta * ((pw - rw) - (pl - rl))),
            "the logarithm is missing: this is the probability of the wrong order, whose gradient "
            "vanishes where the ranking is most wrong.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: F.relu(1 - beta * ((pw - rw) - (pl - rl))),
            "this is the hinge loss; the likelihood gives -log sigmoid.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -torch.log(torch.sigmoid(beta * (pw - rw - (pl - rl)))),
            "log(sigmoid(...)) and log(1 + exp(...)) become inf where a pair is ranked wrong by "
            "far, and one such pair ruins the step. F.logsigmoid (or F.softplus) stays finite.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: (
                -F.logsigmoid((beta * ((pw - rw) - (pl - rl))).clamp(-20, 20))
            ),
            "the margin or the loss is clamped: pairs that are ranked wrong by far, which need "
            "it most, get no gradient.",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: -F.logsigmoid(beta * ((pw - rw) - (pl - rl))).mean(),
            "averaged over the batch: return the loss of each pair, (B,).",
        ),
        Mistake(
            lambda pw, pl, rw, rl, beta: (
                -F.logsigmoid(beta * ((pw.exp() - rw.exp()) - (pl.exp() - rl.exp())))
            ),
            "the inputs are log-probabilities already: take their differences, without exp.",
        ),
    ],
)
def dpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    chosen_reward = beta * (policy_chosen - reference_chosen)
    rejected_reward = beta * (policy_rejected - reference_rejected)
    return -F.logsigmoid(chosen_reward - rejected_reward)


# 5. The weight in the gradient.


@exercise(
    title="what the gradient weighs",
    task=(
        "The gradient of the DPO loss is -beta * weight * (grad log pi(y_w) - grad log pi(y_l)). "
        "Return the weight of each pair, (B,), from its implicit rewards (beta is in them)."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint=(
        "The derivative of -log sigmoid(m) is -sigmoid(-m), where m is the margin, "
        "`chosen_reward - rejected_reward`."
    ),
    cases=lambda draw: [
        (numbers(0.0, 1.0, -2.0), numbers(0.0, -1.0, 0.5)),
        (draw.normals(4, sd=2), draw.normals(4, sd=2)),
        (draw.normals(4), draw.normals(4, mean=1)),
    ],
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
        Mistake(
            lambda won, lost: torch.exp(lost - won),
            "without 1 + exp(...) below the line it is no probability: pairs ranked wrong would "
            "count without limit. It is the sigmoid.",
        ),
        Mistake(
            lambda won, lost: -F.logsigmoid(won - lost),
            "this is the loss itself; its derivative is asked for.",
        ),
        Mistake(
            lambda won, lost: F.logsigmoid(lost - won),
            "this is the *logarithm* of the weight.",
        ),
        Mistake(
            lambda won, lost: (lost > won).double(),
            "pairs that are ranked right count too, less the surer they are: it is the sigmoid.",
        ),
        Mistake(
            lambda won, lost: torch.sigmoid(0.1 * (lost - won)),
            "a beta is put in once more: it is in the implicit rewards already.",
        ),
    ],
)
def gradient_weight(chosen_reward: torch.Tensor, rejected_reward: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(rejected_reward - chosen_reward)


# 6. Which logits predict which token.


@exercise(
    title="log-probabilities of tokens",
    task=(
        "logits is (B, T, V), input_ids is (B, T). Return log pi of each token given those before "
        "it, (B, T - 1): the first token has none before it. Training differentiates it."
    ),
    difficulty=3,
    importance=5,
    minutes=15,
    hint=(
        "The logits at position t score the token at position t + 1: `logits[:, :-1]` goes with "
        "`input_ids[:, 1:]`. torch.gather picks: `logits.gather(-1, input_ids[:, :, None])`."
    ),
    cases=lambda draw: [
        (draw.normals(1, 3, 4), torch.tensor([[1, 3, 2]])),
        (draw.normals(2, 5, 7), torch.tensor([[1, 4, 2, 6, 0], [3, 3, 5, 1, 2]])),
        (draw.normals(3, 4, 4), draw.integers(3, 4, below=4)),
        (900 * draw.normals(2, 4, 5), draw.integers(2, 4, below=5)),  # probabilities of 0
    ],
    gradients=("logits",),
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
        Mistake(
            lambda logits, ids: (
                logits[:, :-1].softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1).log()
            ),
            "log(softmax(...)): a probability that is too small becomes 0 and its logarithm -inf. "
            "log_softmax takes both steps at once.",
        ),
        Mistake(
            lambda logits, ids: (
                logits[:, :-1].log_softmax(1).gather(-1, ids[:, 1:, None]).squeeze(-1)
            ),
            "normalised over the positions: the probabilities that sum to 1 are those of the "
            "vocabulary, the last axis.",
        ),
        Mistake(
            lambda logits, ids: (
                -(logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1))
            ),
            "the sign: cross-entropy is the *negative* log-probability.",
        ),
        Mistake(
            lambda logits, ids: logits[:, :-1].log_softmax(-1).max(-1).values,
            "these are the most likely tokens' values; wanted are those of the tokens that are "
            "there, input_ids.",
        ),
        Mistake(
            lambda logits, ids: (
                logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1).sum(-1)
            ),
            "summed over the tokens: that comes in the next exercise, and only over the response.",
        ),
    ],
)
def token_logps(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    logps = logits[:, :-1].log_softmax(-1)
    return logps.gather(-1, input_ids[:, 1:, None]).squeeze(-1)


# 7. The sum over the response.


def _masks(draw: Draw, rows: int, length: int) -> Tensor:
    """Masks of (rows, length): some tokens of prompt, then response, then padding."""
    ends = [sorted(draw.sample(range(1, length + 1), 2)) for _ in range(rows)]
    places = torch.arange(length)
    return torch.stack([(places >= start) & (places < end) for start, end in ends]).long()


def _without_last(mask: Tensor) -> Tensor:
    last = mask.cumsum(-1) == mask.sum(-1, keepdim=True)
    return mask * ~last


@exercise(
    title="the log-probability of a response",
    task=(
        "per_token is (B, T - 1), as from the exercise before. response_mask is (B, T) and 1 on "
        "the response's tokens, the end token included. Return log pi(y | x), (B,)."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint=(
        "Entry t of per_token belongs to token t + 1, so the mask loses its first column: "
        "`response_mask[:, 1:]`."
    ),
    cases=lambda draw: [
        # Two prompt tokens, three of the response with its end token; one and two, and padding.
        (
            -numbers(0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8).reshape(2, 4),
            torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]),
        ),
        *[(-draw.uniforms(3, 7, high=4.0), _masks(draw, 3, 8)) for _ in range(3)],
    ],
    gradients=("per_token",),
    mistakes=[
        Mistake(
            lambda logps, mask: (logps * mask[:, 1:]).sum(-1) / mask[:, 1:].sum(-1),
            "this is the mean over tokens; log pi(y | x) is a *sum*. With means the loss is "
            "another one, and long responses count less.",
        ),
        Mistake(
            lambda logps, mask: (logps * mask[:, 1:]).mean(-1),
            "this is a mean, even over prompt and padding; log pi(y | x) is a *sum*.",
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
            lambda logps, mask: (logps * (1 - mask[:, 1:])).sum(-1),
            "the mask is the wrong way round: 1 marks the tokens that count.",
        ),
        Mistake(
            lambda logps, mask: (logps * _without_last(mask)[:, 1:]).sum(-1),
            "the end token is left out: a policy is also scored on stopping, or never learns to.",
        ),
        Mistake(
            lambda logps, mask: (logps * mask[:, 1:]).sum(),
            "summed over the batch as well: return one value for each response, (B,).",
        ),
        Mistake(
            lambda logps, mask: (logps * mask[:, 1:]).sum(0),
            "summed over the batch (first axis): sum over the tokens, the last one.",
        ),
        Mistake(
            lambda logps, mask: (logps.exp() * mask[:, 1:]).sum(-1).log(),
            "probabilities of tokens are multiplied, not added: their *logarithms* are added.",
        ),
        Mistake(
            lambda logps, mask: (logps * mask[:, 1:]).sum(-1).exp(),
            "this is the probability, which is 0 in the computer for a long response: the "
            "exercise asks for its logarithm.",
        ),
    ],
)
def response_logp(per_token: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    return (per_token * response_mask[:, 1:]).sum(-1)


# 8. IPO.


@exercise(
    title="the IPO loss",
    task=(
        "From the log-ratios log pi / pi_ref of chosen and rejected, (B,), return IPO's loss of "
        "each pair: the squared distance of their difference from where it should settle."
    ),
    difficulty=2,
    importance=3,
    minutes=10,
    hint=(
        "It settles at 1 / (2 beta), `1 / (2 * beta)`. The log-ratios are in nats; beta is not in "
        "them."
    ),
    cases=lambda draw: [
        (numbers(1.0, -2.0, 6.0), numbers(0.0, 1.0, 1.0), 0.1),
        *[
            (draw.normals(3, sd=4), draw.normals(3, sd=4), draw.uniform(0.05, 1.0))
            for _ in range(3)
        ],
    ],
    gradients=("chosen_log_ratio", "rejected_log_ratio"),
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
            lambda won, lost, beta: (beta * (won - lost) - 0.5) ** 2,
            "this is beta squared times what is asked for: divide the inside by beta.",
        ),
        Mistake(
            lambda won, lost, beta: (won - lost - beta / 2) ** 2,
            "the target is 1 / (2 beta), not beta / 2 (1 / 2 * beta is that, without brackets): a "
            "smaller beta lets it go further.",
        ),
        Mistake(
            lambda won, lost, beta: (lost - won - 1 / (2 * beta)) ** 2,
            "chosen and rejected have swapped roles, or the sign of the target is wrong: this "
            "pulls the margin to -1 / (2 beta).",
        ),
        Mistake(
            lambda won, lost, beta: won - lost - 1 / (2 * beta),
            "the square is missing: a loss must grow on both sides of the target.",
        ),
        Mistake(
            lambda won, lost, beta: (won - lost - 1 / (2 * beta)).abs(),
            "the distance is not squared.",
        ),
        Mistake(
            lambda won, lost, beta: (won - lost - 1 / (2 * beta)).clamp(max=0) ** 2,
            "nothing is lost beyond the target here: IPO pulls back a margin that is too wide.",
        ),
        Mistake(
            lambda won, lost, beta: (won - lost) ** 2 - 1 / (2 * beta),
            "the difference is squared before the target is subtracted.",
        ),
        Mistake(
            lambda won, lost, beta: (won - lost) ** 2,
            "the target is missing: this pulls the margin to 0.",
        ),
    ],
)
def ipo_loss(
    chosen_log_ratio: torch.Tensor, rejected_log_ratio: torch.Tensor, beta: float
) -> torch.Tensor:
    return (chosen_log_ratio - rejected_log_ratio - 1 / (2 * beta)) ** 2


# 9. KTO's point of reference.


@exercise(
    title="KTO and its point of reference",
    task=(
        "Return KTO's loss for desirable responses, (B,): 1 - sigmoid(beta (log_ratio - z)), where "
        "z is the mean of mismatched_log_ratio, not below 0, through which no gradient flows."
    ),
    difficulty=3,
    importance=3,
    minutes=10,
    hint="`mismatched_log_ratio.mean()` comes first; then clamp(min=0), and detach().",
    cases=lambda draw: [
        (numbers(1.0, -2.0), numbers(0.5, 2.5, -0.3), 0.5),
        (numbers(1.0, -2.0), numbers(-4.0, 1.0), 0.5),
        (draw.normals(3), draw.normals(4, mean=2), draw.uniform(0.2, 2.0)),
        (draw.normals(3), draw.normals(4, mean=-2), draw.uniform(0.2, 2.0)),
        (draw.normals(3), draw.normals(3, mean=1, sd=3), draw.uniform(0.2, 2.0)),
    ],
    gradients=("log_ratio", "mismatched_log_ratio"),
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
            lambda ratio, other, beta: (
                1 - torch.sigmoid(beta * (ratio - other.clamp(min=0).mean().detach()))
            ),
            "clamped before the mean: single log-ratios may be negative. The *mean* may not.",
        ),
        Mistake(
            lambda ratio, other, beta: (
                1 - torch.sigmoid(beta * (ratio - other.mean().abs().detach()))
            ),
            "the size of a negative mean is taken: where it falls below 0, z is 0.",
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
        Mistake(
            lambda ratio, other, beta: (
                1 - torch.sigmoid(ratio - other.mean().clamp(min=0).detach())
            ),
            "beta is missing.",
        ),
        Mistake(
            lambda ratio, other, beta: (
                1 - torch.sigmoid(beta * (ratio + other.mean().clamp(min=0).detach()))
            ),
            "z is added: a response is desirable by how far it lies *above* z.",
        ),
        Mistake(
            lambda ratio, other, beta: (
                1 - torch.sigmoid(beta * (ratio - other.sum().clamp(min=0).detach()))
            ),
            "z is the *mean* of the mismatched log-ratios, not their sum.",
        ),
        Mistake(
            lambda ratio, other, beta: (
                -F.logsigmoid(beta * (ratio - other.mean().clamp(min=0).detach()))
            ),
            "this is the log-sigmoid of DPO; KTO's loss is 1 - sigmoid.",
        ),
    ],
)
def kto_desirable(
    log_ratio: torch.Tensor, mismatched_log_ratio: torch.Tensor, beta: float
) -> torch.Tensor:
    z = mismatched_log_ratio.mean().clamp(min=0).detach()
    return 1 - torch.sigmoid(beta * (log_ratio - z))


# 10. ORPO's odds.


@exercise(
    title="ORPO's odds ratio",
    task=(
        "p is exp of the *mean* log-probability of a response's tokens. Return log odds(p_w) - "
        "log odds(p_l), (B,), with odds(p) = p / (1 - p), from those means. Training is by its "
        "gradient, and p may come so near to 0 or 1 that the computer cannot tell it from them."
    ),
    difficulty=3,
    importance=2,
    minutes=10,
    hint="log odds = log p - log(1 - p), and 1 - p is `-torch.expm1(chosen_mean_logps)`.",
    cases=lambda draw: [
        (numbers(-0.1, -2.0), numbers(-0.5, -1.0)),
        *[
            (draw.uniforms(3, low=-3, high=-0.01), draw.uniforms(3, low=-3, high=-0.01))
            for _ in range(3)
        ],
        (numbers(-1e-17, -0.5), numbers(-1.0, -1.0)),
        (numbers(-0.5, -1e-9).float(), numbers(-1.0, -1.0).float()),
        (numbers(-0.5, -900.0), numbers(-900.0, -1.0)),
    ],
    gradients=("chosen_mean_logps", "rejected_mean_logps"),
    mistakes=[
        Mistake(
            lambda won, lost: won - lost,
            "this is the log-ratio of probabilities; the odds also divide by 1 - p.",
        ),
        Mistake(
            lambda won, lost: (
                torch.log(won.exp() / (1 - won.exp())) - torch.log(lost.exp() / (1 - lost.exp()))
            ),
            "log(p / (1 - p)): where p is near 1 it rounds to 1, and this divides by 0; where it "
            "is near 0, the logarithm of 0 is taken. Stay in logarithms, with torch.expm1.",
        ),
        Mistake(
            lambda won, lost: (won - torch.log1p(-won.exp())) - (lost - torch.log1p(-lost.exp())),
            "log(1 - p): where p is near 1, exp rounds to 1 and the logarithm is -inf. "
            "-torch.expm1(log p) is 1 - p without that loss.",
        ),
        Mistake(
            lambda won, lost: (
                (won + torch.log(-torch.expm1(won))) - (lost + torch.log(-torch.expm1(lost)))
            ),
            "log odds = log p *minus* log(1 - p).",
        ),
        Mistake(
            lambda won, lost: (
                torch.log(-torch.expm1(won)) - won - torch.log(-torch.expm1(lost)) + lost
            ),
            "chosen and rejected have swapped roles, or the odds are turned over.",
        ),
        Mistake(
            lambda won, lost: torch.exp(log_odds_ratio.solution(won, lost)),
            "this is the odds ratio itself; the exercise asks for its logarithm.",
        ),
        Mistake(
            lambda won, lost: F.logsigmoid(log_odds_ratio.solution(won, lost)),
            "this goes one step further, to ORPO's penalty: the log odds ratio alone is asked for.",
        ),
        Mistake(
            lambda won, lost: torch.log(won / (1 - won)) - torch.log(lost / (1 - lost)),
            "the inputs are log-probabilities; p is exp of them.",
        ),
        Mistake(
            lambda won, lost: won - torch.log(-torch.expm1(won)),
            "the rejected response is missing: the ratio is of *two* odds.",
        ),
        Mistake(
            lambda won, lost: torch.log(-torch.expm1(lost)) - torch.log(-torch.expm1(won)),
            "log p is missing: the odds are p / (1 - p).",
        ),
    ],
)
def log_odds_ratio(
    chosen_mean_logps: torch.Tensor, rejected_mean_logps: torch.Tensor
) -> torch.Tensor:
    chosen = chosen_mean_logps - torch.log(-torch.expm1(chosen_mean_logps))
    rejected = rejected_mean_logps - torch.log(-torch.expm1(rejected_mean_logps))
    return chosen - rejected


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
