"""Batched generation equals one at a time; seeds, order, ends, and bad input."""

import pytest
import torch

from coursekit.lm.generation import generate
from coursekit.tasks.triage import build_prompt, sample_alerts


@pytest.fixture(scope="module")
def prompts():
    return [build_prompt(alert) for alert in sample_alerts("validation", 40)] + [
        "Tell the team.\nx"
    ]


def test_batch_equals_one_by_one_under_greedy(model, tokenizer, prompts):
    together = generate(model, tokenizer, prompts, max_new_tokens=80, batch_size=16)
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=80)[0] for prompt in prompts]
    assert together == alone
    assert len({len(text) for text in together}) > 5


def test_padding_on_the_right_would_differ(model, tokenizer, prompts):
    """The reason for padding on the left: a row padded on the right continues after padding."""
    tokens = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in prompts[:20]
    ]
    batch = tokenizer.pad({"input_ids": tokens}, padding_side="right", return_tensors="pt")
    out = model.generate(**batch, max_new_tokens=80, do_sample=False)
    texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    right = generate(model, tokenizer, prompts[:20], max_new_tokens=80)
    assert sum(a != b for a, b in zip(texts, right, strict=True)) > 5


def test_order_is_kept_and_the_input_is_not_changed(model, tokenizer, prompts):
    mixed = sorted(prompts, key=len, reverse=True)
    before = list(mixed)
    texts = generate(model, tokenizer, mixed, max_new_tokens=80, batch_size=8)
    assert mixed == before
    known = dict(zip(prompts, generate(model, tokenizer, prompts, max_new_tokens=80), strict=True))
    assert texts == [known[prompt] for prompt in mixed]


def test_seeds(model, tokenizer, prompts):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    def sample(seed):
        return generate(model, tokenizer, prompts, max_new_tokens=80, temperature=1.0, seed=seed)

    assert sample(1) == sample(1) != sample(2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_samples_do_not_depend_on_the_batches(model, tokenizer, prompts):
    """Up to rounding: sums over a padded batch may differ in the last digit and turn a token."""
    whole, parts = (
        generate(
            model, tokenizer, prompts, max_new_tokens=80, temperature=0.7, seed=3, batch_size=size
        )
        for size in (64, 7)
    )
    assert sum(one != other for one, other in zip(whole, parts, strict=True)) <= 1


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_samples_follow_the_models_distribution(model, tokenizer, temperature):
    """The first tokens of 4,000 samples: each is as frequent as the softmax says."""
    from coursekit.lm.logprobs import encode_prompt

    prompt, n = build_prompt(sample_alerts("validation", 1)[0], "Tell the team."), 4000
    texts = generate(
        model, tokenizer, [prompt] * n, max_new_tokens=1, temperature=temperature, batch_size=500
    )
    with torch.no_grad():
        logits = model(torch.tensor([encode_prompt(tokenizer, prompt)])).logits[0, -1]
    probabilities = (logits / temperature).softmax(-1)
    common = (probabilities * n > 10).nonzero().flatten().tolist()
    assert len(common) > 2
    p = probabilities[common]
    share = torch.tensor([texts.count(tokenizer.decode(token)) / n for token in common])
    off = (share - p) / (p * (1 - p) / n).sqrt()  # in standard errors
    assert off.abs().max() < 4.5
    assert abs(share.sum() - p.sum()) < 0.01


def test_each_prompt_may_have_its_temperature(model, tokenizer, prompts):
    some = prompts[:9]
    greedy = generate(model, tokenizer, some, max_new_tokens=80)
    hot = generate(model, tokenizer, some, max_new_tokens=80, temperature=1.0, seed=4)
    mixed = [0.0, 1.0] * 4 + [0.0]
    both = generate(model, tokenizer, some, max_new_tokens=80, temperature=mixed, seed=4)
    assert both[::2] == greedy[::2] and both[1::2] == hot[1::2]
    with pytest.raises(ValueError, match="2 temperatures for 9 prompts"):
        generate(model, tokenizer, some, max_new_tokens=5, temperature=[0.0, 1.0])


def test_settings_that_a_model_brings_do_not_count(model, tokenizer, prompts, recwarn):
    expected = [
        generate(model, tokenizer, prompts[:9], max_new_tokens=80, temperature=temperature)
        for temperature in (0.0, 1.0)
    ]
    model.generation_config.update(
        do_sample=True, temperature=0.1, top_k=1, top_p=0.1, repetition_penalty=9.0
    )
    assert expected == [
        generate(model, tokenizer, prompts[:9], max_new_tokens=80, temperature=temperature)
        for temperature in (0.0, 1.0)
    ]
    assert not recwarn.list


def test_stops_at_the_end_token_and_shows_no_special_token(model, tokenizer, prompts):
    texts = generate(model, tokenizer, prompts, max_new_tokens=200)
    assert not any("<|" in text for text in texts)
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) < 150


def test_temperature_changes_variety(model, tokenizer, prompts):
    same = [prompts[0]] * 40
    cold = generate(model, tokenizer, same, max_new_tokens=80, temperature=0.01)
    hot = generate(model, tokenizer, same, max_new_tokens=80, temperature=1.0)
    assert len(set(cold)) <= 2 < len(set(hot))


def test_nothing_in_nothing_out(model, tokenizer):
    assert generate(model, tokenizer, [], max_new_tokens=5) == []


def test_bad_input_is_told(model, tokenizer):
    with pytest.raises(ValueError, match=r"row 1: the prompt and 50 new tokens .* holds 1024"):
        generate(model, tokenizer, ["a", "x " * 1500], max_new_tokens=50)
    with pytest.raises(ValueError, match="temperature is -1"):
        generate(model, tokenizer, ["a"], max_new_tokens=5, temperature=-1)
    copy = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    copy.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        generate(model, copy, ["a"], max_new_tokens=5)


def test_a_missing_pad_token_is_no_obstacle(model, tokenizer, prompts):
    copy = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    copy.pad_token = None
    expected = generate(model, tokenizer, prompts[:9], max_new_tokens=80)
    assert generate(model, copy, prompts[:9], max_new_tokens=80) == expected


def test_training_mode_is_restored(model, tokenizer):
    model.train()
    generate(model, tokenizer, ["a"], max_new_tokens=3)
    assert model.training
