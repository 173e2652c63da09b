"""Candidates for preference pairs: several responses to each prompt, saved as they are made.

A *design* says where the candidates of a prompt come from and which of them are compared. Each has
its own way to go wrong; `preferences.audit` measures it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..common.chance import drawn_number
from ..common.journal import Journal
from ..common.made_from import MadeFrom, code_version, fingerprint
from ..common.profile import Profile
from ..common.prompts import Prompt, as_messages, as_text
from ..evaluation.endpoint import Ask, Endpoint, respond
from ..lm.identity import loaded_identity
from ..lm.logprobs import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BLOCK = 64  # prompts whose random numbers come from one seed; they are saved together at most
REFERENCE = "reference"  # the column of a row that holds a written answer


@dataclass(frozen=True)
class Source:
    """Where candidates come from: `samples` draws of the model at `temperature`, or a person.

    system: a system prompt for the sampling alone; the triple's prompt stays the row's own.
    written: the row's `reference` is taken; the model is not asked.
    """

    name: str
    samples: int = 1
    temperature: float = 0.7
    system: str = ""
    written: bool = False


@dataclass(frozen=True)
class Design:
    """Where the candidates of each prompt come from, and which of them are compared.

    pairs: `all` of them; `across` sources only; or `best_worst`: all are ranked and the best is
    compared with the worst. pairs_per_prompt: triples taken from one prompt at most, so that no
    prompt dominates.
    """

    name: str
    sources: tuple[Source, ...]
    pairs: Literal["all", "across", "best_worst"] = "all"
    pairs_per_prompt: int = 3


def two_temperatures(cool: float = 0.7, hot: float = 1.0, samples: int = 2) -> Design:
    """`samples` at each of two temperatures. The cooler errs less: it wins more often."""
    sources = (Source("cool", samples, cool), Source("hot", samples, hot))
    return Design("two temperatures", sources)


def ranked_samples(
    k: int = 4, temperature: float = 0.9, pairs: Literal["all", "best_worst"] = "best_worst"
) -> Design:
    """`k` samples under the same conditions: all pairs, or the best against the worst of them.

    Best against worst gives clear labels, one a prompt, and asks the judge k (k - 1) times for it.
    """
    name = "best against worst" if pairs == "best_worst" else "all pairs"
    return Design(f"{name} of {k}", (Source("sample", k, temperature),), pairs)


def two_system_prompts(
    careful: str, careless: str, temperature: float = 0.7, samples: int = 2
) -> Design:
    """`samples` under each of two system prompts. What else they change is learnt as well."""
    sources = (
        Source("careful", samples, temperature, careful),
        Source("careless", samples, temperature, careless),
    )
    return Design("two system prompts", sources, "across")


def reference_against_sample(temperature: float = 0.7, samples: int = 1) -> Design:
    """The row's `reference` against samples. The policy may hardly ever say what is chosen."""
    sources = (Source("reference", written=True), Source("sample", samples, temperature))
    return Design("reference against sample", sources, "across")


def profile_design(profile: Profile) -> Design:
    """The profile's own: two temperatures."""
    return two_temperatures(*profile.temperatures, samples=profile.samples_per_temperature)


def sample_candidates(
    model: PreTrainedModel | Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    design: Design | None = None,
    seed: int = 0,
    path: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Sample the candidates of `design` (the profile's, if None) for each of `rows`.

    With `path`, every finished chunk of rows (what fills a batch, 64 prompts at most) is appended
    to that JSON Lines file at once. Killed at any moment and started again with the same arguments,
    the run goes on after the last whole chunk. A file of another run (another model or tokenizer,
    other rows, design, seed, settings or sampling code) is kept under another name. Where a server
    samples (`Endpoint`), every response is kept as it comes, in the folder `responses` beside that
    file.

    Returns the rows with `candidates`: a list of `{"response", "source", "temperature"}`, and with
    `prompt_id` (the row's number), `design` and `seed`.

    Raises ValueError for a row without a `reference` where the design wants one.
    """
    design = design or profile_design(profile)
    _check_references(rows, design)
    folder = Path(path).parent / "responses" if path else None
    made_from = _made_from(model, tokenizer, rows, profile, design, seed, folder) if path else {}
    sample = _sampled_there if isinstance(model, Endpoint) else _sampled_here
    with Journal(path, made_from) as journal:
        done = sum(len(group) for group in journal.done)
        chunks = list(_chunks(done, len(rows), _chunk_size(profile, design)))
        sampled = sample(model, tokenizer, rows, profile, design, seed, chunks, folder)
        for chunk, responses in zip(chunks, sampled, strict=True):
            journal.append(
                [
                    {
                        **rows[number],
                        "prompt_id": number,
                        "design": design.name,
                        "seed": seed,
                        "candidates": _candidates(rows[number], design, responses),
                    }
                    for number in chunk
                ]
            )
        return [row for group in journal.done for row in group]


def _made_from(
    model: PreTrainedModel | Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    design: Design,
    seed: int,
    folder: Path | None,
) -> MadeFrom:
    """Whatever the candidates depend on; the tokenizer by what it makes of the prompts."""
    from ..evaluation import endpoint
    from ..lm import generation, logprobs

    asked = [
        encode_prompt(tokenizer, _asked(tokenizer, row["prompt"], system))
        for row in rows
        for system in dict.fromkeys(source.system for source in design.sources)
    ]
    served = isinstance(model, Endpoint)
    return {
        "model": model.identity(profile, folder) if served else loaded_identity(model),
        "prompts": fingerprint(asked, tokenizer.eos_token_id),
        "rows": fingerprint(rows),
        "design": asdict(design),
        "max_new_tokens": profile.max_new_tokens,
        "seed": seed,
        "block": BLOCK,
        "sampling code": code_version(
            endpoint if served else generation, logprobs, sys.modules[__name__]
        ),
    }


def _chunk_size(profile: Profile, design: Design) -> int:
    """How many prompts are sampled, and saved, together: as many as fill a batch.

    A stop loses what was not saved, so a large model, whose batches are small, saves more often.
    """
    samples = sum(source.samples for source in design.sources if not source.written)
    return max(1, profile.generation_batch // max(1, samples))


def _chunks(done: int, n: int, size: int) -> Iterator[range]:
    """The rows from `done` to `n`, at most `size` in a chunk, and none of two blocks."""
    while done < n:
        end = min(done + size, done - done % BLOCK + BLOCK, n)
        yield range(done, end)
        done = end


# Who samples: for each chunk of rows its responses, row by row in the order of the design's
# sources.


def _sampled_here(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    design: Design,
    seed: int,
    chunks: Sequence[range],
    folder: Path | None,
) -> Iterator[Iterator[str]]:
    """By the loaded model, a chunk in one batched call."""
    from ..lm.generation import generate

    sources = [s for s in design.sources if not s.written for _ in range(s.samples)]
    for chunk in chunks:
        block = chunk.start - chunk.start % BLOCK
        responses = generate(
            model,
            tokenizer,
            [
                _asked(tokenizer, rows[number]["prompt"], source.system)
                for number in chunk
                for source in sources
            ],
            max_new_tokens=profile.max_new_tokens,
            temperature=[source.temperature for _ in chunk for source in sources],
            # A block has a seed of its own, and a prompt its place in the block: what is sampled
            # depends neither on the blocks before it nor on how a block is cut into chunks.
            seed=seed * 1_000_003 + block,
            place=(chunk.start - block) * len(sources),
            batch_size=profile.generation_batch,
            label=f"sampling for prompts {chunk.start + 1} to {chunk.stop} of {len(rows)}",
        )
        yield iter(responses)


def _sampled_there(
    endpoint: Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    design: Design,
    seed: int,
    chunks: Sequence[range],
    folder: Path | None,
) -> Iterator[Iterator[str]]:
    """By a server, all chunks at once: it is never to wait for the slowest of a few."""
    sampled = [source for source in design.sources if not source.written]
    asks = [
        Ask(
            _asked(tokenizer, rows[number]["prompt"], source.system),
            source.temperature,
            drawn_number(f"{seed}/{number}/{place}", size=4),
            source.samples,
        )
        for chunk in chunks
        for number in chunk
        for place, source in enumerate(sampled)
    ]
    found = iter(respond(endpoint, asks, tokenizer, profile, folder, "sampling") if asks else ())
    for chunk in chunks:
        yield chain.from_iterable(list(islice(found, len(chunk) * len(sampled))))


def _candidates(
    row: dict[str, Any], design: Design, responses: Iterator[str]
) -> list[dict[str, Any]]:
    """The candidates of a row, in the order of the design's sources, written or of `responses`."""
    return [
        {
            "response": row[REFERENCE] if source.written else next(responses),
            "source": source.name,
            "temperature": None if source.written else source.temperature,
        }
        for source in design.sources
        for _ in range(source.samples)
    ]


def _asked(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, system: str) -> Prompt:
    """The prompt under a system prompt: a turn of its own, or where the template has no such turn
    (or there is no template), the first paragraph.
    """
    if not system:
        return prompt
    first, *others = as_messages(prompt)
    if tokenizer.chat_template:
        from jinja2 import TemplateError

        turns = [{"role": "system", "content": system}, first, *others]
        try:
            if system in tokenizer.apply_chat_template(turns, tokenize=False):
                return turns
        except TemplateError:  # some templates refuse the role
            pass
        return [{**first, "content": f"{system}\n\n{first['content']}"}, *others]
    return f"{system}\n\n{as_text(prompt)}"


def _check_references(rows: Sequence[dict[str, Any]], design: Design) -> None:
    if not any(source.written for source in design.sources):
        return
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(REFERENCE), str):
            raise ValueError(
                f"row {number} has no text in the column {REFERENCE!r}, but the design "
                f"{design.name!r} compares with one: add it, or choose another design"
            )
