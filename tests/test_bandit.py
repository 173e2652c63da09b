"""The exact world: the derivation's steps to many digits, and estimation against the truth."""

from itertools import pairwise

import pytest
import torch

from coursekit.week.bandit import (
    fit_dpo,
    fit_reward,
    kl_divergence,
    log_partition,
    make_world,
    maximise,
    objective,
    one_hot_features,
    optimal_policy,
    policy_gradient,
    sample_pairs,
    total_variation,
)


@pytest.fixture(scope="module")
def world():
    return make_world()


def test_a_world_is_what_it_says(world):
    torch.testing.assert_close(world.log_reference.exp().sum(-1), torch.ones(3).double())
    assert world.features.shape == (3, 12, 3)
    again, other = make_world(), make_world(seed=1)
    assert torch.equal(world.reward, again.reward) and not torch.equal(world.reward, other.reward)


@pytest.mark.parametrize("beta", [0.4, 1.0, 5.0])
def test_closed_form_is_the_maximiser(world, beta):
    """Direct optimisation, which knows no closed form, ends at the same policy."""
    found = maximise(
        lambda logits: objective(logits.log_softmax(-1), world.log_reference, world.reward, beta),
        torch.zeros(3, 12),
    ).log_softmax(-1)
    best = optimal_policy(world.log_reference, world.reward, beta)
    assert total_variation(found, best).max() < 1e-6
    # The value at the optimum is beta log Z.
    value = objective(best, world.log_reference, world.reward, beta)
    expected = beta * log_partition(world.log_reference, world.reward, beta).mean()
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)


def test_beta_moves_the_optimum_away_from_the_reference(world):
    distances = [
        kl_divergence(
            optimal_policy(world.log_reference, world.reward, beta), world.log_reference
        ).mean()
        for beta in (0.1, 0.5, 1, 5, 50)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-3
    with pytest.raises(ValueError, match="beta is 0"):
        optimal_policy(world.log_reference, world.reward, 0)


def test_policy_gradient_reaches_the_optimum(world):
    path = policy_gradient(world.log_reference, world.reward, beta=1.0, step_size=0.5, steps=100)
    best = optimal_policy(world.log_reference, world.reward, 1.0)
    assert total_variation(path[-1], best).max() < 1e-6
    values = [objective(p, world.log_reference, world.reward, 1.0) for p in path]
    assert all(b >= a - 1e-12 for a, b in pairwise(values))


def test_pairs_follow_bradley_terry(world):
    pairs = sample_pairs(world, 200_000, seed=1)
    prompt, one, other = 0, 0, 1
    met = (pairs.prompts == prompt) & (
        ((pairs.chosen == one) & (pairs.rejected == other))
        | ((pairs.chosen == other) & (pairs.rejected == one))
    )
    won = (pairs.chosen[met] == one).double().mean().item()
    p = torch.sigmoid(world.reward[prompt, one] - world.reward[prompt, other]).item()
    n = met.sum().item()
    assert n > 500 and abs(won - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert (pairs.chosen != pairs.rejected).all()


def test_flipped_labels_and_behaviour(world):
    clean, noisy = (sample_pairs(world, 50_000, seed=2, flipped=share) for share in (0.0, 0.3))
    turned = (clean.chosen != noisy.chosen).double().mean().item()
    assert turned == pytest.approx(0.3, abs=0.01)
    only_three = torch.full((3, 12), -torch.inf, dtype=torch.float64)
    only_three[:, :3] = 0
    pairs = sample_pairs(world, 1000, log_behaviour=only_three.log_softmax(-1))
    assert pairs.chosen.max() <= 2 and pairs.rejected.max() <= 2
    assert len(sample_pairs(world, 0)) == 0


def test_with_plenty_of_pairs_both_reach_the_optimum(world):
    pairs = sample_pairs(world, 100_000, seed=1)
    best = optimal_policy(world.log_reference, world.reward, 1.0)
    dpo = fit_dpo(pairs, world.log_reference, beta=1.0)
    reward = fit_reward(pairs, one_hot_features(3, 12))
    rlhf = policy_gradient(world.log_reference, reward, beta=1.0, steps=200, step_size=0.5)[-1]
    assert total_variation(dpo, best).max() < 0.02
    assert total_variation(rlhf, best).max() < 0.02


def test_in_a_table_dpo_is_the_reward_model_in_other_words(world):
    """Same pairs, same prior: DPO's policy is the closed form of the fitted tabular reward."""
    pairs = sample_pairs(world, 300, seed=3, flipped=0.2)
    dpo = fit_dpo(pairs, world.log_reference, beta=0.5)
    reward = fit_reward(pairs, one_hot_features(3, 12))
    rlhf = optimal_policy(world.log_reference, reward, 0.5)
    assert total_variation(dpo, rlhf).max() < 1e-5


def test_a_tally_is_the_same_data(world):
    pairs = sample_pairs(world, 500, seed=4)
    unique, share = pairs.tally()
    assert len(unique) < len(pairs) and share.sum().item() == pytest.approx(1)
    first = (
        (pairs.prompts == unique.prompts[0])
        & (pairs.chosen == unique.chosen[0])
        & (pairs.rejected == unique.rejected[0])
    )
    assert first.sum().item() == pytest.approx(share[0].item() * 500)


def test_a_function_without_maximum_is_told():
    with pytest.raises(RuntimeError, match="grow without bound"):
        maximise(lambda point: point.sum(), torch.zeros(2), steps=20)
