"""The same prompts to several models; each answer is kept, and never generated twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.chance import drawn_number
from ..common.journal import Journal, read_journal
from ..common.made_from import code_version, fingerprint, read_record
from ..common.profile import Profile
from ..common.progress import progress
from ..lm.identity import model_identity
from .endpoint import Ask, Endpoint, respond, written_out


def answer(
    models: Mapping[str, str | Path | Endpoint],
    rows: Sequence[Mapping[str, Any]],
    profile: Profile,
    *,
    temperature: float = 0.7,
    seed: int = 0,
    folder: str | Path | None = None,
) -> dict[str, list[str]]:
    """Every model's answer to every row's prompt.

    An answer follows from the model, the prompt, the settings and `seed` alone, so that 30 prompts
    and later 300 agree on the first 30. Answers are kept by these in `folder`, batch by batch: what
    is there is not generated again, and a model whose weights (or whose base's weights) have
    changed is another model; so are other settings, or other code that samples. A file that was
    edited is set aside. A model is loaded only if answers are missing, and not a second time if
    somebody holds it (see `lm.shared`).

    Args:
        models: folders or hub names, by the name to show; or an `Endpoint`, where a server answers,
            many prompts at a time, each answer kept as it comes.
        rows: with `prompt`. A prompt that comes twice is answered twice, with other samples.
        temperature: of sampling; 0 is greedy decoding.
        folder: `profile.artifacts / "answers"` if none is given.

    Returns, for each model's name, its answers in the order of `rows`.
    """
    folder = Path(folder or profile.artifacts / "answers")
    wanted = _numbered([row["prompt"] for row in rows])
    return {
        name: (_asked if isinstance(source, Endpoint) else _answers)(
            name, source, wanted, profile, temperature, seed, folder
        )
        for name, source in models.items()
    }


def kept_answers(
    models: Mapping[str, str | Path],
    rows: Sequence[Mapping[str, Any]],
    profile: Profile,
    *,
    temperature: float = 0.7,
    seed: int = 0,
    folder: str | Path | None = None,
) -> dict[str, list[str | None]]:
    """What `answer` has kept in `folder`, and None where it has nothing; nothing is generated.

    Those of models as they are now, whether they answered here or on a server, which is not asked.
    Where the code that samples has changed since, the latest are taken.

    Raises ValueError for answers, or a record of theirs, that are damaged.
    """
    folder = Path(folder or profile.artifacts / "answers")
    wanted = _numbered([row["prompt"] for row in rows])
    return {
        name: _kept(source, wanted, profile, temperature, seed, folder)
        for name, source in models.items()
    }


def _kept(
    source: str | Path,
    wanted: Sequence[tuple[str, int, Any]],
    profile: Profile,
    temperature: float,
    seed: int,
    folder: Path,
) -> list[str | None]:
    identity = model_identity(source, profile)
    found: list[str | None] = [None] * len(wanted)
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime):
        record = read_record(path) or {}
        model, here = record.get("model"), (record.get("temperature"), record.get("seed"))
        if record.get("max_new_tokens") != profile.max_new_tokens:
            continue
        if (model, *here) == (identity, temperature, seed):
            known = {(row["prompt"], row["number"]): row for row in read_journal(path)}
            keys: list[Any] = [(key, number) for key, number, _ in wanted]
        elif isinstance(model, dict) and model.get("model") == identity:
            known = {row["ask"]: row for row in read_journal(path)}
            keys = _keys_on_a_server(source, wanted, profile, temperature, seed)
        else:
            continue
        found = [
            known[key]["response"] if key in known else before
            for key, before in zip(keys, found, strict=True)
        ]
    return found


def _keys_on_a_server(
    source: str | Path,
    wanted: Sequence[tuple[str, int, Any]],
    profile: Profile,
    temperature: float,
    seed: int,
) -> list[str]:
    """Under what `endpoint.respond` keeps the responses to what `_asked` asks."""
    from ..lm.loading import load_tokenizer

    tokenizer = load_tokenizer(source, profile)
    asks = [Ask(prompt, temperature, _seed(seed, key, n)) for key, n, prompt in wanted]
    return [fingerprint(written_out(tokenizer, ask.prompt), *ask[1:]) for ask in asks]


def _numbered(prompts: Sequence[Any]) -> list[tuple[str, int, Any]]:
    """For each prompt its fingerprint, how often it came before, and itself."""
    seen: Counter[str] = Counter()
    numbered = []
    for prompt in prompts:
        key = fingerprint(prompt)
        numbered.append((key, seen[key], prompt))
        seen[key] += 1
    return numbered


def _asked(
    name: str,
    endpoint: Endpoint,
    wanted: Sequence[tuple[str, int, Any]],
    profile: Profile,
    temperature: float,
    seed: int,
    folder: Path,
) -> list[str]:
    """The answers of a model on a server."""
    from ..lm.loading import load_tokenizer

    asks = [Ask(prompt, temperature, _seed(seed, key, n)) for key, n, prompt in wanted]
    tokenizer = load_tokenizer(endpoint.source, profile)
    return [text for (text,) in respond(endpoint, asks, tokenizer, profile, folder, name)]


def _answers(
    name: str,
    source: str | Path,
    wanted: Sequence[tuple[str, int, Any]],
    profile: Profile,
    temperature: float,
    seed: int,
    folder: Path,
) -> list[str]:
    from ..lm import generation, logprobs

    made_from = {
        "model": model_identity(source, profile),
        "temperature": temperature,
        "seed": seed,
        "max_new_tokens": profile.max_new_tokens,
        "sampling code": code_version(generation, logprobs),
    }
    with Journal(folder / f"{fingerprint(made_from)}.jsonl", made_from) as journal:
        known = {
            (row["prompt"], row["number"]): row["response"]
            for group in journal.done
            for row in group
        }
        missing = [item for item in wanted if item[:2] not in known]
        if missing:
            for rows in _generated(name, source, missing, len(wanted), profile, temperature, seed):
                journal.append(rows)
                known |= {(row["prompt"], row["number"]): row["response"] for row in rows}
    return [known[key, number] for key, number, _ in wanted]


def _generated(
    name: str,
    source: str | Path,
    missing: Sequence[tuple[str, int, Any]],
    total: int,
    profile: Profile,
    temperature: float,
    seed: int,
) -> Iterator[list[dict[str, Any]]]:
    """The missing answers, a batch at a time, as rows to keep."""
    from ..lm.generation import generate
    from ..lm.loading import load_tokenizer
    from ..lm.shared import load_shared

    model, tokenizer = load_shared(source, profile), load_tokenizer(source, profile)
    with progress(name, total, "answers") as advance:
        advance(total - len(missing))
        for start in range(0, len(missing), profile.generation_batch):
            batch = missing[start : start + profile.generation_batch]
            responses = generate(
                model,
                tokenizer,
                [prompt for _, _, prompt in batch],
                max_new_tokens=profile.max_new_tokens,
                temperature=temperature,
                seed=[_seed(seed, key, number) for key, number, _ in batch],
                batch_size=profile.generation_batch,
                label=None,
            )
            yield [
                {"prompt": key, "number": number, "response": response}
                for (key, number, _), response in zip(batch, responses, strict=True)
            ]
            advance(len(batch))


def _seed(seed: int, key: str, number: int) -> int:
    """A seed of its own for each prompt, so that its answer does not depend on the others."""
    return drawn_number(f"{seed}/{key}/{number}", size=4)
