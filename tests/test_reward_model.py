"""A reward model: it learns to rank, is loaded as it was, reads what the policy reads."""

import pytest
import torch
from conftest import NATS

from coursekit.lm.loading import load_model, load_tokenizer
from coursekit.lm.logprobs import encode_pair
from coursekit.training.reward_model import (
    best_of,
    implicit_rewards,
    load_reward_model,
    mean_by_prompt,
    pair_points,
    train_reward_model,
)


@pytest.fixture(scope="module")
def trained(quick, sft_folder, triples):
    from dataclasses import replace

    settings = replace(quick.dpo, learning_rate=2e-3, epochs=12, batch_size=8)
    folder = quick.artifacts / "reward"
    run = train_reward_model(sft_folder, triples[:12], folder, quick, settings=settings)
    return run, load_reward_model(folder, quick)


def test_it_learns_to_rank_and_is_a_judge(trained, triples):
    run, reward = trained
    losses = [entry["loss"] for entry in run.history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    points = pair_points(triples[:12], reward.scores)
    assert sum(points) / len(points) > 0.9
    assert not list(run.folder.glob("checkpoints*"))
    row = triples[0]
    assert reward.compare(row, row["chosen"], row["rejected"]) == "first"
    assert reward.compare(row, row["rejected"], row["chosen"]) == "second"
    assert reward.compare(row, row["chosen"], row["chosen"]) == "tie"
    assert reward.score(row, row["chosen"]) == pytest.approx(
        reward.scores([row["prompt"]], [row["chosen"]])[0]
    )


def test_its_identity_is_what_it_weighs_not_where_it_lies(profile, tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from coursekit.training.reward_model import RewardModel

    tokenizer = load_tokenizer(profile.base_model, profile)
    size = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    config = LlamaConfig(vocab_size=16, num_labels=1, **size)
    model = LlamaForSequenceClassification(config).to(torch.bfloat16)
    identity = RewardModel(model, tokenizer).identity
    model.save_pretrained(tmp_path)
    again = LlamaForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert RewardModel(again, tokenizer).identity == identity
    assert RewardModel(model, tokenizer, "other").identity != identity
    with torch.no_grad():
        model.score.weight[0, 0] += 1
    assert RewardModel(model, tokenizer).identity != identity


def test_batches_and_padding_change_nothing(trained, triples):
    _, reward = trained
    prompts = [row["prompt"] for row in triples]
    responses = [row["chosen"] for row in triples]
    together = reward.scores(prompts, responses)
    alone = [reward.scores([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    assert together == pytest.approx(alone, abs=NATS)
    assert reward.scores(prompts, responses, batch_size=3) == pytest.approx(together, abs=NATS)


def test_the_trainer_reads_what_we_score(quick, sft_folder, triples):
    """Prompt, template and end token as in `encode_pair`: the head sits on the same token."""
    from trl import RewardConfig, RewardTrainer

    from coursekit.preferences import to_trl

    tokenizer = load_tokenizer(sft_folder, quick)
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        quick.base_model, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            output_dir=str(quick.artifacts / "r"), use_cpu=True, bf16=False, report_to="none"
        ),
        train_dataset=to_trl(triples, bool(tokenizer.chat_template)),
        processing_class=tokenizer,
    )
    for row, read in zip(triples, trainer.train_dataset, strict=True):
        for side in ("chosen", "rejected"):
            pair = encode_pair(tokenizer, row["prompt"], row[side])
            assert read[f"{side}_ids"] == [*pair.prompt_ids, *pair.response_ids]


def test_where_there_is_none_the_error_says_so(quick, tmp_path):
    with pytest.raises(FileNotFoundError, match="train one with train_reward_model"):
        load_reward_model(tmp_path, quick)


def test_a_four_bit_profile_trains_and_loads_one(quick, sft_folder, triples, tmp_path):
    """On unquantised weights: into 4-bit ones the adapters could not be merged without loss."""
    from dataclasses import replace

    four_bit = replace(quick, four_bit=True, dpo=replace(quick.dpo, epochs=1, batch_size=2))
    run = train_reward_model(sft_folder, triples[:4], tmp_path / "reward", four_bit)
    model = load_reward_model(run.folder, four_bit).model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    plain = replace(four_bit, four_bit=False)
    fresh = train_reward_model(sft_folder, triples[:4], tmp_path / "other", plain)
    assert run.history[0]["loss"] == pytest.approx(fresh.history[0]["loss"], abs=1e-4)


def test_rows_that_are_too_long_are_refused(quick, sft_folder, triples, tmp_path):
    long = [*triples[:9], {**triples[9], "rejected": "wait " * 600}]
    with pytest.raises(ValueError, match=r"row 10, column 'rejected': .* max_length is 512"):
        train_reward_model(sft_folder, long, tmp_path, quick)


def test_a_damaged_reward_model_is_refused(trained, quick, tmp_path):
    import shutil

    copy = shutil.copytree(trained[0].folder, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="changed since it was saved"):
        load_reward_model(copy, quick)


def test_implicit_rewards_are_log_ratios(quick, sft_folder, triples, tokenizer):
    policy, reference = load_model(sft_folder, quick), load_model(quick.base_model, quick)
    prompts, texts = [r["prompt"] for r in triples[:3]], [r["chosen"] for r in triples[:3]]
    found = implicit_rewards(policy, reference, tokenizer, prompts, texts, beta=0.5)

    def by_hand(model, prompt, text):
        """log pi(y | x), end token included, from the logits themselves."""
        pair = encode_pair(tokenizer, prompt, text)
        ids = torch.tensor([[*pair.prompt_ids, *pair.response_ids]], device=model.device)
        with torch.no_grad():
            logps = model(ids).logits[0].log_softmax(-1)
        start = len(pair.prompt_ids)
        return sum(logps[i - 1, ids[0, i]].item() for i in range(start, ids.shape[1]))

    for reward, prompt, text in zip(found, prompts, texts, strict=True):
        ratio = by_hand(policy, prompt, text) - by_hand(reference, prompt, text)
        assert abs(ratio) > 0.01 and reward == pytest.approx(0.5 * ratio, abs=1e-3)
    assert implicit_rewards(reference, reference, tokenizer, prompts, texts, beta=1.0) == [0.0] * 3


def test_accuracy_and_best_of_n():
    triples = [{"prompt": "?", "chosen": "aaa", "rejected": text} for text in ("a", "bbb", "cccc")]
    by_length = lambda prompts, texts: [float(len(text)) for text in texts]  # noqa: E731
    assert pair_points(triples, by_length) == [1.0, 0.5, 0.0]
    rows = [{"prompt": "x"}, {"prompt": "y"}]
    assert best_of(rows, [["a", "ccc", "bb"], ["d", "e"]], by_length) == ["ccc", "d"]


def test_pairs_of_one_prompt_count_as_one():
    """Copies of a prompt's pairs are no new evidence: the interval must not shrink."""
    triples = [{"prompt": f"p{i}"} for i in range(12)]
    points = [1.0] * 9 + [0.0] * 3
    once, tenfold = (mean_by_prompt(triples * n, points * n) for n in (1, 10))
    assert once == tenfold and once.value == 0.75
    # Several pairs of one prompt are its mean; a difference may be negative throughout.
    assert mean_by_prompt(triples[:1] * 2 + triples[1:2], [1.0, 0.0, 1.0]).value == 0.75
    never = mean_by_prompt(triples, [-1.0] * 12, least=-1)
    assert never.low == -1 < never.high
