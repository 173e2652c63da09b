"""The losses against the formulas of the papers, written with `math` on single numbers.

Nothing here uses torch to compute what is expected; gradients are checked by finite differences.
"""

import math
from math import exp, log

import pytest
import torch

from coursekit.lm.losses import (
    cdpo_loss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    robust_dpo_loss,
    simpo_loss,
    unlikelihood_loss,
)

F64 = torch.float64


def sigmoid(x):
    return 1 / (1 + exp(-x))


def pairs():
    """Policy chosen, policy rejected, reference chosen, reference rejected; four pairs."""
    columns = (
        [-10.0, -31.5, -20.25, -4.0],
        [-12.0, -30.0, -22.0, -4.0],
        [-11.0, -30.0, -25.0, -4.0],
        [-11.5, -33.0, -24.5, -4.0],
    )
    return [torch.tensor(column, dtype=F64, requires_grad=True) for column in columns]


def h_of(row):
    pw, pl, rw, rl = (column[row].item() for column in pairs())
    return (pw - rw) - (pl - rl)


PAIRED = {
    "dpo": (lambda *a: dpo_loss(*a, beta=0.3), lambda h: -log(sigmoid(0.3 * h))),
    "cdpo": (
        lambda *a: cdpo_loss(*a, beta=0.3, label_smoothing=0.1),
        lambda h: -0.9 * log(sigmoid(0.3 * h)) - 0.1 * log(sigmoid(-0.3 * h)),
    ),
    "robust": (
        lambda *a: robust_dpo_loss(*a, beta=0.3, label_smoothing=0.1),
        lambda h: (-0.9 * log(sigmoid(0.3 * h)) + 0.1 * log(sigmoid(-0.3 * h))) / 0.8,
    ),
    "ipo": (lambda *a: ipo_loss(*a, beta=0.3), lambda h: (h - 1 / 0.6) ** 2),
}


@pytest.mark.parametrize("name", PAIRED)
def test_paired_losses_by_hand(name):
    loss_of, by_hand = PAIRED[name]
    columns = pairs()
    loss, chosen_rewards, rejected_rewards = loss_of(*columns)
    expected = [by_hand(h_of(row)) for row in range(4)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-9)
    assert chosen_rewards.tolist() == pytest.approx([0.3, -0.45, 1.425, 0.0])
    assert rejected_rewards.tolist() == pytest.approx([-0.15, 0.9, 0.75, 0.0])
    assert not chosen_rewards.requires_grad and not rejected_rewards.requires_grad
    # d loss / d h, by central differences of the formula; h grows with y_w and falls with y_l.
    gradients = torch.autograd.grad(loss.sum(), columns)
    for row in range(4):
        slope = (by_hand(h_of(row) + 1e-5) - by_hand(h_of(row) - 1e-5)) / 2e-5
        found = [gradient[row].item() for gradient in gradients]
        assert found == pytest.approx([slope, -slope, -slope, slope], abs=1e-6)


def test_dpo_weight_in_the_gradient_is_the_probability_of_the_wrong_order():
    columns = pairs()
    loss, chosen, rejected = dpo_loss(*columns, beta=0.3)
    gradient = torch.autograd.grad(loss.sum(), columns[0])[0]
    weights = [sigmoid(lost - won) for won, lost in zip(chosen, rejected, strict=True)]
    assert (-gradient / 0.3).tolist() == pytest.approx(weights)


def test_no_smoothing_is_dpo_and_robust_is_unbiased():
    columns = pairs()
    plain = dpo_loss(*columns, beta=0.3)[0]
    for other in (cdpo_loss, robust_dpo_loss):
        assert torch.equal(other(*columns, beta=0.3, label_smoothing=0.0)[0], plain)
    # Its mean over flipped labels is the loss of the clean ones; cDPO's is not.
    pw, pl, rw, rl = columns
    means = {
        other: 0.8 * other(pw, pl, rw, rl, beta=0.3, label_smoothing=0.2)[0]
        + 0.2 * other(pl, pw, rl, rw, beta=0.3, label_smoothing=0.2)[0]
        for other in (cdpo_loss, robust_dpo_loss)
    }
    torch.testing.assert_close(means[robust_dpo_loss], plain)
    assert (means[cdpo_loss] - plain).abs().max() > 0.01


@pytest.mark.parametrize("kl", [0.7, -0.4])
def test_kto_by_hand(kl):
    policy = torch.tensor([-10.0, -12.0, -30.0], dtype=F64, requires_grad=True)
    reference = torch.tensor([-11.0, -11.5, -33.0], dtype=F64)
    desirable = torch.tensor([True, False, False])
    z = torch.tensor(kl, dtype=F64, requires_grad=True)
    loss, rewards = kto_loss(policy, reference, desirable, z, 0.2, 1.5, 0.5)
    at = max(0.0, kl)
    r = [1.0, -0.5, 3.0]
    expected = [
        1.5 * (1 - sigmoid(0.2 * (r[0] - at))),
        0.5 * (1 - sigmoid(0.2 * (at - r[1]))),
        0.5 * (1 - sigmoid(0.2 * (at - r[2]))),
    ]
    assert loss.tolist() == pytest.approx(expected, abs=1e-9)
    assert rewards.tolist() == pytest.approx([0.2, -0.1, 0.6])
    gradient, through_z = torch.autograd.grad(loss.sum(), [policy, z], allow_unused=True)
    slopes = []
    for weight, sign, ratio in ((1.5, 1, r[0]), (0.5, -1, r[1]), (0.5, -1, r[2])):
        s = sigmoid(0.2 * sign * (ratio - at))
        slopes.append(-weight * sign * 0.2 * s * (1 - s))
    assert gradient.tolist() == pytest.approx(slopes, abs=1e-9)
    assert through_z is None


def test_orpo_by_hand():
    chosen = torch.tensor([-0.5, -2.0, -0.01], dtype=F64, requires_grad=True)
    rejected = torch.tensor([-1.0, -1.5, -4.0], dtype=F64, requires_grad=True)
    loss, ratio = orpo_loss(chosen, rejected, weight=0.25)

    def by_hand(won, lost):
        log_odds = log(exp(won) / (1 - exp(won))) - log(exp(lost) / (1 - exp(lost)))
        return -won - 0.25 * log(sigmoid(log_odds)), log_odds

    values = [by_hand(w, x) for w, x in zip(chosen.tolist(), rejected.tolist(), strict=True)]
    assert loss.tolist() == pytest.approx([value[0] for value in values], abs=1e-9)
    assert ratio.tolist() == pytest.approx([value[1] for value in values], abs=1e-9)
    gradients = torch.autograd.grad(loss.sum(), [chosen, rejected])
    for row in range(3):
        w, x, d = chosen[row].item(), rejected[row].item(), 1e-6
        slopes = (
            (by_hand(w + d, x)[0] - by_hand(w - d, x)[0]) / (2 * d),
            (by_hand(w, x + d)[0] - by_hand(w, x - d)[0]) / (2 * d),
        )
        found = [gradient[row].item() for gradient in gradients]
        assert found == pytest.approx(slopes, abs=1e-6)


def test_unlikelihood_by_hand():
    chosen, rejected = (
        torch.tensor(column, dtype=F64, requires_grad=True)
        for column in ([-1.0, -0.5], [-2.0, -0.1])
    )
    loss = unlikelihood_loss(chosen, rejected, weight=0.25)
    assert loss.tolist() == pytest.approx([1.0 - 0.5, 0.5 - 0.025])
    loss.sum().backward()
    # Whatever the probabilities: the rejected response is pushed down for ever.
    assert chosen.grad.tolist() == [-1, -1] and rejected.grad.tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match="weight is 0"):
        unlikelihood_loss(chosen, rejected, weight=0)
    with pytest.raises(ValueError, match="policy_rejected_mean_logps is not a number in rows"):
        unlikelihood_loss(chosen, rejected * math.nan, weight=1)


def test_simpo_by_hand():
    chosen = torch.tensor([-0.5, -2.0], dtype=F64, requires_grad=True)
    rejected = torch.tensor([-1.0, -1.5], dtype=F64)
    loss, won, lost = simpo_loss(chosen, rejected, beta=2.0, gamma=0.5)
    margins = [2 * 0.5 - 0.5, 2 * -0.5 - 0.5]
    assert loss.tolist() == pytest.approx([-log(sigmoid(m)) for m in margins], abs=1e-9)
    assert (won - lost).tolist() == pytest.approx([1.0, -1.0])
    gradient = torch.autograd.grad(loss.sum(), chosen)[0]
    assert gradient.tolist() == pytest.approx([-2 * sigmoid(-m) for m in margins], abs=1e-9)


CALLS = {
    **{name: loss_of for name, (loss_of, _) in PAIRED.items()},
    "kto": lambda a, b, c, d: kto_loss(a, b, torch.ones_like(a, dtype=torch.bool), 0.1, 0.1),
    "orpo": lambda a, b, c, d: orpo_loss(a, b, 0.1),
    "simpo": lambda a, b, c, d: simpo_loss(a, b, 2.0, 0.5),
}


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", CALLS)
def test_extreme_log_ratios_stay_finite(name, dtype):
    far, near = -1e4, -1e-8
    columns = [
        torch.tensor(column, dtype=dtype, requires_grad=True)
        for column in ([far, near, far], [near, far, far], [near, far, near], [far, near, near])
    ]
    loss = CALLS[name](*columns)[0]
    assert loss.shape == (3,) and torch.isfinite(loss).all()
    gradients = torch.autograd.grad(loss.sum(), columns, allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize("name", CALLS)
def test_an_empty_batch_gives_an_empty_loss(name):
    assert CALLS[name](*[torch.empty(0, dtype=F64)] * 4)[0].shape == (0,)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_number_is_told(name):
    good = torch.tensor([-1.0, -2.0])
    with pytest.raises(ValueError, match=r"is not a number in rows \[1\]"):
        CALLS[name](torch.tensor([-1.0, math.nan]), good, good, good)


@pytest.mark.parametrize("name", CALLS)
def test_shapes_that_differ_are_told(name):
    good = torch.tensor([-1.0, -2.0])
    with pytest.raises(ValueError, match=r"shapes differ.*one log-probability per pair"):
        CALLS[name](good, good[:1], good, good)


def test_settings_out_of_range_are_told():
    columns = pairs()
    with pytest.raises(ValueError, match="beta is 0: it must be greater than 0"):
        dpo_loss(*columns, beta=0)
    with pytest.raises(ValueError, match="weight is -1"):
        orpo_loss(columns[0], columns[1], weight=-1)
    with pytest.raises(ValueError, match=r"label_smoothing is 0.5.*labels say nothing"):
        robust_dpo_loss(*columns, beta=0.1, label_smoothing=0.5)
    with pytest.raises(ValueError, match=r"is above 0 .*no log-probability"):
        orpo_loss(torch.tensor([0.5]), torch.tensor([-1.0]), weight=0.1)
    with pytest.raises(ValueError, match=r"desirable is torch.int64"):
        kto_loss(columns[0], columns[2], torch.ones(4, dtype=torch.long), 0.0, 0.1)


def test_kto_weighs_both_kinds_alike_unless_told():
    inputs = (torch.tensor([-3.0, -2.0]), torch.tensor([-2.5, -2.5]), torch.tensor([True, False]))
    plain = kto_loss(*inputs, 0.1, beta=0.3)[0]
    told = kto_loss(*inputs, 0.1, beta=0.3, desirable_weight=1.0, undesirable_weight=1.0)[0]
    assert plain.tolist() == told.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_orpo_takes_a_certain_response_whose_odds_are_infinite(dtype):
    """A mean log-probability of exactly 0, on either side."""
    columns = [
        torch.tensor(column, dtype=dtype, requires_grad=True) for column in ([0.0, -1.0], [-1.0, 0])
    ]
    loss = orpo_loss(*columns, weight=0.1)[0]
    gradients = torch.autograd.grad(loss.sum(), columns)
    assert loss[0].item() == pytest.approx(0, abs=1e-30)
    assert all(torch.isfinite(x).all() for x in (loss, *gradients))


def test_the_message_names_the_worst_value_and_the_first_rows():
    with pytest.raises(ValueError, match=r"is above 0 \(0\.5\)"):
        orpo_loss(torch.tensor([-1.0, 0.5]), torch.tensor([-1.0, -1.0]), weight=0.1)
    with pytest.raises(ValueError, match=r"in rows \[0, 1, 2, 3, 4\]:"):
        simpo_loss(torch.full((7,), math.nan), torch.zeros(7), beta=2.0, gamma=0.5)
