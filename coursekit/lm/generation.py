"""Batched generation: many prompts in, one response each out, in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..common.progress import progress
from ..common.prompts import Prompt
from .logprobs import check_lengths, encode_prompt, evaluating

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float | Sequence[float] = 0.0,
    seed: int | Sequence[int] = 0,
    place: int = 0,
    batch_size: int = 64,
    label: str | None = "generating",
) -> list[str]:
    """One response for each prompt, without the prompt and without special tokens.

    See `generate_ids`, of which this gives the text.
    """
    rows = generate_ids(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        place=place,
        batch_size=batch_size,
        label=label,
    )
    return tokenizer.batch_decode(rows, skip_special_tokens=True) if rows else []


def generate_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    temperature: float | Sequence[float] = 0.0,
    seed: int | Sequence[int] = 0,
    place: int = 0,
    batch_size: int = 64,
    label: str | None = "generating",
) -> list[list[int]]:
    """The token ids of one response for each prompt; the last is the end token, unless it was cut.

    Prompts are batched by length and padded on the *left*, so that every row continues right where
    its prompt ends (with padding on the right a row would continue after padding). The result does
    not depend on the batches: a sampled response follows from the seed and its place among the
    prompts (up to the rounding of sums taken in another order). The caller's random state is left
    as it was.

    Args:
        prompts: the user's texts, or conversations; a chat template, if there is one, is applied.
        max_new_tokens: a response that has not ended by then is cut.
        temperature: of sampling, one for all or one for each prompt; 0 is greedy decoding.
        seed: of sampling; with one for each prompt, an answer does not depend on its place either.
        place: of the first prompt, where these are some of the prompts that a seed is for.
        batch_size: rows generated at once, at most.
        label: what the progress line says; None for no line.

    Raises:
        ValueError: no end token, a negative temperature, temperatures or seeds that are not as many
            as the prompts, or a prompt that leaves no room in the model's context for the tokens.
    """
    temperatures = _one_for_each(temperature, len(prompts))
    quantiles = _quantiles(seed, place, len(prompts), max_new_tokens)
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    lengths = [len(ids) for ids in encoded]
    room = [length + max_new_tokens for length in lengths]
    check_lengths(model, room, f"the prompt and {max_new_tokens} new tokens")
    config = _config(tokenizer, max_new_tokens, model.device.type == "cpu" and len(prompts) > 1)
    responses: list[list[int]] = [[]] * len(encoded)
    with evaluating(model), progress(label, len(prompts), "responses") as advance:
        for batch in _batches_by_length(lengths, batch_size):
            asked = [encoded[row] for row in batch]
            drawn = _continue(model, asked, config, quantiles[batch], temperatures[batch])
            for row, ids in zip(batch, drawn, strict=True):
                responses[row] = ids
            advance(len(batch))
    return responses


def _config(
    tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, static_cache: bool
) -> GenerationConfig:
    """Settings for `model.generate`, the same for every batch; ValueError without an end token."""
    from transformers import GenerationConfig

    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if end is None:
        raise ValueError("the tokenizer has no end token, so generation cannot stop: set eos_token")
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end if pad is None else pad,
        # What the model's own settings might bring, and would make it another distribution.
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        do_sample=False,  # at a temperature, `_sample_by_quantile` leaves one token to choose
        # The default cache is copied whole for every token; on a GPU this one would be compiled.
        cache_implementation="static" if static_cache else None,
    )


def _continue(
    model: PreTrainedModel,
    rows: Sequence[list[int]],
    config: GenerationConfig,
    quantiles: Tensor,
    temperatures: Tensor,
) -> list[list[int]]:
    """The responses to one batch of B encoded prompts, each up to its end token.

    quantiles: (B, max_new_tokens). temperatures: (B,).
    """
    input_ids, attention_mask = (
        tensor.to(model.device) for tensor in _pad_left(rows, config.pad_token_id)
    )
    width = input_ids.shape[1]
    sampler = _sample_by_quantile(quantiles.to(model.device), temperatures.to(model.device), width)
    output = model.generate(
        input_ids=input_ids,
        attention_mask=attention_mask,
        generation_config=config,
        logits_processor=[sampler] if temperatures.any() else None,
    )
    return [_until_end(ids, config.eos_token_id) for ids in output[:, width:].tolist()]


def _quantiles(seed: int | Sequence[int], place: int, n: int, tokens: int) -> Tensor:
    """Random numbers from 0 to 1, (n, tokens), float64: of one seed those from the row `place` on,
    or each row from its own.
    """

    def draw(rows: int, of: int) -> Tensor:
        generator = torch.Generator().manual_seed(of)
        return torch.rand(rows, tokens, dtype=torch.float64, generator=generator)

    if isinstance(seed, int):
        return draw(place + n, seed)[place:]
    if len(seed) != n:
        raise ValueError(f"{len(seed)} seeds for {n} prompts: give one, or one for each")
    return torch.cat([draw(1, of) for of in seed]) if n else torch.empty(0, tokens)


def _until_end(ids: list[int], end: int) -> list[int]:
    """`ids` up to the end token, which is included; what follows is padding."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def _sample_by_quantile(
    quantiles: Tensor, temperatures: Tensor, prompt_width: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """A logits processor that draws each row's next token, by inversion of its distribution.

    The token is the first whose cumulated probability exceeds the row's number for this step, in
    `quantiles`, (B, max_new_tokens), each from 0 to 1. One number a token and row makes a sample
    independent of what else is in its batch, and is cheaper than the library's way, which draws one
    for every entry of the vocabulary. Rows whose temperature, (B,), is 0 keep their scores.
    """
    greedy = temperatures == 0

    def draw(input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - prompt_width
        heat = temperatures.masked_fill(greedy, 1)[:, None]
        cumulated = (scores / heat).softmax(-1).cumsum(-1, dtype=torch.float64)  # (B, V)
        wanted = quantiles[:, step, None] * cumulated[:, -1:]
        token = torch.searchsorted(cumulated, wanted, right=True)
        drawn = torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)
        return torch.where(greedy[:, None], scores, drawn) if greedy.any() else drawn

    return draw


def _one_for_each(temperature: float | Sequence[float], n: int) -> Tensor:
    """`n` temperatures, float32, from one or from as many."""
    given = [temperature] * n if isinstance(temperature, (int, float)) else list(temperature)
    if len(given) != n:
        raise ValueError(f"{len(given)} temperatures for {n} prompts: give one, or one for each")
    if bad := [value for value in given if value < 0]:
        raise ValueError(f"temperature is {bad[0]}: 0 for greedy decoding, above 0 to sample")
    return torch.tensor(given, dtype=torch.float32)


def _batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Rows in order of length, in as few batches as `batch_size` allows, of even size."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    count = -(-len(order) // batch_size)
    for index in range(count):
        yield order[index * len(order) // count : (index + 1) * len(order) // count]


def _pad_left(rows: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack rows of token ids into `input_ids` and `attention_mask`, (B, T), padded on the left."""
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, width - len(row) :] = torch.tensor(row)
        attention_mask[index, width - len(row) :] = 1
    return input_ids, attention_mask
