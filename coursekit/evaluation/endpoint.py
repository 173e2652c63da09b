"""A model that a server runs (`vllm serve`): responses by OpenAI's completions, many at a time.

The prompt goes there as the text that the model is asked with here, so no template of the server's
comes between, and its tokens are counted, to see that the server reads it alike. Every response is
kept as it comes: whatever stops, what is kept is not asked for again.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..common.files import shorten
from ..common.journal import Journal
from ..common.made_from import code_version, fingerprint
from ..common.profile import Profile
from ..common.progress import progress
from ..common.prompts import Prompt, as_messages, plain_prompt
from ..lm.identity import model_identity
from .judges.keys import Key, find_key
from .judges.pacing import Limiter, as_they_come
from .judges.providers import Refused, Transient, Unusable, client_of, guarded, sdk_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Rows = list[dict[str, Any]]
SETTING = "COURSE_SAMPLER"
# What a server says of a model anew every time, and what changes no response.
_PASSING = {"created", "permission", "max_model_len"}


class EndpointError(RuntimeError):
    """The server cannot be used: address, model, key, or it fails for too long."""


@dataclass(frozen=True)
class Endpoint:
    """A model on a server that speaks OpenAI's protocol, in place of one that is loaded here.

    url: of the server, as in http://localhost:8000/v1. model: as the server calls it.
    source: the same model here, a folder or hub name: its tokenizer writes out the prompts, and its
        contents tell it from others (a server knows no more than its name and place).
    concurrency: requests under way at a time. timeout: seconds for one. attempts: how often one is
    sent while the server is busy or down.

    The key, if the server wants one, is OPENAI_API_KEY, wherever a judge's is found too.
    """

    url: str
    model: str
    source: str | Path
    concurrency: int = 64
    timeout: float = 300.0
    attempts: int = 6

    def identity(self, profile: Profile, folder: str | Path | None = None) -> dict[str, Any]:
        """What decides its responses: what the server says of it, and the model's contents here.

        With `folder`, what the server said is noted there (`served.json`), and holds when the
        server has gone or serves others. Raises EndpointError where neither tells.
        """
        served = known_models(self.url, folder)
        if self.model not in served:
            raise EndpointError(
                f"{self.url} serves {', '.join(served) or 'no model'}, not {self.model!r}: start "
                f"it with --served-model-name {self.model}"
            )
        return {"served": served[self.model], "model": model_identity(self.source, profile)}


class Ask(NamedTuple):
    """`n` responses to a prompt. Of the same everything, they are the same responses."""

    prompt: Prompt
    temperature: float = 0.0  # 0: greedy decoding
    seed: int = 0
    n: int = 1


def find_writer(name: str, source: str | Path, folder: str | Path) -> str | Path | Endpoint:
    """Who writes the responses of the model `source`: it, here, or the server of COURSE_SAMPLER.

    The server's address is that setting; it writes for the models that it serves under the `name`
    that they have here ("SFT"). Those it served once go on to be its own: see `Endpoint.identity`.
    """
    url = os.environ.get(SETTING)
    if not url or isinstance(source, Endpoint):
        return source
    return Endpoint(url, name, source) if name in known_models(url, folder) else source


def known_models(url: str, folder: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """What the server says of each model, by name; and of those it served before, if noted there.

    Raises EndpointError if it does not answer and nothing is noted.
    """
    note = Path(folder) / "served.json" if folder else None
    before = json.loads(note.read_text(encoding="utf-8")) if note and note.is_file() else {}
    try:
        served = _Server(Endpoint(url, "", "", timeout=10)).models()
    except EndpointError:
        if not before:
            raise
        return before
    if note and before | served != before:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(before | served, indent=1), encoding="utf-8")
    return before | served


def respond(
    endpoint: Endpoint,
    asks: Sequence[Ask],
    tokenizer: PreTrainedTokenizerBase,
    profile: Profile,
    folder: str | Path | None = None,
    label: str | None = "asking",
) -> list[list[str]]:
    """The responses to each of `asks`, in their order: `n` texts each.

    They are kept in `folder`, a JSON Lines file for each model and length, as they come, with the
    `finish_reason` ("length": cut at `profile.max_new_tokens`), and only what is not there is asked
    for. How many were cut is said.

    Raises EndpointError as soon as one request has failed for good; what came is kept.
    """
    made_from = {
        "model": endpoint.identity(profile, folder),
        "max_new_tokens": profile.max_new_tokens,
        "end": tokenizer.eos_token_id,
        "sampling code": code_version(sys.modules[__name__]),
    }
    path = folder and Path(folder) / f"{fingerprint(made_from)}.jsonl"
    keys = [fingerprint(written_out(tokenizer, ask.prompt), *ask[1:]) for ask in asks]
    with Journal(path, made_from) as journal, progress(label, len(asks), "requests") as advance:
        known = {group[0]["ask"]: group for group in journal.done}
        missing = {key: ask for key, ask in zip(keys, asks, strict=True) if key not in known}
        advance(sum(key in known for key in keys))
        if missing:
            server = _Server(endpoint, tokenizer, profile.max_new_tokens)
            for answered in server.ask_all(missing):
                for key, group in answered:
                    journal.append(group)
                    known[key] = group
                advance(len(answered))
    found = [known[key] for key in keys]
    _tell_cut(endpoint.model, found, profile.max_new_tokens)
    return [[row["response"] for row in group] for group in found]


def _tell_cut(model: str, found: Sequence[Rows], tokens: int) -> None:
    reasons = [row["finish_reason"] for group in found for row in group]
    if cut := reasons.count("length"):
        print(f"{model}: {cut} of {len(reasons)} responses were cut at {tokens} tokens")


def written_out(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> tuple[str, bool]:
    """The prompt as the model reads it, and whether the tokenizer puts special tokens before it.

    A text whose tokens are those of `logprobs.encode_prompt`.
    """
    if not tokenizer.chat_template:
        return plain_prompt(prompt), True
    text = tokenizer.apply_chat_template(
        as_messages(prompt), add_generation_prompt=True, tokenize=False
    )
    return text, False


@dataclass
class _Server:
    """The conversation with one server, from several threads."""

    endpoint: Endpoint
    tokenizer: Any = None
    max_new_tokens: int = 0
    limiter: Limiter = field(default_factory=Limiter)
    stopped: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def key(self) -> Key:
        try:
            return find_key("OPENAI_API_KEY", ask=False)
        except ValueError:
            return Key("not-needed", "OPENAI_API_KEY")  # a server of one's own

    @cached_property
    def client(self) -> Any:
        sdk, endpoint = sdk_of("openai"), self.endpoint
        return client_of(sdk, sdk.OpenAI, self.key, endpoint.url, endpoint.timeout)

    def models(self) -> dict[str, dict[str, Any]]:
        """What it says of its models, without what it says anew every time; asked once."""

        def listed() -> dict[str, dict[str, Any]]:
            return {
                model.id: model.model_dump(exclude=_PASSING, exclude_none=True)
                for model in self.client.models.list().data
            }

        try:
            return guarded(listed, self.key, self.endpoint.timeout)
        except (Transient, Refused, Unusable) as error:
            raise EndpointError(
                f"{self.endpoint.url} does not say which models it serves ({error}): start a "
                "server there, as in `vllm serve FOLDER --served-model-name SFT`, or correct the "
                "address"
            ) from None

    def ask_all(self, asks: Mapping[str, Ask]) -> Iterator[list[tuple[str, Rows]]]:
        """The key of each request with its responses as they are kept, as they come."""
        self.key, self.client  # noqa: B018  found and made before there are threads
        # Written out as they are needed, and by this thread alone: tokenizers allow no more.
        requests = ((key, self._request(ask)) for key, ask in asks.items())
        return as_they_come(
            lambda item: (item[0], self._answer(*item)),
            requests,
            self.endpoint.concurrency,
            self.stopped,
        )

    def _request(self, ask: Ask) -> tuple[dict[str, Any], int]:
        """What is sent, and how many tokens the prompt has."""
        from ..lm.logprobs import encode_prompt

        text, special = written_out(self.tokenizer, ask.prompt)
        body = {
            "model": self.endpoint.model,
            "prompt": text,
            "max_tokens": self.max_new_tokens,
            **{"temperature": ask.temperature, "seed": ask.seed, "n": ask.n, "top_p": 1.0},
            # vLLM's own, against what the model's settings might bring; other servers let it be.
            "extra_body": {
                "add_special_tokens": special,
                "stop_token_ids": [self.tokenizer.eos_token_id],
                **{"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
            },
        }
        return body, len(encode_prompt(self.tokenizer, ask.prompt))

    def _answer(self, key: str, request: tuple[dict[str, Any], int]) -> Rows:
        """Send one request until it is answered; EndpointError where it will not be."""
        body, tokens = request
        url, attempts = self.endpoint.url, self.endpoint.attempts
        for tries in range(1, attempts + 1):
            self._pause(self.limiter.turn())
            try:
                return guarded(
                    lambda: self._read(key, self.client.completions.create(**body), body, tokens),
                    self.key,
                    self.endpoint.timeout,
                    self.stopped,
                )
            except (Unusable, Refused) as error:
                prompt = repr(shorten(body["prompt"].strip(), 60))
                raise EndpointError(f"{url} does not answer {prompt}: {error}") from None
            except Transient as error:
                cause = str(error)
                self._pause(self.limiter.backoff(error, tries) if tries < attempts else 0)
        raise EndpointError(
            f"{url} failed {attempts} times, at last with: {cause}. What came is kept: see to the "
            "server, and call again"
        )

    def _read(self, key: str, reply: Any, body: Mapping[str, Any], tokens: int) -> Rows:
        said = getattr(reply.usage, "prompt_tokens", None)
        if said not in (None, tokens):
            raise Unusable(
                f"it reads this prompt as {said} tokens, the tokenizer of {self.endpoint.source} "
                f"as {tokens}: it serves another model, or adds a template or a token of its own "
                "(vLLM does not)"
            )
        choices = sorted(reply.choices, key=lambda choice: choice.index)
        ended = [choice.finish_reason in ("stop", "length") for choice in choices]
        if ended != [True] * body["n"] or not all(isinstance(one.text, str) for one in choices):
            raise Transient(f"a reply that has not {body['n']} whole responses")
        return [
            {"ask": key, "response": one.text, "finish_reason": one.finish_reason}
            for one in choices
        ]

    def _pause(self, seconds: float) -> None:
        if self.stopped.wait(max(0.0, seconds)):
            raise EndpointError("stopped; what came is kept")
