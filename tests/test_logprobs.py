"""Sequence log-probabilities against a naive computation, by hand, and at the boundary."""

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import NATS
from transformers import PreTrainedConfig

from coursekit.lm import logprobs
from coursekit.lm.logprobs import (
    EncodedPair,
    check_lengths,
    common_prefix_length,
    encode_pair,
    encode_prompt,
    pad_right,
    score_tokens,
    sequence_logps,
    spans_boundary,
    sum_over_response,
    token_logps,
)


def naive(model, tokenizer, prompt, response):
    """One row, one token at a time, straight from the definition."""
    prompt_ids = tokenizer(f"<|user|>{prompt}<|assistant|>")["input_ids"]
    response_ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    total = 0.0
    seen = list(prompt_ids)
    for token in [*response_ids, tokenizer.eos_token_id]:
        with torch.no_grad():
            scores = model(torch.tensor([seen])).logits[0, -1]
        total += torch.log_softmax(scores.double(), -1)[token].item()
        seen.append(token)
    return total


def test_agrees_with_one_by_one(model, tokenizer, triples):
    rows = triples[:6]
    prompts = [row["prompt"] for row in rows]
    responses = [row["chosen" if i % 2 else "rejected"] for i, row in enumerate(rows)]
    expected = [naive(model, tokenizer, *pair) for pair in zip(prompts, responses, strict=True)]
    for batch_size in (1, 4, 64):
        found = sequence_logps(model, tokenizer, prompts, responses, batch_size=batch_size)
        assert found.tolist() == pytest.approx(expected, abs=NATS)


def test_per_token_values_sum_to_it_and_end_with_the_end_token(model, tokenizer, triples):
    prompts = [row["prompt"] for row in triples]
    responses = [row["chosen"] for row in triples]
    whole = sequence_logps(model, tokenizer, prompts, responses)
    rows = sequence_logps(model, tokenizer, prompts, responses, per_token=True)
    for prompt, response, total, row in zip(prompts, responses, whole, rows, strict=True):
        assert len(row) == len(encode_pair(tokenizer, prompt, response).response_ids)
        assert row.sum().item() == pytest.approx(total.item(), abs=NATS)
    assert encode_pair(tokenizer, "a", "b").response_ids[-1] == tokenizer.eos_token_id


def test_uniform_model_by_hand():
    logits = torch.zeros(1, 4, 8)
    per_token = token_logps(logits, torch.tensor([[1, 2, 3, 4]]))
    assert per_token.shape == (1, 3)
    mask = torch.tensor([[0, 0, 1, 1]])
    assert sum_over_response(per_token, mask).item() == pytest.approx(-2 * math.log(8))


def test_the_shift():
    """The logits at position t belong to the token at t + 1."""
    logits = torch.full((1, 3, 5), -30.0)
    logits[0, 0, 4] = logits[0, 1, 2] = 30.0  # sure of 4, then of 2
    assert token_logps(logits, torch.tensor([[0, 4, 2]])).sum().item() == pytest.approx(0, abs=1e-5)
    assert token_logps(logits, torch.tensor([[4, 2, 0]])).sum().item() < -50


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(1, 200, 1000, dtype=torch.float16) * 4
    ids = torch.randint(0, 1000, (1, 200))
    exact = torch.log_softmax(logits.double(), -1)[0, :-1].gather(-1, ids[0, 1:, None]).sum()
    assert token_logps(logits, ids).sum().item() == pytest.approx(exact.item(), abs=1e-2)


def byte_pairs(*merges, split=None):
    """A tokenizer of ASCII characters and these merges, of two tokens each; no chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<end>", *map(chr, range(10, 127)), *("".join(merge) for merge in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, list(merges)))
    made.decoder = decoders.Fuse()
    if split:
        made.pre_tokenizer = pre_tokenizers.Split(Regex(split), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


MERGING = byte_pairs(("e", "s"), ("\n", "\n"), (" ", "s"), ("\n", " "))
BOUNDARIES = [
    ("the queue", "service: a"),  # joined with nothing, "es" is a token
    ("the queue ", "service: a"),
    ("the queue\n", "service: a"),
    ("the queue", "\n\n service: a"),
    ("the queue\n\n", "service: a<end>"),
]


@pytest.mark.parametrize(("prompt", "response"), BOUNDARIES)
def test_no_token_spans_the_boundary_without_a_template(prompt, response):
    assert not spans_boundary(MERGING, prompt, response)
    pair = encode_pair(MERGING, prompt, response)
    assert pair.prompt_ids == encode_prompt(MERGING, prompt)
    assert MERGING.decode(pair.prompt_ids) == prompt.removesuffix("\n") + "\n"
    assert MERGING.decode(pair.response_ids) == "service: a<end>"


def test_a_token_that_spans_the_boundary_all_the_same_is_found():
    """Where even the line break merges with a letter; with a template, where it ends in a space."""
    assert spans_boundary(byte_pairs(("\n", "s")), "the queue", "service")
    templated = byte_pairs((" ", "s"))
    templated.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    assert spans_boundary(templated, "the queue", "service")


def test_a_token_that_spans_the_boundary_counts_as_response():
    """As in TRL: cutting by the prompt's own length would have scored from inside the token."""
    merging = byte_pairs(("\n", "s"))
    pair = encode_pair(merging, "the queue", "service")
    assert merging.decode(pair.prompt_ids) == "the queue"
    assert merging.decode(pair.response_ids) == "\nservice<end>"


def test_template_boundary(tokenizer):
    pair = encode_pair(tokenizer, "hi", "service: a")
    assert pair.prompt_ids == encode_prompt(tokenizer, "hi")
    assert tokenizer.decode(pair.prompt_ids) == "<|bos|><|user|>hi<|assistant|>"
    assert pair.prompt_ids.count(tokenizer.bos_token_id) == 1


def test_padding_is_masked():
    ids, attention, response = pad_right([EncodedPair([5], [6, 7]), EncodedPair([5, 6], [7, 8])], 0)
    assert ids.tolist() == [[5, 6, 7, 0], [5, 6, 7, 8]]
    assert attention.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert response.tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ([], [1], 0),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 3], [1, 4, 3], 1),
        ([5], [6], 0),
        ("ab", "ab", 2),
    ],
)
def test_the_common_prefix_ends_at_the_first_difference(first, second, shared):
    assert common_prefix_length(first, second) == shared


def test_a_row_may_fill_the_context_and_not_exceed_it():
    context = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=4))
    check_lengths(context, [4, 1], "rows")
    with pytest.raises(ValueError, match=r"row 1: rows have 5 tokens, .* context holds 4"):
        check_lengths(context, [4, 5], "rows")
    check_lengths(SimpleNamespace(config=SimpleNamespace()), [10**6], "rows")


class Counting(torch.nn.Module):
    """A stand-in for a model: its logits are the token ids, and it remembers its batches."""

    device = torch.device("cpu")

    def __init__(self, vocabulary=16):
        super().__init__()
        self.config = PreTrainedConfig(vocab_size=vocabulary)
        self.batches, self.kept = [], []

    def forward(self, input_ids, attention_mask, logits_to_keep):
        self.batches.append(input_ids.tolist())
        self.kept.append(logits_to_keep)
        assert not self.training and not torch.is_grad_enabled()
        return SimpleNamespace(logits=input_ids[:, -logits_to_keep:])


@pytest.mark.parametrize("training", [True, False])
def test_scores_are_of_the_responses_tokens_in_the_order_given(training):
    model = Counting().train(training)
    pairs = [EncodedPair([1], [2, 3, 4]), EncodedPair([5], [6]), EncodedPair([7, 8], [9])]
    rows = score_tokens(model, pairs, lambda logits, ids: logits[:, 1:], batch_size=2)
    assert [row.tolist() for row in rows] == [[2, 3, 4], [6], [9]]
    assert model.batches == [[[5, 6, 0], [7, 8, 9]], [[1, 2, 3, 4]]]
    assert model.training == training
    assert model.kept == [3, 4]  # the prompt of two tokens begins one before
    many = [EncodedPair([1], [2])] * 65
    model.batches.clear()
    assert len(score_tokens(model, many, lambda logits, ids: logits[:, 1:])) == 65
    assert [len(batch) for batch in model.batches] == [64, 1]


def test_a_large_vocabulary_makes_small_batches():
    model = Counting(vocabulary=logprobs.LOGITS_BYTES // 40)  # room for ten positions
    pairs = [EncodedPair([1, 2], [3]), EncodedPair([4] * 9, [5] * 20), EncodedPair([6, 7], [8, 9])]
    rows = score_tokens(model, pairs * 2, lambda logits, ids: logits[:, 1:])
    assert [row.tolist() for row in rows] == [[3], [5] * 20, [8, 9]] * 2
    assert [len(batch) for batch in model.batches] == [3, 1, 1, 1]
    assert model.kept == [3, 3, 21, 21]


def test_scores_of_another_number_of_rows_are_refused():
    pairs = [EncodedPair([1], [2]), EncodedPair([5], [6])]
    with pytest.raises(ValueError):
        score_tokens(Counting(), pairs, lambda logits, ids: logits[:1, 1:])


def test_errors_name_the_fix(model, tokenizer):
    with pytest.raises(ValueError, match="2 prompts but 1 responses"):
        sequence_logps(model, tokenizer, ["a", "b"], ["c"])
    with pytest.raises(ValueError, match=r"row 1: .* context holds 1024"):
        sequence_logps(model, tokenizer, ["a", "x " * 2000], ["c", "d"])
    bare = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    bare.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        encode_pair(bare, "a", "b")
    assert sequence_logps(model, tokenizer, [], []).tolist() == []


def test_rows_of_a_large_vocabulary_are_scored_a_few_at_a_time(
    model, tokenizer, triples, monkeypatch
):
    """So that what is scored beside training needs no more memory than training does."""
    prompts, responses = [row["prompt"] for row in triples], [row["chosen"] for row in triples]
    sizes = []  # of the logits of each pass, in bytes of fp32
    model.register_forward_hook(lambda *parts: sizes.append(parts[-1].logits.numel() * 4))
    together = sequence_logps(model, tokenizer, prompts, responses)
    (whole,) = sizes
    limit = whole // 4
    monkeypatch.setattr(logprobs, "LOGITS_BYTES", limit)
    sizes.clear()
    apart = sequence_logps(model, tokenizer, prompts, responses)
    assert apart.tolist() == pytest.approx(together.tolist(), abs=NATS)
    assert 4 <= len(sizes) <= 6 and max(sizes) <= limit
    monkeypatch.setattr(logprobs, "LOGITS_BYTES", 1)  # a row is scored all the same
    sizes.clear()
    sequence_logps(model, tokenizer, prompts[:3], responses[:3])
    assert len(sizes) == 3
