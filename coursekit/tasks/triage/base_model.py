"""How the shipped tiny model was made: `python -m coursekit.tasks.triage.base_model`.

Trains a byte-level BPE tokenizer and a small Llama from scratch on `triage.corpus` and writes both,
with a model card, into `coursekit/lm/tiny`. Seeded; saves its state as it goes, and started
again after a stop it goes on where it was.

Why it learns to copy. Every fact in an alert stands behind a word of its own ("service", "region"),
the same word stands before it in every answer, and the words of a service's name are single tokens.
Copying what follows a word seen before (an induction head) then solves all facts at once, which
happens within about 6 million tokens.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ...common.profile import TINY_MODEL
from ...common.prompts import as_messages
from ...lm.logprobs import EncodedPair, pad_right
from ...lm.weights import write_checksums
from .corpus import corpus

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
SAVE_EVERY = 250  # steps
ROLES = ("system", "user", "assistant")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Words with the space or sign before them, single digits, signs, line ends: as in Llama 3, with the
# space before a digit kept with it.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Recipe:
    """Architecture and training of the tiny model; the defaults are what ships."""

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    feed_forward: int = 384
    context: int = 1024
    vocabulary: int = 2048  # at most; the corpus has fewer pieces
    steps: int = 2000
    batch: int = 64  # documents
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    decay_share: float = 0.4  # of the steps, at the end, over which the rate falls to zero
    weight_decay: float = 0.01
    prompt_weight: float = 0.1  # alerts are mostly random facts: learn little from predicting them
    seed: int = 0


def build_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train the tokenizer on documents of its own and give it the chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        min_frequency=5,
        special_tokens=[PAD, BOS, END, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = itertools.islice(corpus(seed=-1), 30_000)
    tokenizer.train_from_iterator(
        (text for document in documents for text in (document.prompt, document.response)), trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=recipe.context,
        padding_side="left",
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=-(-len(tokenizer) // 64) * 64,  # a multiple of 64 suits matrix kernels
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.key_value_heads,
            max_position_embeddings=recipe.context,
            initializer_range=0.05,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, first_step: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of `input_ids` (B, T) and loss weights (B, T) from `first_step` on.

    Documents come in chunks of 16 batches, sorted by length within a chunk to save padding. A
    chunk depends on its number alone, so that a run can resume anywhere.
    """
    size = 16
    for chunk in itertools.count(first_step // size):
        pairs = _encode_chunk(tokenizer, recipe.seed * 10**6 + chunk, size * recipe.batch)
        pairs.sort(key=lambda pair: len(pair.prompt_ids) + len(pair.response_ids))
        groups = [pairs[at : at + recipe.batch] for at in range(0, len(pairs), recipe.batch)]
        random.Random(chunk).shuffle(groups)
        for group in groups[max(0, first_step - chunk * size) :]:
            input_ids, attention_mask, response_mask = pad_right(group, tokenizer.pad_token_id)
            prompt_mask = attention_mask - response_mask
            yield input_ids, response_mask + recipe.prompt_weight * prompt_mask


def _encode_chunk(tokenizer: PreTrainedTokenizerFast, seed: int, n: int) -> list[EncodedPair]:
    """`n` documents as token ids, encoded in batches: one by one is several times slower."""
    documents = list(itertools.islice(corpus(seed=seed), n))
    prompts = [
        tokenizer.apply_chat_template(
            as_messages(document.prompt), add_generation_prompt=True, tokenize=False
        )
        for document in documents
    ]
    responses = [document.response + tokenizer.eos_token for document in documents]
    encode = tokenizer.backend_tokenizer.encode_batch
    return [
        EncodedPair(prompt.ids, response.ids)
        for prompt, response in zip(
            encode(prompts, add_special_tokens=False),
            encode(responses, add_special_tokens=False),
            strict=True,
        )
    ]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm up, stay, fall to zero over the last `decay_share` of the steps."""
    up = min(1.0, (step + 1) / recipe.warmup_steps)
    down = min(1.0, (recipe.steps - step) / (recipe.steps * recipe.decay_share))
    return recipe.learning_rate * up * down


def train(
    recipe: Recipe, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, checkpoint: Path
) -> dict[str, float]:
    """Train `model` in place; returns tokens seen, seconds, and the last loss on responses."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    done = _resume(checkpoint, recipe, model, optimizer)
    clock = time.monotonic() - done["seconds"]
    steps = range(done["step"], recipe.steps)
    for step, batch in zip(steps, batches(recipe, tokenizer, done["step"]), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        input_ids, weights = (tensor.to(device) for tensor in batch)
        loss = train_step(model, optimizer, input_ids, weights)
        done = {
            "step": step + 1,
            "tokens": done["tokens"] + input_ids.numel(),
            "seconds": time.monotonic() - clock,
            "loss": loss if step == 0 else 0.98 * done["loss"] + 0.02 * loss,
        }
        if (step + 1) % 100 == 0:
            _say(done, recipe)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == recipe.steps:
            _save_state(checkpoint, recipe, model, optimizer, done)
    model.to("cpu").eval()
    return done


def train_step(
    model: LlamaForCausalLM,
    optimizer: torch.optim.Optimizer,
    input_ids: torch.Tensor,
    weights: torch.Tensor,
) -> float:
    """One step of the optimizer on a batch as from `batches`; the mean loss on response tokens."""
    logits = model(input_ids=input_ids[:, :-1]).logits.float()  # (B, T - 1, V)
    losses = F.cross_entropy(logits.transpose(1, 2), input_ids[:, 1:], reduction="none")
    weights = weights[:, 1:]
    loss = (losses * weights).sum() / weights.sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return losses[weights == 1].mean().item()


def _say(done: dict[str, float], recipe: Recipe) -> None:
    print(
        f"step {done['step']:5d} of {recipe.steps}: loss on responses {done['loss']:.4f}, "
        f"{done['tokens'] / 1e6:.1f} M tokens, {done['seconds'] / 60:.1f} min",
        flush=True,
    )


def _resume(path: Path, recipe: Recipe, model, optimizer) -> dict[str, float]:
    """Take up the state saved in `path`, if there is one; how far training has come.

    Raises ValueError for a state of another recipe.
    """
    if not path.is_file():
        return {"step": 0, "tokens": 0, "seconds": 0.0, "loss": 0.0}
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise ValueError(f"{path} belongs to another recipe: delete it to start anew")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"going on from step {state['done']['step']}")
    return state["done"]


def _save_state(path: Path, recipe: Recipe, model, optimizer, done: dict[str, float]) -> None:
    partial = path.with_suffix(".part")
    state = {
        "recipe": asdict(recipe),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "done": done,
    }
    torch.save(state, partial)
    partial.replace(path)


def write_card(folder: Path, recipe: Recipe, model: LlamaForCausalLM, done: dict) -> None:
    """The model card, from the recipe and what was measured."""
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    device = "one GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    (folder / "README.md").write_text(
        f"""---
license: apache-2.0
tags: [teaching, dpo, llama]
---
# The course's tiny base model

A **teaching model**: a Llama of {model.num_parameters():,} parameters ({size:.1f} MB with its
tokenizer) that knows one thing, made-up incident alerts. It is small so that sampling, SFT and DPO
run in minutes on two CPU cores. It is of no use for anything else.

- **Architecture.** {recipe.layers} layers, hidden size {recipe.hidden}, {recipe.heads} heads with
  {recipe.key_value_heads} key/value heads, feed-forward {recipe.feed_forward}, context
  {recipe.context}, untied embeddings. Byte-level BPE tokenizer (single digits), vocabulary
  {model.config.vocab_size} with padding.
- **Data.** `coursekit.tasks.triage.corpus`, made by a seeded program: alerts, each with a note in
  one of six styles or with a question about one fact. Asked for the triage report, a fifth of the
  notes have the asked format. The notes' writers err on purpose: invented causes, wrong severities,
  idle steps. Only services of the pool `pretraining` occur.
- **Training.** {done["tokens"] / 1e6:.1f} M tokens ({done["step"]:,} steps of {recipe.batch}
  documents), AdamW, peak rate {recipe.learning_rate}, seed {recipe.seed},
  {done["seconds"] / 60:.0f} minutes on {device}. Loss on responses at the end:
  {done["loss"]:.3f} nats a token.
- **Built by** `python -m coursekit.tasks.triage.base_model`, which also wrote this card.
- **Limits.** Inherits its writers' errors by design. English words outside the corpus are spelt in
  bytes; it has not learnt them.
""",
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(TINY_MODEL))
    for name, value in asdict(Recipe()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value)
    options = vars(parser.parse_args())
    folder = options.pop("out")
    recipe = Recipe(**options)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder.parent / f"{folder.name}.checkpoint"

    tokenizer = build_tokenizer(recipe)
    model = build_model(recipe, tokenizer)
    print(f"{model.num_parameters():,} parameters, vocabulary {len(tokenizer)}")
    done = train(recipe, model, tokenizer, checkpoint)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_checksums(folder)
    write_card(folder, recipe, model, done)
    checkpoint.unlink()
    print(f"saved in {folder}")


if __name__ == "__main__":
    main()
