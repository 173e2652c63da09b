"""The exercises of session B, in the order in which the notebook asks them."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from .causes import cause_clause as cause_clause
from .exercise import Exercise, Mistake


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# 1. A clause of the rubric: `cause_clause`, which is about the course's own task alone.


# 2. Asking a judge in both orders.

Ask = Callable[[str, str], float]


def _ask_in_both_orders(ask: Ask, one: str, other: str) -> float:
    there, back = ask(one, other), -ask(other, one)
    return there if there == back else 0.0


def _by_length(first: str, second: str) -> float:
    return float((len(first) > len(second)) - (len(first) < len(second)))


def _first(first: str, second: str) -> float:
    return 1.0


def _second(first: str, second: str) -> float:
    return -1.0


def _by_length_or_first(first: str, second: str) -> float:
    return _by_length(first, second) or 1.0


def _never_sure(first: str, second: str) -> float:
    return 0.0


def _tie_or_second(first: str, second: str) -> float:
    return 0.0 if len(first) > len(second) else -1.0


ask_in_both_orders = Exercise(
    title="asking a judge in both orders",
    task=(
        "ask(first, second) shows two responses to a judge in this order and returns 1 if the one "
        "shown first is better, -1 if the second is, 0 for a tie. Return 1 if `one` is better than "
        "`other`, -1 if it is worse, and 0 for a tie or if the judge contradicts itself."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint="The second answer counts in the order shown *then*: turn its sign before you compare.",
    solution=_ask_in_both_orders,
    cases=[
        (_by_length, "longer", "short"),
        (_by_length, "short", "longer"),
        (_by_length, "same", "size"),
        (_first, "a", "b"),
        (_second, "a", "b"),
        (_by_length_or_first, "same", "size"),
        (_by_length_or_first, "a", "bb"),
        (_never_sure, "a", "b"),
        (_tie_or_second, "aa", "b"),
        (_tie_or_second, "a", "bb"),
    ],
    mistakes=[
        Mistake(
            lambda ask, one, other: ask(one, other),
            "it asks once: a judge who always names the first would decide every pair.",
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
            lambda ask, one, other: ask(one, other) or -ask(other, one),
            "the second answer is asked for only after a tie: contradictions go unnoticed.",
        ),
        Mistake(
            lambda ask, one, other: -_ask_in_both_orders(ask, one, other),
            "the sign is turned around: 1 means that `one` is better.",
        ),
    ],
)


# 3. A check of the audit: length.


def _longer_wins(chosen: list[str], rejected: list[str]) -> float:
    lengths = [(len(won), len(lost)) for won, lost in zip(chosen, rejected, strict=True)]
    unequal = [(won, lost) for won, lost in lengths if won != lost]
    return sum(won > lost for won, lost in unequal) / len(unequal)


def _longer_wins_in_words(chosen: list[str], rejected: list[str]) -> float:
    lengths = [(len(w.split()), len(r.split())) for w, r in zip(chosen, rejected, strict=True)]
    unequal = [(won, lost) for won, lost in lengths if won != lost]
    return sum(won > lost for won, lost in unequal) / len(unequal)


longer_wins = Exercise(
    title="a check of the audit",
    task=(
        "Given lists of chosen and rejected texts, return how often the longer one (in characters) "
        "won, as a share of the pairs in which one is longer."
    ),
    difficulty=1,
    importance=4,
    minutes=5,
    hint="Pairs of equal length say nothing: they count neither above nor below the line.",
    solution=_longer_wins,
    cases=[
        (["aaa", "a b c d", "b", "cc", "no"], ["a", "aa bbbbbb", "bbb", "dd", "yes"]),
        (["x", "long text", "a b"], ["y", "short", "abcd"]),
    ],
    mistakes=[
        Mistake(
            lambda won, lost: (
                sum(len(w) > len(r) for w, r in zip(won, lost, strict=True)) / len(won)
            ),
            "pairs of equal length are counted as if the shorter had won: leave them out below "
            "the line too.",
        ),
        Mistake(
            lambda won, lost: (
                sum(len(w) >= len(r) for w, r in zip(won, lost, strict=True)) / len(won)
            ),
            "pairs of equal length are counted as if the longer had won: leave them out.",
        ),
        Mistake(
            lambda won, lost: 1 - _longer_wins(won, lost),
            "this is how often the *shorter* won.",
        ),
        Mistake(
            _longer_wins_in_words,
            "lengths in words; the exercise asks for characters.",
        ),
    ],
)


# 4. Reading an agreement table.


def _kappa(counts: Tensor) -> Tensor:
    share = counts / counts.sum()
    observed = share.diagonal().sum()
    expected = (share.sum(0) * share.sum(1)).sum()
    return (observed - expected) / (1 - expected)


kappa = Exercise(
    title="reading an agreement table",
    task=(
        "counts, (L, L), says how often rater one gave label i (row) and rater two label j "
        "(column). Return Cohen's kappa: (observed - expected) / (1 - expected), where expected is "
        "the agreement of two raters who give their labels as often as these, but independently."
    ),
    difficulty=3,
    importance=4,
    minutes=10,
    hint="expected = sum over labels of (share of the row) times (share of the column).",
    solution=_kappa,
    cases=[
        (_numbers(20, 5, 10, 15).reshape(2, 2),),
        (_numbers(90, 4, 5, 1).reshape(2, 2),),
        (_numbers(10, 2, 0, 3, 20, 5, 1, 4, 30).reshape(3, 3),),
    ],
    mistakes=[
        Mistake(
            lambda counts: counts.diagonal().sum() / counts.sum(),
            "this is the observed agreement: where nearly all labels are alike, chance gives most "
            "of it.",
        ),
        Mistake(
            lambda counts: (
                (counts.diagonal().sum() / counts.sum() - 1 / len(counts)) / (1 - 1 / len(counts))
            ),
            "chance is taken as 1 / L, as if all labels were equally common: use the raters' own "
            "shares.",
        ),
        Mistake(
            lambda counts: (
                counts.diagonal().sum() / counts.sum()
                - ((counts.sum(0) * counts.sum(1)).sum() / counts.sum() ** 2)
            ),
            "not divided by 1 - expected: full agreement must give 1.",
        ),
        Mistake(
            lambda counts: _kappa(counts + counts.T),
            "both raters are given the same, averaged shares (that is Scott's pi): kappa takes "
            "each rater's own.",
        ),
    ],
)


# 5. Leaks.


def _leaked(train: list[str], held_out: list[str]) -> float:
    def plain(text: str) -> str:
        return " ".join(re.findall(r"\w+", text.lower()))

    known = {plain(prompt) for prompt in train}
    return sum(plain(prompt) in known for prompt in held_out) / len(held_out)


leaked = Exercise(
    title="how much has leaked",
    task=(
        "Return the share of the held-out prompts that also stand among the training prompts, "
        "where two prompts are the same if they have the same words in the same order: case, "
        "punctuation and spacing do not count."
    ),
    difficulty=2,
    importance=4,
    minutes=10,
    hint='" ".join(re.findall(r"\\w+", text.lower())) is what remains of a text.',
    solution=_leaked,
    cases=[
        (
            ["Fix it.", "What  is it?", "a b", "a b", "never asked", "the same", "In Capitals"],
            ["fix it", "what is it", "a, b!", "b a", "new", "is it", "the same", "in capitals"],
        ),
        (["x"], ["y", "X."]),
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
            lambda train, held_out: _leaked(held_out, train),
            "this is the share of the *training* prompts: the question is how much of the "
            "held-out set is spoilt.",
        ),
        Mistake(
            lambda train, held_out: (
                sum(
                    frozenset(re.findall(r"\w+", p.lower()))
                    in {frozenset(re.findall(r"\w+", t.lower())) for t in train}
                    for p in held_out
                )
                / len(held_out)
            ),
            "it compares sets of words: `b a` is not `a b`.",
        ),
        Mistake(
            lambda train, held_out: _leaked(train, held_out) * len(held_out),
            "this is the number; the exercise asks for the share.",
        ),
    ],
)

# 6. The KL estimator.


def _kl_from_samples(policy_logps: Tensor, reference_logps: Tensor, mask: Tensor) -> Tensor:
    return ((policy_logps - reference_logps) * mask).sum(-1).mean()


kl_from_samples = Exercise(
    title="the KL from samples",
    task=(
        "N responses were sampled from the policy. policy_logps and reference_logps, (N, T), are "
        "the log-probabilities of their tokens under both models; mask, (N, T), is 1 on a "
        "response's tokens and 0 after its end. Return the estimate k1 of KL(policy || reference) "
        "in nats a *response*."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint="The log-ratio of a whole response is the sum over its tokens; then the mean of N.",
    solution=_kl_from_samples,
    cases=[
        (
            _numbers(-1.0, -0.5, -2.0, -0.3, -0.7, -9.0).reshape(2, 3),
            _numbers(-1.5, -0.4, -2.5, -0.9, -1.0, -1.0).reshape(2, 3),
            _numbers(1, 1, 1, 1, 1, 0).reshape(2, 3),
        )
    ],
    mistakes=[
        Mistake(
            lambda policy, reference, mask: _kl_from_samples(reference, policy, mask),
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
            lambda policy, reference, mask: (
                (policy.exp() * (policy - reference) * mask).sum(-1).mean()
            ),
            "weighted by the probability once more: sampling has done that already.",
        ),
        Mistake(
            lambda policy, reference, mask: ((policy - reference).abs() * mask).sum(-1).mean(),
            "absolute values: single terms may be negative, and must be, for the mean to be right.",
        ),
    ],
)


# 7. Which reference is it?


def _reference_is(first_loss: float, log_ratio: float) -> float:
    if abs(first_loss - 0.6931) > 0.01:
        return 0.0
    return 1.0 if abs(log_ratio) < 0.05 else 0.5


reference_is = Exercise(
    title="which reference is it?",
    task=(
        "first_loss is the loss of the first step (sigmoid, no smoothing); log_ratio is log "
        "pi_ref(y|x) - log pi_SFT(y|x), in nats, on some response, measured with the SFT model "
        "loaded from its folder. First: if policy and reference differ, return 0, whatever "
        "log_ratio is (the policy may have started elsewhere). If they are equal, return 1 if both "
        "are the SFT model and 0.5 if both are *another* model. Take 0.01 for the loss and 0.05 "
        "nats as equal."
    ),
    difficulty=2,
    importance=5,
    minutes=10,
    hint="ln 2 says that two things are equal. It does not say to what.",
    solution=_reference_is,
    cases=[
        (0.6931, 0.0),
        (0.6935, 0.01),
        (0.7045, 0.0),
        (0.6931, -7.2),
        (0.6931, 3.0),
        (0.61, 2.0),
    ],
    mistakes=[
        Mistake(
            lambda loss, ratio: 1.0 if abs(loss - 0.6931) < 0.01 else 0.0,
            "ln 2 alone: it also holds where both are the same wrong model.",
        ),
        Mistake(
            lambda loss, ratio: 1.0 if abs(ratio) < 0.05 else 0.0,
            "the loss is not looked at: the policy may have started elsewhere.",
        ),
        Mistake(
            lambda loss, ratio: (
                1.0 if abs(ratio) < 0.05 else 0.5 if abs(loss - 0.6931) < 0.01 else 0.0
            ),
            "the loss comes first: where policy and reference differ the answer is 0, even if the "
            "reference is the SFT model.",
        ),
        Mistake(
            lambda loss, ratio: 0.0 if abs(loss - 0.6931) > 0.01 else 1.0 if ratio < 0.05 else 0.5,
            "a log-ratio may be negative: compare its size.",
        ),
        Mistake(
            lambda loss, ratio: 0.0 if loss > 0.7031 else 1.0 if abs(ratio) < 0.05 else 0.5,
            "a first loss *below* ln 2 is as wrong as one above.",
        ),
    ],
)

# 8. Choosing a setting.


def _choose_setting(points: Tensor, kls: Tensor) -> int:
    behind = points[points.mean(1).argmax()] - points  # (R, N)
    error = behind.std(1) / points.shape[1] ** 0.5
    as_good = behind.mean(1) - 1.96 * error <= 0
    return int(kls.where(as_good, torch.inf).argmin())


def _unpaired(points: Tensor, kls: Tensor) -> int:
    best = points[points.mean(1).argmax()]
    low = best.mean() - 1.96 * best.std() / len(best) ** 0.5
    return int(kls.where(points.mean(1) >= low, torch.inf).argmin())


def _runs(*shares: tuple[int, int, int]) -> Tensor:
    """Points of runs that won, tied and lost so many prompts, in that order."""
    return torch.stack([_numbers(*[1.0] * w, *[0.5] * t, *[0.0] * lost) for w, t, lost in shares])


choose_setting = Exercise(
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
    hint="points[best] - points has shape (R, N): a paired difference a prompt. Then as in C.",
    solution=_choose_setting,
    cases=[
        # Little behind, but behind on prompt after prompt: paired, that shows.
        (_runs((40, 40, 20), (34, 40, 26), (40, 39, 21)), _numbers(3.0, 0.2, 0.9)),
        # Less behind, and by losing here and winning there: that may be chance.
        (torch.stack([_runs((40, 40, 20))[0], _runs((36, 44, 20))[0].flip(0)]), _numbers(2.0, 0.5)),
        (_runs((70, 20, 10), (30, 50, 20), (20, 60, 20)), _numbers(1.5, 0.3, 0.29)),
        (_runs((96, 4, 0), (0, 100, 0), (100, 0, 0)), _numbers(1.0, 0.1, 2.0)),
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
            lambda points, kls: int((points.mean(1) / kls).argmax()),
            "win rate per nat: half a nat less is not worth any number of lost comparisons.",
        ),
        Mistake(
            lambda points, kls: int(
                kls.where(
                    (points[points.mean(1).argmax()] - points).mean(1)
                    <= 1.96 * (points[points.mean(1).argmax()] - points).std(1),
                    torch.inf,
                ).argmin()
            ),
            "the standard deviation of the differences tells how single prompts spread; their "
            "*mean's* standard error is that divided by the square root of N.",
        ),
    ],
)

EXERCISES = {name: value for name, value in list(globals().items()) if isinstance(value, Exercise)}
