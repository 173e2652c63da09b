"""The exercises of session B, in the order in which the notebook asks them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from .causes import cause_clause as cause_clause
from .diagnosis import Mistake
from .draw import Draw, numbers
from .exercise import Exercise, exercise

# 1. A clause of the rubric: `cause_clause`, which is about the course's own task alone.


# 2. Asking a judge in both orders.


@dataclass(frozen=True)
class Says:
    """A judge whose answer depends on the order alone: the one asked for, and the other one."""

    one_first: float
    other_first: float

    def __call__(self, first: str, second: str) -> float:
        return self.one_first if first == "one" else self.other_first


@exercise(
    title="asking a judge in both orders",
    task=(
        "ask(first, second) shows two responses to a judge in this order and returns 1 if the one "
        "shown first is better, -1 if the second is, 0 for a tie. Return 1 if `one` is better than "
        "`other`, -1 if it is worse, and 0 for a tie or if the judge contradicts itself."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint=(
        "The second answer counts in the order shown *then*: turn its sign before you compare, "
        "`-ask(other, one)`."
    ),
    cases=lambda draw: [
        (Says(there, back), "one", "other") for there in (1.0, -1.0, 0.0) for back in (1, -1, 0)
    ],
    mistakes=[
        Mistake(
            lambda ask, one, other: ask(one, other),
            "it asks once: a judge who always names the first would decide every pair.",
        ),
        Mistake(
            lambda ask, one, other: -ask(other, one),
            "it asks once, in the other order: a judge who always names the first would decide "
            "every pair.",
        ),
        Mistake(
            lambda ask, one, other: ask(one, other) if ask(one, other) == ask(other, one) else 0.0,
            "the second answer is in terms of the *other* order: a judge who says `first` twice "
            "has contradicted itself, one who says `first` and then `second` has not.",
        ),
        Mistake(
            lambda ask, one, other: (ask(one, other) - ask(other, one)) / 2,
            "the mean of both answers: a win and a tie become half a win. A winner must win twice.",
        ),
        Mistake(
            lambda ask, one, other: ask(one, other) - ask(other, one),
            "the sum of both answers: it runs from -2 to 2, and a win and a tie become a win.",
        ),
        Mistake(
            lambda ask, one, other: float(
                (ask(one, other) > ask(other, one)) - (ask(one, other) < ask(other, one))
            ),
            "a win and a tie count as a win: a winner must win in both orders.",
        ),
        Mistake(
            lambda ask, one, other: ask(one, other) or -ask(other, one),
            "the second answer is asked for only after a tie: contradictions go unnoticed.",
        ),
        Mistake(
            lambda ask, one, other: float(ask(one, other) == -ask(other, one)),
            "this says whether the judge agrees with itself; asked for is what it says then.",
        ),
        Mistake(
            lambda ask, one, other: float(ask(one, other) == 1 and ask(other, one) == -1),
            "this is whether `one` won: where it lost in both orders it is -1.",
        ),
        Mistake(
            lambda ask, one, other: -ask_in_both_orders.solution(ask, one, other),
            "the sign is turned around: 1 means that `one` is better.",
        ),
    ],
)
def ask_in_both_orders(ask, one: str, other: str) -> float:
    there, back = ask(one, other), -ask(other, one)
    return there if there == back else 0.0


# 3. A check of the audit: length.


def _texts(draw: Draw, n: int) -> list[str]:
    words = ("a", "no", "yes", "four", "seven", "elevens", "Zz")
    return [" ".join(draw.choices(words, k=draw.randrange(1, 5))) for _ in range(n)]


def _share_won(sizes: list[tuple[float, float]]) -> float:
    unequal = [(won, lost) for won, lost in sizes if won != lost]
    return sum(won > lost for won, lost in unequal) / len(unequal)


def _lengths(chosen: list[str], rejected: list[str]) -> list[tuple[int, int]]:
    return [(len(won), len(lost)) for won, lost in zip(chosen, rejected, strict=True)]


@exercise(
    title="a check of the audit",
    task=(
        "Given lists of chosen and rejected texts, return how often the longer one (in characters) "
        "won, as a share of the pairs in which one is longer."
    ),
    difficulty=1,
    importance=4,
    minutes=5,
    hint=(
        "Pairs of equal length say nothing: they count neither above nor below the line. "
        "`list(zip(chosen, rejected))` are the pairs, `len(chosen[0])` is a length."
    ),
    cases=lambda draw: [
        (["aaa", "a b c d", "b", "cc", "no"], ["a", "aa bbbbbb", "bbb", "dd", "yes"]),
        (["x", "long text", "a b"], ["y", "short", "abcd"]),
        *[(["zz", "to be", *_texts(draw, 12)], ["aa", "not", *_texts(draw, 12)]) for _ in range(3)],
    ],
    mistakes=[
        Mistake(
            lambda won, lost: sum(w > r for w, r in _lengths(won, lost)) / len(won),
            "pairs of equal length are counted as if the shorter had won: leave them out below "
            "the line too.",
        ),
        Mistake(
            lambda won, lost: sum(w >= r for w, r in _lengths(won, lost)) / len(won),
            "pairs of equal length are counted as if the longer had won: leave them out.",
        ),
        Mistake(
            lambda won, lost: (
                sum(w >= r for w, r in _lengths(won, lost))
                / sum(w != r for w, r in _lengths(won, lost))
            ),
            "pairs of equal length are left out below the line, but count as wins above it: `>`.",
        ),
        Mistake(
            lambda won, lost: (
                sum((w > r) + 0.5 * (w == r) for w, r in _lengths(won, lost)) / len(won)
            ),
            "pairs of equal length count half: they say nothing about length; leave them out.",
        ),
        Mistake(
            lambda won, lost: 1 - _share_won(_lengths(won, lost)),
            "this is how often the *shorter* won.",
        ),
        Mistake(
            lambda won, lost: _share_won(
                [(len(w.split()), len(r.split())) for w, r in zip(won, lost, strict=True)]
            ),
            "lengths in words; the exercise asks for characters.",
        ),
        Mistake(
            lambda won, lost: (
                sum(w > r for w, r in zip(won, lost, strict=True))
                / sum(w != r for w, r in zip(won, lost, strict=True))
            ),
            "the texts themselves are compared, that is by the alphabet: compare their len().",
        ),
        Mistake(
            lambda won, lost: sum(w > r for w, r in _lengths(won, lost)),
            "this is the number; the exercise asks for the share.",
        ),
        Mistake(
            lambda won, lost: float(sum(map(len, won)) > sum(map(len, lost))),
            "all texts together are compared: compare pair by pair.",
        ),
        Mistake(
            lambda won, lost: (
                sum(w > r for w, r in _lengths(won, lost))
                / sum(w < r for w, r in _lengths(won, lost))
            ),
            "wins by losses are odds: below the line stand all pairs in which one is longer.",
        ),
    ],
)
def longer_wins(chosen: list[str], rejected: list[str]) -> float:
    lengths = [(len(won), len(lost)) for won, lost in zip(chosen, rejected, strict=True)]
    unequal = [(won, lost) for won, lost in lengths if won != lost]
    return sum(won > lost for won, lost in unequal) / len(unequal)


# 4. Reading an agreement table.


def _chance_corrected(counts: Tensor, expected: Tensor | float) -> Tensor:
    return (counts.diagonal().sum() / counts.sum() - expected) / (1 - expected)


def _shares(counts: Tensor, axis: int) -> Tensor:
    return counts.sum(axis) / counts.sum()


@exercise(
    title="reading an agreement table",
    task=(
        "counts, (L, L), says how often rater one gave label i (row) and rater two label j "
        "(column). Return Cohen's kappa: (observed - expected) / (1 - expected), where expected is "
        "the agreement of two raters who give their labels as often as these, but independently."
    ),
    difficulty=3,
    importance=4,
    minutes=10,
    hint=(
        "expected = sum over labels of (share of the row) times (share of the column). "
        "`counts.sum(1) / counts.sum()` are the rows' shares."
    ),
    cases=lambda draw: [
        (torch.tensor([[20, 5], [10, 15]]),),
        (torch.tensor([[90, 4], [5, 1]]),),
        (numbers(10, 2, 0, 3, 20, 5, 1, 4, 30).reshape(3, 3),),
        *[(draw.integers(3, 3, below=30) + 20 * torch.eye(3).double(),) for _ in range(3)],
    ],
    mistakes=[
        Mistake(
            lambda counts: counts.diagonal().sum() / counts.sum(),
            "this is the observed agreement: where nearly all labels are alike, chance gives most "
            "of it.",
        ),
        Mistake(
            lambda counts: (_shares(counts, 0) * _shares(counts, 1)).sum(),
            "this is the expected agreement alone.",
        ),
        Mistake(
            lambda counts: _chance_corrected(counts, 1 / len(counts)),
            "chance is taken as 1 / L, as if all labels were equally common: use the raters' own "
            "shares.",
        ),
        Mistake(
            lambda counts: (
                counts.diagonal().sum() / counts.sum()
                - (_shares(counts, 0) * _shares(counts, 1)).sum()
            ),
            "not divided by 1 - expected: full agreement must give 1.",
        ),
        Mistake(
            lambda counts: kappa.solution(counts + counts.T),
            "both raters are given the same, averaged shares (that is Scott's pi): kappa takes "
            "each rater's own.",
        ),
        Mistake(
            lambda counts: _chance_corrected(counts, (_shares(counts, 1) ** 2).sum()),
            "the rows' shares are taken for both raters: the columns' belong to the second.",
        ),
        Mistake(
            lambda counts: _chance_corrected(counts, (_shares(counts, 0) ** 2).sum()),
            "the columns' shares are taken for both raters: the rows' belong to the first.",
        ),
        Mistake(
            lambda counts: (
                (counts.diagonal().sum() - (counts.sum(0) * counts.sum(1)).sum())
                / (1 - (counts.sum(0) * counts.sum(1)).sum())
            ),
            "counts where shares are meant: divide by the number of all first.",
        ),
        Mistake(
            lambda counts: _chance_corrected(
                counts, (counts.diagonal() / counts.sum() * _shares(counts, 1)).sum()
            ),
            "the diagonal stands in for the column's share in what is expected.",
        ),
        Mistake(
            lambda counts: (
                counts.diagonal().sum() / counts.sum()
                - (_shares(counts, 0) * _shares(counts, 1)).sum()
                / (1 - (_shares(counts, 0) * _shares(counts, 1)).sum())
            ),
            "a bracket is missing: the difference, observed - expected, is divided as a whole.",
        ),
    ],
)
def kappa(counts: torch.Tensor) -> torch.Tensor:
    share = counts / counts.sum()
    observed = share.diagonal().sum()
    expected = (share.sum(0) * share.sum(1)).sum()
    return (observed - expected) / (1 - expected)


# 5. Leaks.


def _prompts(draw: Draw) -> tuple[list[str], list[str]]:
    """Training and held-out prompts: of those, some again, some in other dress, some twice."""
    words = ["disk", "full", "on", "host", "what", "now", "restart", "it"]
    train = [" ".join(draw.sample(words, 4)) for _ in range(6)]
    dressed = [f"{train[0].capitalize()}.", train[1].replace(" ", ",  "), train[2].upper()]
    turned = " ".join(train[3].split()[::-1])
    new = [" ".join(draw.sample(words, 3)) for _ in range(draw.randrange(1, 5))]
    held_out = [*dressed, dressed[0].lower(), train[4], train[4], turned, *new, new[0]]
    return [*train, train[0]], draw.sample(held_out, len(held_out))


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


@exercise(
    title="how much has leaked",
    task=(
        "Return the share of the held-out prompts that also stand among the training prompts, "
        "where two prompts are the same if they have the same words in the same order: case, "
        "punctuation and spacing do not count. A prompt that is held out twice counts twice."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint=(
        '`import re`; then `" ".join(re.findall(r"\\w+", held_out[0].lower()))` is what remains of '
        "a text."
    ),
    cases=lambda draw: [
        (["Fix it.", "a b"], ["fix it", "a, b!", "b a", "new"]),
        (
            ["Fix it.", "What  is it?", "a b", "a b", "never asked", "the same", "In Capitals"],
            ["fix it", "what is it", "a, b!", "b a", "new", "is it", "the same", "in capitals"],
        ),
        (["x"], ["y", "X."]),
        *[_prompts(draw) for _ in range(4)],
    ],
    mistakes=[
        Mistake(
            lambda train, held_out: sum(p in set(train) for p in held_out) / len(held_out),
            "it compares the texts as they are: another case or a full stop hides the leak.",
        ),
        Mistake(
            lambda train, held_out: (
                sum(p.lower() in {t.lower() for t in train} for p in held_out) / len(held_out)
            ),
            "punctuation and spacing still tell two prompts apart.",
        ),
        Mistake(
            lambda train, held_out: leaked.solution(held_out, train),
            "this is the share of the *training* prompts: the question is how much of the "
            "held-out set is spoilt.",
        ),
        Mistake(
            lambda train, held_out: (
                sum(set(_words(p)) in [set(_words(t)) for t in train] for p in held_out)
                / len(held_out)
            ),
            "it compares sets of words: `b a` is not `a b`.",
        ),
        Mistake(
            lambda train, held_out: (
                len(set(map(_words, train)) & set(map(_words, held_out))) / len(held_out)
            ),
            "the intersection of two sets counts a prompt once, however often it is held out: go "
            "through the held-out prompts one by one.",
        ),
        Mistake(
            lambda train, held_out: (
                len(set(map(_words, train)) & set(map(_words, held_out)))
                / len(set(map(_words, held_out)))
            ),
            "sets on both sides of the line: a prompt that is held out twice counts twice.",
        ),
        Mistake(
            lambda train, held_out: len(set(train) & set(held_out)) / len(held_out),
            "the intersection of the texts as they are: case and punctuation hide a leak, and a "
            "prompt that is held out twice counts once.",
        ),
        Mistake(
            lambda train, held_out: (
                sum(_words(p) in set(map(_words, train)) for p in held_out) / len(train)
            ),
            "divided by the number of *training* prompts: the share is one of the held-out ones.",
        ),
        Mistake(
            lambda train, held_out: (
                sum(
                    any(" ".join(_words(p)) in " ".join(_words(t)) for t in train) for p in held_out
                )
                / len(held_out)
            ),
            "it looks whether a prompt is *part* of a training prompt: `is it` is not `what is "
            "it`.",
        ),
        Mistake(
            lambda train, held_out: leaked.solution(train, held_out) * len(held_out),
            "this is the number; the exercise asks for the share.",
        ),
        Mistake(
            lambda train, held_out: 1 - leaked.solution(train, held_out),
            "this is the share that has *not* leaked.",
        ),
    ],
)
def leaked(train: list[str], held_out: list[str]) -> float:
    def plain(text: str) -> str:
        return " ".join(re.findall(r"\w+", text.lower()))

    known = {plain(prompt) for prompt in train}
    return sum(plain(prompt) in known for prompt in held_out) / len(held_out)


# 6. The KL estimator.


def _sampled(draw: Draw, above: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of four responses of up to five tokens; the policy's are higher by `above`.

    After a response's end stands what a model happened to say there, which must not count.
    """
    reference = draw.normals(4, 5, mean=-3)
    mask = torch.arange(5) < torch.tensor([[draw.randrange(1, 6)] for _ in range(4)])
    return reference + draw.normals(4, 5, mean=above, sd=0.8), reference, mask.double()


def _k3(policy: Tensor, reference: Tensor) -> Tensor:
    return (reference - policy).exp() - 1 + (policy - reference)


@exercise(
    title="the KL from samples",
    task=(
        "N responses were sampled from the policy. policy_logps and reference_logps, (N, T), are "
        "the log-probabilities of their tokens under both models; mask, (N, T), is 1 on a "
        "response's tokens and 0 after its end. Return the estimate k1 of KL(policy || reference) "
        "in nats a *response*: the mean log-ratio."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint=(
        "The log-ratio of a whole response is the sum over its tokens, "
        "`(policy_logps - reference_logps).sum(-1)` if all were as long; then the mean of N."
    ),
    cases=lambda draw: [
        (
            numbers(-1.0, -0.5, -2.0, -1.3, -0.7, -9.0).reshape(2, 3),
            numbers(-1.5, -0.4, -2.5, -0.9, -1.0, -1.0).reshape(2, 3),
            numbers(1, 1, 1, 1, 1, 0).reshape(2, 3),
        ),
        *[_sampled(draw, above) for above in (0.5, 0.5, 0.0, -1.0)],
        tuple(each.float() for each in _sampled(draw, 0.5)),
    ],
    mistakes=[
        Mistake(
            lambda policy, reference, mask: kl_from_samples.solution(reference, policy, mask),
            "the ratio is turned around. For samples of the policy it is log policy - log "
            "reference; the other KL would need samples of the reference.",
        ),
        Mistake(
            lambda policy, reference, mask: (policy - reference).sum(-1).mean(),
            "padding after the end is counted: multiply by the mask.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).sum() / mask.sum(),
            "this is nats a *token*; the exercise asks for nats a response.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).mean(),
            "averaged over the tokens, padding included: sum over a response's tokens first.",
        ),
        Mistake(
            lambda policy, reference, mask: (
                ((policy - reference) * mask).sum(-1) / mask.sum(-1)
            ).mean(),
            "averaged over each response's tokens: nats a *response* are their sum.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).sum(),
            "summed over the responses as well: take the mean of the N.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).sum(-1),
            "one number for each response: the estimate is their mean.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask)[0].sum(),
            "only the first response is counted: take the mean of all N.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).sum(-1).max(),
            "the largest log-ratio: take the mean of all N.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).sum(-1).median(),
            "the median: expectations are means, and a few large ratios count in them.",
        ),
        Mistake(
            lambda policy, reference, mask: (
                (policy.exp() * (policy - reference) * mask).sum(-1).mean()
            ),
            "weighted by the probability once more: sampling has done that already.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference).abs() * mask).sum(-1).mean(),
            "absolute values: single terms may be negative, and must be, for the mean to be right.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).sum(-1).abs().mean(),
            "absolute values of the responses' log-ratios: some may be negative, and must be, for "
            "the mean to be right.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference) * mask).sum(-1).mean().abs(),
            "the size of the mean is taken: an estimate may fall below 0, though the KL cannot.",
        ),
        Mistake(
            lambda policy, reference, mask: (
                ((policy - reference) * mask).clamp(min=0).sum(-1).mean()
            ),
            "tokens are clamped at 0: single terms may be negative, and must be, for the mean to "
            "be right.",
        ),
        Mistake(
            lambda policy, reference, mask: (
                ((policy - reference) * mask).sum(-1).clamp(min=0).mean()
            ),
            "responses are clamped at 0: single log-ratios may be negative, and must be, for the "
            "mean to be right.",
        ),
        Mistake(
            lambda policy, reference, mask: (
                ((policy - reference) * mask).sum(-1).mean().clamp(min=0)
            ),
            "the mean is clamped at 0: the KL is never negative, but an unbiased estimate of a "
            "small one may be.",
        ),
        Mistake(
            lambda policy, reference, mask: (_k3(policy, reference) * mask).sum(-1).mean(),
            "this is the estimate k3, token by token; k1 is the plain log-ratio.",
        ),
        Mistake(
            lambda policy, reference, mask: (((policy - reference) ** 2) / 2 * mask).sum(-1).mean(),
            "this is the estimate k2, half the squared log-ratio; k1 is the plain log-ratio.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference).exp() * mask).sum(-1).mean(),
            "these are ratios of probabilities: their *logarithms* are averaged.",
        ),
    ],
)
def kl_from_samples(
    policy_logps: torch.Tensor, reference_logps: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    return ((policy_logps - reference_logps) * mask).sum(-1).mean()


# 7. Which reference is it?

_LN_2 = math.log(2)


def _first_steps(draw: Draw) -> list[tuple[float, float]]:
    """Losses and log-ratios on either side of both limits, close to them and far away."""
    losses = [
        _LN_2 + side * off
        for side in (-1, 1)
        for off in (0.0, draw.uniform(0.008, 0.0095), draw.uniform(0.0105, 0.014), 0.1)
    ]
    ratios = [
        side * off
        for side in (-1, 1)
        for off in (0.0, draw.uniform(0.03, 0.049), draw.uniform(0.051, 0.07), 5.0)
    ]
    return [(round(loss, 4), round(ratio, 4)) for loss in losses for ratio in ratios]


@exercise(
    title="which reference is it?",
    task=(
        "first_loss is the loss of the first step (sigmoid, no smoothing); log_ratio is log "
        "pi_ref(y|x) - log pi_SFT(y|x), in nats, on some response, measured with the SFT model "
        "loaded from its folder. First: if policy and reference differ, return 0, whatever "
        "log_ratio is (the policy may have started elsewhere). If they are equal, return 1 if both "
        "are the SFT model and 0.5 if both are *another* model. Take as equal what differs by less "
        "than 0.01 in the loss and by less than 0.05 nats in the log-ratio."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint=(
        "ln 2 says that two things are equal. It does not say to what. "
        "`abs(first_loss - 0.6931)` is how far the loss is from it."
    ),
    cases=lambda draw: [
        (0.6931, 0.0),
        (0.6935, 0.01),
        (0.7045, 0.0),
        (0.6931, -7.2),
        (0.61, 2.0),
        *_first_steps(draw),
    ],
    mistakes=[
        Mistake(
            lambda loss, ratio: 1.0 if abs(loss - _LN_2) < 0.01 else 0.0,
            "ln 2 alone: it also holds where both are the same wrong model.",
        ),
        Mistake(
            lambda loss, ratio: 1.0 if abs(ratio) < 0.05 else 0.0,
            "the loss is not looked at: the policy may have started elsewhere.",
        ),
        Mistake(
            lambda loss, ratio: float(abs(loss - _LN_2) < 0.01 and abs(ratio) < 0.05),
            "where both are the same *other* model it is 0.5: the run trains, but from a model "
            "that is not yours.",
        ),
        Mistake(
            lambda loss, ratio: (
                1.0 if abs(ratio) < 0.05 else 0.5 if abs(loss - _LN_2) < 0.01 else 0.0
            ),
            "the loss comes first: where policy and reference differ the answer is 0, even if the "
            "reference is the SFT model.",
        ),
        Mistake(
            lambda loss, ratio: 0.0 if abs(loss - _LN_2) > 0.01 else 1.0 if ratio < 0.05 else 0.5,
            "a log-ratio may be negative: compare its size.",
        ),
        Mistake(
            lambda loss, ratio: 0.0 if loss - _LN_2 > 0.01 else 1.0 if abs(ratio) < 0.05 else 0.5,
            "a first loss *below* ln 2 is as wrong as one above.",
        ),
        Mistake(
            lambda loss, ratio: (
                0.0 if round(loss, 2) != 0.69 else 1.0 if round(ratio, 1) == 0 else 0.5
            ),
            "rounding is not a tolerance: 0.685 to 0.695 rounds to 0.69, which is not 0.01 on "
            "either side of ln 2. Compare the size of the difference.",
        ),
        Mistake(
            lambda loss, ratio: (
                0.0 if round(loss, 4) != 0.6931 else 1.0 if abs(ratio) < 0.05 else 0.5
            ),
            "the loss is compared exactly: a first batch in rounded numbers gives ln 2 only "
            "nearly.",
        ),
        Mistake(
            lambda loss, ratio: 0.0 if abs(loss - _LN_2) > 0.01 else 1.0 if ratio == 0 else 0.5,
            "the log-ratio is compared with 0 exactly: rounding alone moves it. 0.05 nats count as "
            "equal.",
        ),
        Mistake(
            lambda loss, ratio: (
                0.0 if abs(loss - _LN_2) > 0.01 else 0.5 if abs(ratio) < 0.05 else 1
            ),
            "1 and 0.5 have changed places: a log-ratio near 0 means that it *is* the SFT model.",
        ),
        Mistake(
            lambda loss, ratio: 0.0 if abs(loss) > 0.01 else 1.0 if abs(ratio) < 0.05 else 0.5,
            "the loss of equal models is not 0 but -log(1/2) = ln 2.",
        ),
    ],
)
def reference_is(first_loss: float, log_ratio: float) -> float:
    if abs(first_loss - 0.6931) > 0.01:
        return 0.0
    return 1.0 if abs(log_ratio) < 0.05 else 0.5


# 8. Choosing a setting.


def _unpaired(points: Tensor, kls: Tensor) -> int:
    best = points[points.mean(1).argmax()]
    low = best.mean() - 1.96 * best.std() / len(best) ** 0.5
    return int(kls.where(points.mean(1) >= low, torch.inf).argmin())


def _as_good(points: Tensor, deviations: float) -> Tensor:
    """Which runs are behind the best by at most so many deviations over the square root of N."""
    behind = points[points.mean(1).argmax()] - points
    return behind.mean(1) <= deviations * behind.std(1) / points.shape[1] ** 0.5


def _runs(*shares: tuple[int, int, int]) -> Tensor:
    """Points of runs that won, tied and lost so many prompts, in that order."""
    return torch.stack([numbers(*[1.0] * w, *[0.5] * t, *[0.0] * lost) for w, t, lost in shares])


def _sweep(draw: Draw) -> tuple[Tensor, Tensor]:
    """Runs in any order: the best; one as good, for less; one worse, for still less; a lost one.

    The worse one is behind on every fourth prompt and ahead on none, so that it is clearly worse,
    although prompts differ so much that its own interval covers the best one's.
    """
    best = numbers(*draw.choices((0.0, 0.5, 1.0), k=60)).sort().values
    as_good = best.roll(1)
    as_good[:2] = 0.0
    worse = best.clone()
    worse[::4] = (worse[::4] - 0.5).clamp(min=0)
    points = torch.stack([best, as_good, worse, torch.zeros(60)])
    order = torch.tensor(draw.sample(range(4), 4))
    return points[order], numbers(2 + draw.random(), 1.0, 0.5, 4.0)[order]


@exercise(
    title="choosing a setting",
    task=(
        "Of R runs, points, (R, N), says what each earned on the same N prompts against SFT (1 a "
        "win, 0.5 a tie, 0 a loss), kls, (R,), the KL it paid. Return the index of the run to "
        "take: the one with the least KL among those that are not shown to be worse than the run "
        "with the highest mean. Worse is shown where the 95 % interval (normal formula, 1.96) of "
        "the *paired* difference, best run less this one, lies above zero."
    ),
    difficulty=3,
    importance=4,
    minutes=15,
    hint=(
        "`points[points.mean(1).argmax()] - points` has shape (R, N): a paired difference a "
        "prompt. Then as in C."
    ),
    cases=lambda draw: [
        # Little behind, but behind on prompt after prompt: paired, that shows.
        (_runs((40, 40, 20), (34, 40, 26), (40, 39, 21)), numbers(3.0, 0.2, 0.9)),
        # Less behind, and by losing here and winning there: that may be chance.
        (torch.stack([_runs((40, 40, 20))[0], _runs((36, 44, 20))[0].flip(0)]), numbers(2.0, 0.5)),
        (_runs((70, 20, 10), (30, 50, 20), (20, 60, 20)), numbers(1.5, 0.3, 0.29)),
        (_runs((96, 4, 0), (0, 100, 0), (100, 0, 0)), numbers(1.0, 0.1, 2.0)),
        *[_sweep(draw) for _ in range(4)],
    ],
    mistakes=[
        Mistake(
            _unpaired,
            "the other runs are compared with the lower end of the best run's *own* interval: "
            "that is as wide as prompts differ. All answered the same prompts: take differences.",
        ),
        Mistake(
            lambda points, kls: int(points.mean(1).argmax()),
            "the highest win rate alone: runs that cannot be told from it may have paid far less.",
        ),
        Mistake(
            lambda points, kls: int(kls.argmin()),
            "the least KL alone: that is the run that has learnt least.",
        ),
        Mistake(
            lambda points, kls: int(kls.argmax()),
            "the most KL: it is what a run pays. The least of those as good is asked for.",
        ),
        Mistake(
            lambda points, kls: int((points.mean(1) / kls).argmax()),
            "win rate per nat: half a nat less is not worth any number of lost comparisons.",
        ),
        Mistake(
            lambda points, kls: int(
                kls.where(_as_good(points, 1.96 * points.shape[1] ** 0.5), torch.inf).argmin()
            ),
            "the standard deviation of the differences tells how single prompts spread; their "
            "*mean's* standard error is that divided by the square root of N.",
        ),
        Mistake(
            lambda points, kls: int(kls[_as_good(points, 1.96)].argmin()),
            "the index counts among the runs that are left: asked for is the one in points.",
        ),
        Mistake(
            lambda points, kls: int(kls.where(points.mean(1) > 0.5, torch.inf).argmin()),
            "the least KL of those that beat SFT: they must not be shown to be worse than the "
            "*best* run either.",
        ),
        Mistake(
            lambda points, kls: float(kls[choose_setting.solution(points, kls)]),
            "this is the run's KL; the exercise asks for its index.",
        ),
    ],
)
def choose_setting(points: torch.Tensor, kls: torch.Tensor) -> int:
    behind = points[points.mean(1).argmax()] - points  # (R, N)
    error = behind.std(1) / points.shape[1] ** 0.5
    as_good = behind.mean(1) - 1.96 * error <= 0
    return int(kls.where(as_good, torch.inf).argmin())


EXERCISES = {name: value for name, value in list(globals().items()) if isinstance(value, Exercise)}
