"""Sequence log-probabilities: log pi(y | x), the number that every loss here is made of.

Four things go wrong in most code that computes it, and each is decided here once:

boundary  prompt and response are tokenised *together* and divided where the tokens of the prompt
          alone stop agreeing, never by the length of a separately tokenised prompt; where no chat
          template closes the prompt, a line break does (`plain_prompt`);
end       the end token is part of the response: a policy is also scored on stopping;
shift     the logits at position t predict the token at position t + 1;
sum       log pi(y | x) is a sum over the response's tokens (not a mean), taken in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..common.prompts import Prompt, as_messages, plain_prompt, plain_response

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGITS_BYTES = 2**29  # of the logits, in fp32, of the rows that are scored in one pass


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a prompt and of its response, end token included."""

    prompt_ids: list[int]
    response_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of `prompt` as the model sees it before it answers.

    With a chat template: the conversation and the opening of the assistant's turn. Without: the
    plain text (`plain_prompt`) with whatever the tokenizer puts before it (a BOS token, for many).
    """
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(
            as_messages(prompt), add_generation_prompt=True, return_dict=False
        )
    return tokenizer(plain_prompt(prompt))["input_ids"]


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> EncodedPair:
    """Tokenise prompt and response together and divide them where the prompt's own tokens end.

    The boundary is the longest common prefix of the tokens of the prompt and those of prompt plus
    response: if a merge or the template changes the prompt's last tokens, they count as response
    (as in TRL; `spans_boundary` finds such rows). The end token closes the response: by the chat
    template, else appended here.

    Raises ValueError if the tokenizer has no end token, or if the prompt has no token of its own.
    """
    if tokenizer.eos_token is None:
        raise ValueError(
            "the tokenizer has no end token, so no response can end: set tokenizer.eos_token to "
            "the token that closes an answer in the model's chat template"
        )
    prompt_ids = encode_prompt(tokenizer, prompt)
    (ids,) = encode_whole(tokenizer, [prompt], [response])
    boundary = common_prefix_length(prompt_ids, ids)
    if boundary == 0:
        raise ValueError(
            f"the prompt {prompt!r} leaves no token before the response: log pi(y | x) of the "
            "first token needs at least one token before it (a BOS token, for instance)"
        )
    return EncodedPair(ids[:boundary], ids[boundary:])


def encode_whole(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]
) -> list[list[int]]:
    """Token ids of each prompt with its response and the end token, tokenised together."""
    pairs = list(zip(prompts, responses, strict=True))
    if tokenizer.chat_template:
        conversations = [
            [*as_messages(prompt), {"role": "assistant", "content": response}]
            for prompt, response in pairs
        ]
        return tokenizer.apply_chat_template(conversations, return_dict=False) if pairs else []
    end = tokenizer.eos_token
    texts = [
        plain_prompt(prompt) + plain_response(response).removesuffix(end) + end
        for prompt, response in pairs
    ]
    return tokenizer(texts)["input_ids"] if texts else []


def spans_boundary(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> bool:
    """Whether a token holds the end of the prompt and the beginning of the response.

    The model would then be trained on another end of the prompt than it is asked with.
    """
    pair = encode_pair(tokenizer, prompt, response)
    return len(pair.prompt_ids) < len(encode_prompt(tokenizer, prompt))


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many items two sequences share from their start."""
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def pad_right(pairs: Sequence[EncodedPair], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Stack pairs into `input_ids`, `attention_mask` and `response_mask`, each (B, T), int64.

    Padding goes to the right: causal attention never looks there, so positions stay right without
    position ids. `response_mask` is 1 on the response's tokens.
    """
    width = max(map(len, pairs))
    input_ids = torch.full((len(pairs), width), pad_id)  # (B, T)
    attention_mask = torch.zeros_like(input_ids)
    response_mask = torch.zeros_like(input_ids)
    for row, pair in enumerate(pairs):
        start, stop = len(pair.prompt_ids), len(pair)
        input_ids[row, :stop] = torch.tensor(pair.prompt_ids + pair.response_ids)
        attention_mask[row, :stop] = 1
        response_mask[row, start:stop] = 1
    return input_ids, attention_mask, response_mask


def token_logps(logits: Tensor, input_ids: Tensor) -> Tensor:
    """Log-probability of each token given those before it.

    Args:
        logits: (B, T, V), at position t the scores for the token at t + 1, any float dtype.
        input_ids: (B, T).

    Returns:
        (B, T - 1), float32; entry t is log pi(input_ids[t + 1] | input_ids[: t + 1]), in nats.
    """
    scores = logits[:, :-1].float()  # a log-softmax in half precision is off by whole nats
    targets = input_ids[:, 1:, None]  # (B, T - 1, 1)
    return scores.gather(-1, targets).squeeze(-1) - scores.logsumexp(-1)


def sum_over_response(per_token: Tensor, response_mask: Tensor) -> Tensor:
    """Sum (B, T - 1) log-probabilities over the response's tokens: log pi(y | x), (B,), in nats.

    `response_mask` is (B, T), as for `input_ids`; its first column has no prediction and falls off.
    """
    return (per_token * response_mask[:, 1:]).sum(-1)


def sequence_logps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    batch_size: int = 64,
    per_token: bool = False,
) -> Tensor | list[Tensor]:
    """log pi(y | x) for each pair of prompt and response, end token included (DPO paper, eq. 7).

    Rows are batched by length, which saves padding, and returned in the order given. No gradient.

    Args:
        prompts, responses: N each; see `encode_pair` for how they become tokens.
        batch_size: rows a forward pass.
        per_token: return the summands instead.

    Returns:
        (N,), float32, in nats, on the CPU. With `per_token`, N tensors: one entry per response
        token, whose sums are that vector.

    Raises:
        ValueError: different numbers of prompts and responses, or a row longer than the context.
    """
    if len(prompts) != len(responses):
        raise ValueError(
            f"{len(prompts)} prompts but {len(responses)} responses: give one response per prompt"
        )
    pairs = [
        encode_pair(tokenizer, prompt, response)
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0  # masked anyway
    rows = score_tokens(model, pairs, token_logps, pad_id, batch_size)
    if per_token:
        return rows
    return torch.stack([row.sum() for row in rows]) if rows else torch.empty(0)


@torch.no_grad()
def score_tokens(
    model: PreTrainedModel,
    pairs: Sequence[EncodedPair],
    score: Callable[[Tensor, Tensor], Tensor],
    pad_id: int = 0,
    batch_size: int = 64,
) -> list[Tensor]:
    """`score(logits, input_ids)`, (B, T - 1, ...), at the tokens of each pair's response.

    N tensors, (response tokens, ...), in the order given, on the CPU. The model is evaluated
    without dropout and left in the mode it was in. What `score` sees begins one token before the
    batch's first response: of a prompt's tokens nobody asks, and their logits are the most of what
    a large vocabulary costs.

    batch_size: rows a forward pass, at most: fewer where their logits would take more than
    `LOGITS_BYTES`.

    Raises ValueError for a row longer than the context.
    """
    lengths = [len(pair) for pair in pairs]
    check_lengths(model, lengths, "prompt and response")
    order = sorted(range(len(pairs)), key=lengths.__getitem__)
    room = LOGITS_BYTES // (4 * model.config.get_text_config().vocab_size)
    rows: dict[int, Tensor] = {}
    with evaluating(model):
        for batch in _batches(pairs, order, batch_size, room):
            asked = [pairs[row] for row in batch]
            input_ids, attention_mask, response_mask = (
                tensor.to(model.device) for tensor in pad_right(asked, pad_id)
            )
            kept = _kept(asked)
            logits = model(
                input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=kept
            ).logits
            values = score(logits, input_ids[:, -kept:]).cpu()  # (B, kept - 1, ...)
            masks = response_mask[:, 1 - kept :].cpu().bool()
            for row, value, mask in zip(batch, values, masks, strict=True):
                rows[row] = value[mask]
    return [rows[row] for row in range(len(pairs))]


def _kept(pairs: Sequence[EncodedPair]) -> int:
    """How many positions, from the end of the padded batch, predict its responses' tokens."""
    return max(map(len, pairs)) - min(len(pair.prompt_ids) for pair in pairs) + 1


def _batches(
    pairs: Sequence[EncodedPair], order: Sequence[int], most: int, room: int
) -> Iterator[list[int]]:
    """`order` in batches of at most `most` rows, and of no more positions than there is room for.

    A single row is a batch, whatever room it takes.
    """
    batch: list[int] = []
    for row in order:
        longer = [*batch, row]
        positions = len(longer) * _kept([pairs[member] for member in longer])
        if batch and (len(longer) > most or positions > room):
            yield batch
            longer = [row]
        batch = longer
    if batch:
        yield batch


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout within, and afterwards in the mode that the model was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def context_of(model: PreTrainedModel) -> int | None:
    """How many tokens the model's context holds, if its configuration says so."""
    return getattr(model.config, "max_position_embeddings", None)


def check_lengths(model: PreTrainedModel, lengths: Sequence[int], what: str) -> None:
    """Raise ValueError if a row of `lengths` tokens does not fit the model's context."""
    context = context_of(model)
    for row, length in enumerate(lengths):
        if context is not None and length > context:
            raise ValueError(
                f"row {row}: {what} have {length} tokens, the model's context holds {context}: "
                "shorten the row or drop it"
            )
