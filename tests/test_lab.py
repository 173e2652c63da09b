"""The lab: its mathematics by other ways, its trainers on what can be counted, its sweep."""

import inspect
import itertools
import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import NATS

from coursekit.common.journal import read_journal
from coursekit.lm.logprobs import sequence_logps
from coursekit.lm.losses import unlikelihood_loss
from coursekit.week.bandit import (
    expected_reward,
    fit_dpo,
    kl_divergence,
    make_world,
    optimal_policy,
    sample_pairs,
)
from coursekit.week.lab import (
    advantages,
    methods,
    offline,
    online,
    points,
    record,
    studies,
    sweep,
    train,
)
from coursekit.week.lab.best_of_n import best_of_n_kl, best_of_n_reward, best_trade
from coursekit.week.lab.pair_trainer import PairTrainer
from coursekit.week.lab.start import Start, prepare, whole_model
from coursekit.workspace import Workspace

REWARDS = torch.tensor([[1.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2], [0.9, 0.1, 0.4, 0.0]])


# Advantages.


def test_leave_one_out_is_the_reward_less_the_mean_of_the_others():
    found = advantages.leave_one_out(REWARDS)
    for prompt, rewards in enumerate(REWARDS.tolist()):
        for place, reward in enumerate(rewards):
            others = rewards[:place] + rewards[place + 1 :]
            expected = reward - sum(others) / len(others)
            assert found[prompt, place].item() == pytest.approx(expected, abs=1e-6)


def test_group_normalised_has_mean_0_and_deviation_1_but_for_equal_rewards():
    found = advantages.group_normalised(REWARDS, epsilon=0.0)
    for prompt in (0, 2):
        values = REWARDS[prompt].double().numpy()
        expected = (values - values.mean()) / values.std(ddof=1)
        assert found[prompt].numpy() == pytest.approx(expected, abs=1e-5)
    assert advantages.group_normalised(REWARDS)[1].tolist() == pytest.approx([0.0] * 4, abs=1e-3)


@pytest.mark.parametrize("rewards", [torch.ones(3, 1), torch.ones(4)])
@pytest.mark.parametrize("of", [advantages.leave_one_out, advantages.group_normalised])
def test_a_response_alone_has_no_advantage(of, rewards):
    with pytest.raises(ValueError, match="at least n = 2 responses"):
        of(rewards)


def test_leave_one_out_climbs_to_the_known_optimum():
    """In session A's exact world: sampled groups, the KL taken off the reward, as RLOO does."""
    world, beta = make_world(seed=3), 0.7
    logits = world.log_reference.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=600)
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        policy = logits.log_softmax(-1)
        drawn = torch.multinomial(policy.exp().detach(), 256, True, generator=generator)  # (X, n)
        logps = policy.gather(1, drawn)
        kl = logps.detach() - world.log_reference.gather(1, drawn)
        rewards = world.reward.gather(1, drawn) - beta * kl
        loss = -(advantages.leave_one_out(rewards) * logps).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    policy, best = (
        logits.detach().log_softmax(-1),
        optimal_policy(world.log_reference, world.reward, beta),
    )
    start = kl_divergence(best, world.log_reference).mean()
    assert kl_divergence(policy, best).mean() < 0.02 * start


# Best of n, and the optimum.


def best_of_n_in(world, n):
    """The exact policy of the best of `n` draws: how likely each response is the best, (X, Y)."""
    order = world.reward.argsort(-1)
    below = world.log_reference.exp().gather(1, order).cumsum(-1)  # ascending
    shares = torch.diff(below**n, dim=-1, prepend=torch.zeros(len(below), 1, dtype=below.dtype))
    return torch.zeros_like(shares).scatter_(1, order, shares).clamp(min=1e-300).log()


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_kl_of_the_best_of_n_keeps_its_bound_and_reaches_it_in_a_large_world(n):
    world = make_world(n_responses=12)
    exact = kl_divergence(best_of_n_in(world, n), world.log_reference)
    assert (exact <= best_of_n_kl(n) + 1e-9).all()
    large = make_world(n_prompts=1, n_responses=20_000)
    flat = replace(large, log_reference=torch.full_like(large.log_reference, -math.log(20_000)))
    exact = kl_divergence(best_of_n_in(flat, n), flat.log_reference).item()
    assert exact == pytest.approx(best_of_n_kl(n), abs=0.01)


def test_the_best_of_no_sample_is_refused():
    with pytest.raises(ValueError, match="n is 0"):
        best_of_n_kl(0)
    with pytest.raises(ValueError, match="from 1 to that many"):
        best_of_n_reward(np.ones((1, 3)), np.ones((1, 3)), 4)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_the_reward_of_the_best_of_n_is_the_mean_over_all_draws(n):
    rng = np.random.default_rng(0)
    rewards, scores = rng.random((2, 6)), rng.random((2, 6))
    found = best_of_n_reward(rewards, scores, n)
    for prompt in range(2):
        draws = list(itertools.combinations(range(6), n))
        best = [max(draw, key=lambda at: scores[prompt, at]) for draw in draws]
        assert found[prompt] == pytest.approx(np.mean([rewards[prompt, at] for at in best]))


def drawn(world, samples, seed=0):
    """Rewards of samples of the reference, (X, N)."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.multinomial(world.log_reference.exp(), samples, True, generator=generator)
    return world.reward.gather(1, picks).numpy()


def test_the_best_of_n_has_the_exact_worlds_reward():
    world = make_world()
    rewards = drawn(world, 20_000)
    found = best_of_n_reward(rewards, rewards, 4)
    exact = expected_reward(best_of_n_in(world, 4), world.reward).numpy()
    assert found == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("beta", [2.0, 0.5])
def test_the_best_trade_is_the_exact_worlds_optimum(beta):
    world = make_world()
    reward, kl = best_trade(drawn(world, 50_000), beta)
    best = optimal_policy(world.log_reference, world.reward, beta)
    assert reward == pytest.approx(expected_reward(best, world.reward).numpy(), abs=0.03)
    assert kl == pytest.approx(kl_divergence(best, world.log_reference).numpy(), abs=0.03)


def test_no_policy_is_above_the_best_trade():
    """Best of 4 has more KL for the reward that it has, or less reward at its KL."""
    world = make_world()
    policy = best_of_n_in(world, 4)
    kl, reward = kl_divergence(policy, world.log_reference), expected_reward(policy, world.reward)
    rewards = drawn(world, 50_000)
    trades = [best_trade(rewards, beta) for beta in np.geomspace(0.05, 20, 60)]
    for prompt in range(len(kl)):
        most = np.interp(
            kl[prompt], *zip(*sorted((k[prompt], r[prompt]) for r, k in trades), strict=True)
        )
        assert reward[prompt] <= most + 0.02


def test_a_beta_of_0_is_no_trade():
    with pytest.raises(ValueError, match="beta is 0"):
        best_trade(np.ones((1, 2)), 0)


# The lab's start: a model, labels and answers, small.


@pytest.fixture(scope="module")
def start(quick, sft_folder, tmp_path_factory):
    profile = replace(quick, threads=1, artifacts=tmp_path_factory.mktemp("lab"), max_new_tokens=64)
    workspace = Workspace(profile)
    workspace.sft = lambda: sft_folder
    return prepare(workspace, 0, prompts=10, evaluation=8)


def test_the_start_is_what_all_methods_share(start):
    assert len(start.prompts) == len(start.candidates) == 10 and len(start.answers) == 8
    assert start.samples == 10 * 4 and start.labels >= len(start.triples) + len(start.held) > 8
    trained, held = ({row["prompt"] for row in rows} for rows in (start.triples, start.held))
    assert not trained & held and not trained & {row["prompt"] for row in start.evaluation}


def test_the_whole_model_is_the_adapter_on_its_base(start, sft_folder, quick, tokenizer, triples):
    from coursekit.lm.loading import load_model

    prompts, texts = ([row[name] for row in triples[:4]] for name in ("prompt", "chosen"))
    ours, theirs = (
        sequence_logps(load_model(folder, quick), tokenizer, prompts, texts)
        for folder in (start.model, sft_folder)
    )
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=NATS)


def test_a_whole_model_of_something_else_is_set_aside(start, quick, tmp_path, capsys):
    folder = whole_model(quick.base_model, tmp_path / "whole", quick)
    assert whole_model(quick.base_model, tmp_path / "whole", quick) == folder
    whole_model(start.model, tmp_path / "whole", quick)
    assert (tmp_path / "whole-old1").is_dir() and "source was" in capsys.readouterr().out


def test_triples_are_chosen(start):
    n = len(start.triples)
    widest = start.triples_of(choice="widest")
    margins = [row["chosen_score"] - row["rejected_score"] for row in widest]
    assert margins == sorted(margins, reverse=True) and len(widest) == n
    one = start.triples_of(choice="one a prompt")
    assert [row["prompt"] for row in one] == list(dict.fromkeys(r["prompt"] for r in start.triples))
    assert len(start.triples_of(n=2)) == 2
    with pytest.raises(ValueError, match="triples wanted"):
        start.triples_of(n=1000)
    with pytest.raises(ValueError, match="unknown choice"):
        start.triples_of(choice="best")


def test_labels_are_turned_around_at_random(start):
    many = replace(start, triples=list(start.triples) * 100)
    turned = [
        row["chosen"] != before["chosen"]
        for row, before in zip(many.triples_of(wrong=0.3), many.triples, strict=True)
    ]
    assert 0.25 < sum(turned) / len(turned) < 0.35


# A point.


def test_the_sft_model_is_at_no_distance_from_itself(start):
    here = points.Checkpoint(start.model, 0, points.Spent())
    point = points.measure(here, start)
    assert point["kl"] == point["k3"] == point["chosen"] == point["rejected"] == 0
    answered = points.answered(here, start)
    assert answered["wins"] == [0.5] * 8
    assert answered["rewards"] == pytest.approx(
        [start.judge.score(*one) for one in zip(start.evaluation, start.answers, strict=True)],
        abs=1e-4,
    )


def test_the_reward_is_the_rubrics_mean_over_the_sampled_texts(start, tokenizer):
    from coursekit.lm.generation import generate
    from coursekit.lm.loading import load_model

    texts = generate(
        load_model(start.model, start.profile),
        tokenizer,
        [row["prompt"] for row in start.evaluation],
        max_new_tokens=64,
        temperature=1.0,
        batch_size=start.profile.generation_batch,
        label=None,
    )
    point = points.measure(points.Checkpoint(start.model, 0, points.Spent()), start)
    truths = [start.task.truth(*one) for one in zip(start.evaluation, texts, strict=True)]
    assert point["reward"] == pytest.approx(np.mean(truths))


def test_the_kl_of_a_cooler_policy_is_that_of_its_distribution(start, tokenizer):
    """Of one token, which can be counted: every entry of the vocabulary."""
    from coursekit.lm.loading import load_model
    from coursekit.lm.logprobs import encode_prompt

    rows = [row for row in start.evaluation[:2] for _ in range(150)]
    short = replace(start, evaluation=rows, profile=replace(start.profile, max_new_tokens=1))
    point = points.measure(points.Checkpoint(start.model, 0, points.Spent(), 0.5), short)
    model, exact = load_model(start.model, start.profile), []
    for row in start.evaluation[:2]:
        ids = torch.tensor([encode_prompt(tokenizer, row["prompt"])])
        with torch.no_grad():
            logits = model(ids).logits[0, -1]
        cool, plain = (logits / 0.5).log_softmax(-1), logits.log_softmax(-1)
        exact.append((cool.exp() * (cool - plain)).sum().item())
    assert abs(point["kl"] - np.mean(exact)) < 4 * point["kl_se"] + 1e-6
    assert point["kl"] != 0


def test_best_of_n_and_the_optimum_are_made_of_the_same_samples(start, tmp_path, monkeypatch):
    from coursekit.week.lab import untrained

    made = methods.METHODS["best of n"](start, tmp_path, 1, reward="true", samples=8)
    assert [point["n"] for point in made] == [2, 4]
    assert [point["kl"] for point in made] == [best_of_n_kl(2), best_of_n_kl(4)]
    sampled = read_journal(start.folder / "8_samples.jsonl")
    truths = np.array(
        [[start.task.truth(row, one["response"]) for one in row["candidates"]] for row in sampled]
    )
    assert truths.shape == (8, 8)
    assert made[1]["reward"] == pytest.approx(best_of_n_reward(truths, truths, 4).mean())
    # By the learned reward's scores it chooses where those are asked for.
    monkeypatch.setattr(untrained, "learned_reward", lambda start: lambda rows, texts: [0] * 64)
    monkeypatch.setattr(untrained, "best_of_n_reward", lambda rewards, scores, n: scores.mean(1))
    blind = methods.METHODS["best of n"](start, tmp_path, 1, reward="learned", samples=8)
    assert blind[0]["reward"] == 0 and blind[0]["labels"] == start.labels
    first, last = methods.METHODS["optimum"](start, tmp_path, 1, betas=[100, 0.05], samples=8)
    assert first["reward"] == pytest.approx(truths.mean(), abs=0.01) and first["kl"] < 0.01
    assert truths.mean() < last["reward"] <= truths.max(1).mean() and 0 < last["kl"] <= math.log(8)


# Trainers.


def test_the_pair_trainers_first_loss_is_that_of_the_models_own_log_probabilities(start, tokenizer):
    from coursekit.lm.loading import load_model
    from coursekit.training.arguments import lora_config

    rows = list(start.triples[:4])
    settings = train.settings_of(start)
    means = {
        side: torch.stack(
            [
                logps.mean()
                for logps in sequence_logps(
                    load_model(start.model, start.profile),
                    tokenizer,
                    [row["prompt"] for row in rows],
                    [row[side] for row in rows],
                    per_token=True,
                )
            ]
        )
        for side in ("chosen", "rejected")
    }
    expected = unlikelihood_loss(means["chosen"], means["rejected"], 0.5).mean().item()
    trainer = PairTrainer(
        loss=lambda *logps: unlikelihood_loss(*logps, 0.5),
        model=load_model(start.model, start.profile),
        tokenizer=tokenizer,
        triples=rows,
        adapter=lora_config(settings),
        options=train.arguments(start, start.folder / "pairs", settings, 1)
        | {"per_device_train_batch_size": 4},
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "of"), [("RLOO", advantages.leave_one_out), ("GRPO", advantages.group_normalised)]
)
def test_trl_computes_our_advantages(algorithm, of, start):
    from coursekit.common.quiet import quiet

    told = []

    def reward(rows, texts):
        told.append([len(text) / 100 + number for number, text in enumerate(texts)])
        return told[-1]

    settings = train.settings_of(start)
    options = train.arguments(start, start.folder / algorithm, settings, 1) | {"beta": 0.1}
    with quiet():
        trainer = online.online_trainer(
            start, algorithm, reward, settings, options, prompts=2, group=4
        )
        trainer.train()
    # At the first step the policy is the reference, so that no KL is taken off.
    expected = of(torch.tensor(told[0]).view(2, 4)).flatten()
    assert list(trainer._logs["advantages"]) == pytest.approx(expected.tolist(), abs=1e-3)


def test_online_dpo_runs_and_learns_from_pairs_of_its_own(start, tmp_path):
    options = {"beta": 0.1, "steps": 2, "prompts": 4}
    *_, last = methods.METHODS["online DPO"](start, tmp_path, 1, **options)
    assert last.spent == points.Spent(samples=2 * 8, labels=0, reward_calls=2 * 8)
    assert points.measure(last, start)["chosen"] != 0
    with pytest.raises(ValueError, match="group is 4: online DPO compares 2"):
        methods.METHODS["online DPO"](start, tmp_path, 1, **options, group=4)


def test_rounds_answer_afresh_and_spend_what_one_round_on_all_prompts_does(start, tmp_path):
    options = {"renew": False, "steps": 4}
    first, last = methods.METHODS["iterative DPO"](start, tmp_path, 2, **options)
    assert (first.step, last.step) == (2, 4) and last.spent.samples == start.samples
    assert 0 < first.spent.labels < last.spent.labels
    answers = (tmp_path / f"round-{number}" / "candidates.jsonl" for number in (1, 2))
    asked = [{row["prompt"] for row in read_journal(path)} for path in answers]
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == len(start.prompts)


# Session A's exact world as a language model: a prompt is a word, a response is a word.


def exact_model(world, folder):
    """A language model whose distribution over responses is the world's reference, saved."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    n_prompts, n_responses = world.reward.shape
    names = [f"p{number}" for number in range(n_prompts)]
    words = ["<pad>", "<end>", *names, *(f"r{number}" for number in range(n_responses))]
    tokens = Tokenizer(models.WordLevel(dict(zip(words, itertools.count())), unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token="<end>", unk_token="<pad>"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 16}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **sizes, **heads, **ends))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=400)
    # Every prompt with every response: what follows the prompt, and then the end.
    rows = torch.cartesian_prod(
        torch.arange(2, 2 + n_prompts), torch.arange(2 + n_prompts, len(words))
    )
    target = world.log_reference.exp().float()
    for _ in range(400):
        first, last = model(rows).logits.log_softmax(-1).unbind(1)
        ours = first[::n_responses, 2 + n_prompts :]
        loss = -(target * ours).sum(-1).mean() - last[:, 1].mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def log_policy(model, world):
    """Log-probabilities of the responses, (X, Y)."""
    n_prompts = len(world.reward)
    logits = model(torch.arange(2, 2 + n_prompts)[:, None]).logits[:, -1]
    return logits.double().log_softmax(-1)[:, 2 + n_prompts :]


@pytest.fixture(scope="module")
def counted(quick, tmp_path_factory):
    """A world, and a start whose SFT model is its reference."""
    from coursekit.tasks import load_task

    world, folder = make_world(seed=1), tmp_path_factory.mktemp("counted")
    # All weights: an adapter on so small a model cannot say all that its head could.
    whole = replace(quick.dpo, lora_rank=0)
    profile = replace(quick, base_model=str(folder / "sft"), threads=1, max_new_tokens=1, dpo=whole)
    prompts = [{"prompt": f"p{number}"} for number in range(3)]
    exact_model(world, folder / "sft")
    task = load_task("triage")
    return world, Start(folder / "sft", profile, task, prompts, prompts, folder, seed=0)


def off_the_optimum(checkpoint, world, start, beta):
    """KL to the known optimum, in units of what it was before."""
    best = optimal_policy(world.log_reference, world.reward, beta)
    policy = log_policy(points.load_policy(checkpoint, start), world).log_softmax(-1)
    before = kl_divergence(world.log_reference, best).mean()
    return (kl_divergence(policy, best).mean() / before).item()


def test_the_worlds_model_is_its_reference(counted):
    world, start = counted
    policy = log_policy(points.load_policy(points.Checkpoint(start.model, 0, None), start), world)
    assert kl_divergence(policy, world.log_reference).abs().max() < 1e-3


def test_rloo_climbs_to_the_exact_worlds_optimum(counted, tmp_path):
    world, start = counted

    def reward(rows, texts):
        return [
            world.reward[int(row["prompt"][1:]), int(text.strip()[1:])].item()
            if text.strip().startswith("r")
            else -3.0
            for row, text in zip(rows, texts, strict=True)
        ]

    options = {
        "reward": reward,
        "beta": 0.7,
        "learning_rate": 3e-3,
        "steps": 120,
        "prompts": 3,
        "group": 64,
    }
    *_, last = methods.METHODS["RLOO, true reward"](start, tmp_path, 1, **options)
    assert off_the_optimum(last, world, start, 0.7) < 0.1
    assert last.spent == points.Spent(samples=120 * 192, labels=0, reward_calls=120 * 192)


def test_dpo_climbs_to_the_exact_worlds_optimum(counted, tmp_path):
    world, start = counted
    pairs = sample_pairs(world, 4000, seed=0)
    rows = [
        {"prompt": f"p{prompt}", "chosen": f"r{chosen}", "rejected": f"r{rejected}"}
        for prompt, chosen, rejected in zip(
            pairs.prompts.tolist(), pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True
        )
    ]
    profile = replace(start.profile, dpo=replace(start.profile.dpo, batch_size=64))
    labelled = replace(start, triples=rows, profile=profile)
    options = {"beta": 1.0, "learning_rate": 3e-3, "steps": 120}
    *_, last = methods.METHODS["DPO"](labelled, tmp_path, 1, **options)
    assert off_the_optimum(last, world, start, 1.0) < 0.1
    # As near as where every probability is free: what is left is the pairs' chance.
    free = fit_dpo(pairs, world.log_reference, 1.0)
    policy = log_policy(points.load_policy(last, start), world).log_softmax(-1)
    assert kl_divergence(policy, free).mean() < 0.02


def test_checkpoints_are_kept_on_the_way(counted, tmp_path):
    _, start = counted
    rows = [{"prompt": "p0", "chosen": "r1", "rejected": "r2"}] * 16
    kept = methods.METHODS["DPO"](replace(start, triples=rows), tmp_path, 3, steps=6)
    assert [one.step for one in kept] == [2, 4, 6]
    scores = [log_policy(points.load_policy(one, start), counted[0])[0, 1].item() for one in kept]
    assert scores == sorted(scores) and scores[0] < scores[-1]


# Studies and their cells.


@pytest.mark.parametrize("name", studies.STUDIES)
def test_every_cell_of_a_study_can_be_called(name):
    """A setting by a name that its method does not have would end a sweep after an hour."""
    curves = studies.STUDIES[name].curves()
    if studies.STUDIES[name].search:
        fake = [
            {
                **{"curve": curve, "method": method, "settings": settings},
                "points": [{"reward": 0.5, "kl": 0.5}],
            }
            for curve, method, settings in curves
        ]
        curves = studies.at_best_rates(fake)
    for _, method, settings in [*curves, *map(studies.shortened, curves)]:
        inspect.signature(methods.METHODS[method]).bind(None, None, 1, **settings)
    names = [curve for curve, *_ in curves]
    assert len(set(names)) == len(names)


def test_options_of_dpo_cells_are_fields_of_trls_configuration():
    from dataclasses import fields

    from trl import DPOConfig

    known = {field.name for field in fields(DPOConfig)}
    own = set(inspect.signature(offline.dpo).parameters)
    for study in studies.STUDIES.values():
        for _, method, settings in study.curves():
            if method == "DPO":
                assert set(settings) - own <= known


def test_the_search_takes_the_rate_of_the_highest_reward_near_sft():
    searched = [
        {
            "curve": curve,
            "method": "DPO",
            "settings": {"learning_rate": rate},
            "points": [{"reward": reward, "kl": kl}],
        }
        for curve, rate, reward, kl in (
            ("DPO", 1, 0.5, 0.1),
            ("DPO", 2, 0.9, 0.9),
            ("DPO", 3, 0.95, 2.0),  # too far
            ("IPO", 1, 0.1, 3.0),  # all of them are
            ("IPO", 2, 0.2, 4.0),
        )
    ]
    rates = {name: options["learning_rate"] for name, _, options in studies.at_best_rates(searched)}
    assert rates == {"DPO": 2, "IPO": 2} | {f"DPO{studies.WRONG}": 2, f"IPO{studies.WRONG}": 2}


@pytest.fixture()
def counting(monkeypatch):
    """A method that trains nothing and counts how often it was asked."""
    asked = []

    def method(start, folder, times, **settings):
        asked.append((start.seed, settings))
        return [{"reward": 0.5 + settings["x"] / 10, "kl": float(start.seed), "kl_se": 0.0}]

    monkeypatch.setitem(sweep.METHODS, "counting", method)
    return asked


def cells(*values, seeds=(0,)):
    return [sweep.Cell(f"x {x}", "counting", {"x": x}, seed) for seed in seeds for x in values]


def test_a_stopped_study_goes_on_and_a_larger_one_runs_what_is_missing(counting, start, tmp_path):
    starts, path = {0: start, 1: replace(start, seed=1)}, tmp_path / "study.jsonl"
    first = sweep.run_cells(cells(1, 2), starts, path)
    assert sweep.run_cells(cells(1, 2), starts, path) == first and len(counting) == 2
    told = []
    both = sweep.run_cells(
        cells(1, 2, 3, seeds=(0, 1)), starts, path, tell=lambda *said: told.append(said[1])
    )
    assert len(counting) == 6 and both[:2] == first and told == [3, 2, 1, 0]
    assert [(one["seed"], one["settings"]["x"]) for one in both] == [
        (seed, x) for seed in (0, 1) for x in (1, 2, 3)
    ]


def test_a_curve_that_is_called_otherwise_is_not_run_again(counting, start, tmp_path):
    (cell,) = cells(1)
    sweep.run_cells([cell], {0: start}, tmp_path / "study.jsonl")
    renamed = replace(cell, curve="another name")
    (found,) = sweep.run_cells([renamed], {0: start}, tmp_path / "study.jsonl")
    assert found["curve"] == "another name" and len(counting) == 1


def test_other_evaluation_rows_make_another_study(counting, start, tmp_path, capsys):
    path = tmp_path / "study.jsonl"
    sweep.run_cells(cells(1), {0: start}, path)
    sweep.run_cells(cells(1), {0: replace(start, evaluation=start.evaluation[:3])}, path)
    assert len(counting) == 2 and "evaluation was" in capsys.readouterr().out


# The record.


@pytest.fixture()
def recorded(start, tmp_path):
    """Two curves of two seeds, with answers of which the second curve's win twice as often."""
    made = [
        {
            **{"curve": curve, "method": "DPO", "settings": {}, "seed": seed, "times": 1},
            "points": [
                {
                    "step": 1,
                    "reward": 0.5 + 0.1 * seed,
                    "kl": 1.0 + seed,
                    "length": 9,
                    "chosen": 0.1,
                }
            ],
            "answered": {"wins": wins, "rewards": wins},
            "seconds": 1.0,
            "measuring": 1.0,
        }
        for seed in (0, 1)
        for curve, wins in (("one", [0.0, 1.0, 0.0, 1.0]), ("two", [1.0, 1.0, 1.0, 1.0]))
    ]
    return record.save_record(made, {0: start}, tmp_path / "record.json"), made


def test_a_record_comes_back(recorded):
    path, made = recorded
    found = record.load_record(path)
    assert found["cells"] == made and found["made_from"]["evaluation"] == 8
    points_table = record.points_of(found)
    means = record.mean_over_seeds(points_table).set_index("curve")
    assert means.loc["one", ["reward", "kl", "kl_low", "kl_high"]].tolist() == pytest.approx(
        [0.55, 1.5, 1.0, 2.0]
    )


def test_what_was_spent_is_that_of_the_last_checkpoint():
    import pandas as pd

    def point(curve, place, **spent):
        return {"curve": curve, "seed": 0, "place": place, **spent}

    rows = [
        point("RLOO", 1, samples=32, labels=0, reward_calls=32),
        point("RLOO", 2, samples=64, labels=0, reward_calls=64),
        point("best of n", 1, samples=100, labels=80, reward_calls=0, n=2),
        point("best of n", 2, samples=100, labels=80, reward_calls=0, n=4),
        point("optimum", 1),
    ]
    table = record.spent_table(pd.DataFrame(rows))
    assert table.loc["RLOO"].tolist() == [64, 0, 64, 1]
    assert table.loc["best of n"].tolist() == [100, 80, 0, 4]
    assert table.loc["optimum"].tolist() == [0, 0, 0, 1]


def test_the_win_table_is_paired(recorded):
    table = record.win_table(record.load_record(recorded[0]), against="one").set_index("curve")
    assert table["win rate"].tolist() == [0.5, 1.0] and table.loc["one", "seeds"] == [0.5, 0.5]
    assert table.loc["one", ["difference", "difference low", "difference high"]].tolist()[0] == 0
    assert table.loc["two", "difference"] == 0.5 and not table.loc["one", "shown"]
    with pytest.raises(ValueError, match="no curve 'three': it is one of one, two"):
        record.win_table(record.load_record(recorded[0]), against="three")


def test_the_figures_show_every_curve(recorded):
    from coursekit.week.figures.frontier import plot_frontier, plot_wins

    found = record.load_record(recorded[0])
    means = record.mean_over_seeds(record.points_of(found))
    means.loc[1, "curve"] = "optimum"
    figure = plot_frontier(means, sft_reward=0.4)
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {
        "one",
        "optimum: no policy is above",
    }
    drawn = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert [[0, 0.4], [1.5, 0.55]] in [[list(map(float, xy)) for xy in line] for line in drawn]
    (axes,) = plot_wins(record.win_table(found), "Controls").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]


def test_a_difference_is_shown_by_its_interval_and_by_each_seed():
    def cell(curve, seed, wins):
        answered = {"wins": [float(n < wins) for n in range(100)]}
        point = {"reward": 0.5, "kl": 1.0, "length": 9, "chosen": 0.1}
        return {"curve": curve, "seed": seed, "points": [point], "answered": answered}

    rates = {"one": (40, 40), "higher": (80, 80), "in one seed": (90, 39), "hardly": (41, 41)}
    cells = [cell(curve, seed, wins) for curve, of in rates.items() for seed, wins in enumerate(of)]
    table = record.win_table({"cells": cells}, against="one").set_index("curve")
    assert table.loc["in one seed", "difference low"] > 0  # by prompts alone it would be
    assert table["shown"].to_dict() == {
        **{"one": False, "higher": True},
        **{"in one seed": False, "hardly": False},
    }


def test_win_rates_by_the_number_of_pairs():
    import pandas as pd

    from coursekit.week.figures.frontier import plot_sizes

    names = ("all, 25", "all, 100", "widest, 25", "one a prompt, 25")
    lines = [
        {**{"curve": name, "win rate": 0.6, "low": 0.5, "high": 0.7}, "seeds": [0.55, 0.65]}
        for name in names
    ]
    figure = plot_sizes(pd.DataFrame(lines))
    (axes,) = figure.axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["no better than SFT", "all", "widest", "one a prompt"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["25", "100"]
    assert "one a prompt, 25 60.0% (50.0% to 70.0%)" in figure.alt


def test_a_win_table_is_shown_with_intervals(recorded):
    from coursekit.week.widgets import win_rates

    found = record.load_record(recorded[0])
    table = record.win_table(found, against="one")
    assert "font-weight:bold" not in win_rates(table)._repr_html_()  # so few rows show nothing
    table.loc[1, ["difference low", "shown"]] = 0.2, True
    shown = win_rates(table)._repr_html_().replace("\N{NO-BREAK SPACE}", " ")
    assert "+50.0% (+20.0% to" in shown and "100.0% (" in shown
    assert shown.count("font-weight:bold") == 1
    assert "difference" not in win_rates(record.win_table(found))._repr_html_()


def test_a_record_that_is_not_there_or_damaged_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="coursekit study"):
        record.load_record(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"made_from": {}, "cells": [', encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        record.load_record(tmp_path / "cut.json")


def test_the_command_runs_a_study_and_writes_its_record(start, sft_folder, monkeypatch, capsys):
    """Of two cells, from the model to the file."""
    from coursekit.week.lab import __main__ as command

    curves = [("DPO", "DPO", {}), ("SFT, cooler", "SFT, cooler", {"temperatures": [0.5]})]
    small = studies.Study("?", lambda: curves, times=2)
    monkeypatch.setitem(studies.STUDIES, "frontier", small)
    monkeypatch.setattr(command, "QUICK_PROMPTS", 8)
    monkeypatch.setattr(studies, "QUICK_STEPS", 4)
    workspace = Workspace(start.profile)
    workspace.sft = lambda: sft_folder
    path = command.run_study(workspace, "frontier", range(1), workers=1, quick=True)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [cell["curve"] for cell in found["cells"]] == ["DPO", "SFT, cooler"]
    assert [point["step"] for point in found["cells"][0]["points"]] == [2, 4]
    said = capsys.readouterr().out
    assert "DPO, seed 0: reward" in said and "0 left" in said
    # And one of its cells is run again.
    monkeypatch.setattr(record, "RECORDED", path.parent)
    path.rename(path.parent / "frontier.json")
    monkeypatch.setitem(studies.STUDIES, "frontier", replace(small, prompts=8))
    monkeypatch.setattr(command, "EVALUATION", 8)
    agrees, said = command.check(workspace, "frontier")
    now, then = re.findall(r"true reward (.+) now, (.+) in the record", said)[0]
    assert agrees and now == then
    answered = found["cells"][0]["answered"]
    answered["rewards"] = [1 - reward for reward in answered["rewards"]]
    (path.parent / "frontier.json").write_text(json.dumps(found), encoding="utf-8")
    assert not command.check(workspace, "frontier")[0]


def test_a_task_without_truth_is_refused(profile):
    from coursekit.week.lab import __main__ as command

    unknown = SimpleNamespace(name="unknown", knows_truth=False)
    with pytest.raises(ValueError, match="no program knows the truth of unknown"):
        command.run_study(Workspace(profile, unknown), "controls", range(1), workers=1)
