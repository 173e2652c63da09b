"""A reward model: it learns to rank, is loaded as it was, reads what the policy reads."""

import pytest
import torch

from coursekit.logprobs import encode_pair
from coursekit.models import load_model, load_tokenizer
from coursekit.reward_model import (
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


def test_batches_and_padding_change_nothing(trained, triples):
    _, reward = trained
    prompts = [row["prompt"] for row in triples]
    responses = [row["chosen"] for row in triples]
    together = reward.scores(prompts, responses)
    alone = [reward.scores([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert reward.scores(prompts, responses, batch_size=3) == pytest.approx(together, abs=1e-4)


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


def test_four_bit_is_refused(quick, sft_folder, triples, tmp_path):
    from dataclasses import replace

    with pytest.raises(ValueError, match="four_bit=False"):
        train_reward_model(sft_folder, triples, tmp_path, replace(quick, four_bit=True))


def test_implicit_rewards_are_log_ratios(quick, sft_folder, triples, tokenizer):
    policy, reference = load_model(sft_folder, quick), load_model(quick.base_model, quick)
    prompts, texts = [r["prompt"] for r in triples[:3]], [r["chosen"] for r in triples[:3]]
    found = implicit_rewards(policy, reference, tokenizer, prompts, texts, beta=0.5)
    twice = implicit_rewards(policy, reference, tokenizer, prompts, texts, beta=1.0)
    assert torch.tensor(found).mul(2).tolist() == pytest.approx(twice, rel=1e-4)
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
