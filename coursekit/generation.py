"""Batched generation: many prompts in, one response each out, in the order given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .logprobs import check_lengths, encode_prompt
from .progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 64,
    label: str = "generating",
) -> list[str]:
    """One response for each prompt, without the prompt and without special tokens.

    Prompts are batched by length and padded on the *left*, so that every row continues right where
    its prompt ends (with padding on the right a row would continue after padding). Under greedy
    decoding the result equals that of one prompt at a time. Sampled responses are reproducible for
    the same seed, prompts and batch size; the caller's random state is left as it was.

    Args:
        prompts: the user's texts; the chat template, if there is one, is applied here.
        max_new_tokens: a response that has not ended by then is cut.
        temperature: of sampling; 0 is greedy decoding.
        seed: of sampling.
        batch_size: rows generated at once.
        label: what the progress line says.

    Raises:
        ValueError: no end token, a negative temperature, or a prompt that leaves no room in the
            model's context for `max_new_tokens`.
    """
    import torch
    from transformers import GenerationConfig

    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token, so generation cannot stop: set eos_token")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}: 0 for greedy decoding, above 0 to sample")
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    room = [len(ids) + max_new_tokens for ids in encoded]
    check_lengths(model, room, f"the prompt and {max_new_tokens} new tokens")

    pad_id = tokenizer.pad_token_id
    pad_id = tokenizer.eos_token_id if pad_id is None else pad_id
    sampling = {"do_sample": temperature > 0}
    if temperature > 0:
        # The whole distribution: no top-k or top-p that the model's own settings might bring.
        sampling |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad_id,
        **sampling,
    )
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    responses = [""] * len(encoded)
    was_training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), progress(label, len(prompts), "responses") as advance:
            torch.manual_seed(seed)
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                input_ids, attention_mask = _pad_left([encoded[row] for row in batch], pad_id)
                output = model.generate(
                    input_ids=input_ids.to(model.device),
                    attention_mask=attention_mask.to(model.device),
                    generation_config=config,
                )
                texts = tokenizer.batch_decode(
                    output[:, input_ids.shape[1] :], skip_special_tokens=True
                )
                for row, text in zip(batch, texts, strict=True):
                    responses[row] = text
                advance(len(batch))
    finally:
        model.train(was_training)
    return responses


def _pad_left(rows: Sequence[list[int]], pad_id: int):
    """Stack rows of token ids into `input_ids` and `attention_mask`, (B, T), padded on the left."""
    import torch

    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, width - len(row) :] = torch.tensor(row)
        attention_mask[index, width - len(row) :] = 1
    return input_ids, attention_mask
