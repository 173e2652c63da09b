"""Two protocols, one call: Anthropic's Messages API and what speaks OpenAI's chat completions.

The official SDKs do the talking, with their own retries off: when to ask again, how long to wait
and what it may cost is decided in one place (`llm_judge`), for both alike.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .keys import Key, find_key

# US dollars a million tokens, input and output. Check them where you pay; pass `price` for others.
PRICES = {
    "claude-opus-5-5": (4.0, 20.0),
    "claude-sonnet-5-5": (2.0, 10.0),
    "claude-haiku-5-5": (0.1, 0.5),
}
DEFAULT_MODEL = "claude-opus-5-5"


@dataclass(frozen=True)
class Request:
    """One question as it is sent. key: its fingerprint, to find its answer by."""

    key: str
    system: str
    user: str
    schema: dict[str, Any]
    max_tokens: int


@dataclass(frozen=True)
class Reply:
    """What came back: text, or in `problem` why there is none (`cut`, `refused`, ...).

    The tokens are what the server says, which may be anything.
    """

    text: str
    input_tokens: Any
    output_tokens: Any
    problem: str = ""


class Transient(Exception):
    """Worth asking again. wait: seconds that the server asked for, if it did.

    billed: the server may have answered, and charge for it, though the answer did not arrive whole.
    """

    def __init__(self, cause: str, wait: float | None = None, billed: bool = False) -> None:
        super().__init__(cause)
        self.wait, self.billed = wait, billed


class Refused(Exception):
    """This request will never be answered; others may."""


class Unusable(Exception):
    """No request will be answered: a wrong key, model or address."""


Collected = dict[str, Reply | Transient | Refused]


class Provider(Protocol):
    """A model behind an interface. `price`: dollars a million tokens, input and output, or None.

    `identity`: whatever decides the answers, so the address too: other servers have other models
    under the same name.
    """

    name: str
    model: str
    identity: list[str]
    price: tuple[float, float] | None

    def ask(self, request: Request) -> Reply:
        """Send one request. Raises Transient, Refused or Unusable."""
        ...

    def submit(self, requests: Sequence[Request]) -> str:
        """Hand over many requests at half the price; returns the batch's name."""
        ...

    def collect(self, batch: str) -> Collected | None:
        """What came of a batch's requests, by key; None while it is being worked on.

        Not charged are those that are Transient (to be asked again) or Refused (never answered);
        so are those that are lacking.
        """
        ...


class AnthropicProvider:
    """Anthropic's Messages API, through the `anthropic` SDK (an optional extra)."""

    name = "anthropic"

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        key: Key | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        effort: str | None = "low",
        price: tuple[float, float] | None = None,
    ) -> None:
        sdk = sdk_of("anthropic")
        self.model, self._timeout = model, timeout
        self.price = PRICES.get(model) if price is None else check_price(price)
        self._effort = {"effort": effort} if effort else {}
        self._key = key or find_key("ANTHROPIC_API_KEY")
        self._client = client_of(sdk, sdk.Anthropic, self._key, base_url, timeout)
        self.identity = [self.name, model, str(self._client.base_url), effort or ""]

    def ask(self, request: Request) -> Reply:
        create = self._client.messages.create
        return guarded(lambda: self._reply(create(**self._body(request))), self._key, self._timeout)

    def submit(self, requests: Sequence[Request]) -> str:
        bodies = [{"custom_id": item.key, "params": self._body(item)} for item in requests]
        return guarded(lambda: self._client.messages.batches.create(requests=bodies).id, self._key)

    def collect(self, batch: str) -> Collected | None:
        def results() -> Collected | None:
            batches = self._client.messages.batches
            if batches.retrieve(batch).processing_status != "ended":
                return None
            return {line.custom_id: self._result(line.result) for line in batches.results(batch)}

        return guarded(results, self._key)

    def _result(self, result: Any) -> Reply | Transient | Refused:
        if result.type == "succeeded":
            return _read_line(lambda: self._reply(result.message))
        if result.type == "errored" and result.error.error.type == "invalid_request_error":
            said = self._key.scrub(str(result.error.error.message))[:200]
            return Refused(f"the batch says invalid request: {said}")
        return Transient(f"the batch says {result.type}")  # expired, canceled, errored

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.model,
            "max_tokens": request.max_tokens,
            "system": request.system,
            "messages": [{"role": "user", "content": request.user}],
            "output_config": {
                "format": {"type": "json_schema", "schema": request.schema},
                **self._effort,
            },
        }

    @staticmethod
    def _reply(message: Any) -> Reply:
        stopped = {"max_tokens": "cut", "refusal": "refused"}.get(message.stop_reason, "")
        text = "".join(block.text for block in message.content if block.type == "text")
        given, returned = _usage(message, "input_tokens", "output_tokens")
        return Reply(text, given, returned, stopped)


class OpenAIProvider:
    """Any endpoint with OpenAI's chat completions (OpenAI, vLLM, Ollama, LM Studio), by their SDK.

    `base_url`: of a server of your own, which may want no key (`key=Key("none", "none")`).
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        *,
        key: Key | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        price: tuple[float, float] | None = None,
    ) -> None:
        sdk = sdk_of("openai")
        self.model, self._timeout = model, timeout
        self.price = PRICES.get(model) if price is None else check_price(price)
        self._key = key or find_key("OPENAI_API_KEY")
        self._client = client_of(sdk, sdk.OpenAI, self._key, base_url, timeout)
        self.identity = [self.name, model, str(self._client.base_url)]

    def ask(self, request: Request) -> Reply:
        create = self._client.chat.completions.create
        return guarded(lambda: self._reply(create(**self._body(request))), self._key, self._timeout)

    def submit(self, requests: Sequence[Request]) -> str:
        import json

        lines = [
            {
                "custom_id": item.key,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": self._body(item),
            }
            for item in requests
        ]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()

        def send() -> str:
            file = self._client.files.create(file=("judge.jsonl", content), purpose="batch")
            return self._client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            ).id

        return guarded(send, self._key)

    def collect(self, batch: str) -> Collected | None:
        import json

        def results() -> Collected | None:
            found = self._client.batches.retrieve(batch)
            if found.status in ("validating", "in_progress", "finalizing", "cancelling"):
                return None
            replies: Collected = {}
            for name in (found.output_file_id, found.error_file_id):
                text = self._client.files.content(name).text if name else ""
                for line in filter(str.strip, text.split("\n")):
                    item = json.loads(line)
                    replies[item["custom_id"]] = self._result(item.get("response") or {})
            return replies

        return guarded(results, self._key)

    def _result(self, response: dict[str, Any]) -> Reply | Transient | Refused:
        from openai.types.chat import ChatCompletion

        status = response.get("status_code")
        if status == 200:
            return _read_line(lambda: self._reply(ChatCompletion.construct(**response["body"])))
        if status == 400:
            said = self._key.scrub(str(response.get("body")))[:200]
            return Refused(f"the batch says invalid request: {said}")
        return Transient(f"the batch says {f'status {status}' if status else 'failed'}")

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.model,
            "max_completion_tokens": request.max_tokens,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": request.user},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": request.schema},
            },
        }

    @staticmethod
    def _reply(completion: Any) -> Reply:
        choice = completion.choices[0]
        problem = {"length": "cut", "content_filter": "refused"}.get(choice.finish_reason, "")
        if getattr(choice.message, "refusal", None):
            problem = "refused"
        given, returned = _usage(completion, "prompt_tokens", "completion_tokens")
        return Reply(choice.message.content or "", given, returned, problem)


def _read_line(read: Callable[[], Reply]) -> Reply:
    """A reply out of a batch; one that cannot be read spoils no other."""
    try:
        return read()
    except Exception as error:  # a form that we did not think of
        return Reply("", None, None, f"a reply that cannot be read ({type(error).__name__})")


def _usage(reply: Any, *names: str) -> list[Any]:
    """The figures called so that a reply gives; None where it gives none."""
    return [getattr(getattr(reply, "usage", None), name, None) for name in names]


def sdk_of(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"to ask a server by {name}'s protocol needs its SDK, an optional extra: "
            f"pip install {name}"
        ) from error


def client_of(sdk: Any, kind: type, key: Key, base_url: str | None, timeout: float) -> Any:
    """An SDK's client of this kind, within our limits. Asking again is the caller's to decide.

    Raises ImportError for an SDK (Colab's, for one) whose client is older than our limits know.
    """
    from . import limits

    if not issubclass(sdk.DefaultHttpxClient, limits.httpx2.Client):
        raise ImportError(
            f"{sdk.__name__} {sdk.__version__} is older than the course's (see the README, Choose "
            f"your judge): pip install --upgrade {sdk.__name__}, then restart"
        )
    return kind(
        api_key=key.reveal(),
        base_url=base_url,
        timeout=timeout,
        max_retries=0,
        http_client=limits.client(sdk, timeout),
    )


def check_dollars(what: str, value: float) -> float:
    """`value`, if it is an amount of money. Raises ValueError, which says `what` is wrong."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{what} is {value}: wanted dollars, 0 or more")
    return value


def check_price(price: tuple[float, float]) -> tuple[float, float]:
    """Dollars a million tokens in and out, if they are amounts of money; else ValueError."""
    a_million_in, a_million_out = price
    what = "the price of a million tokens"
    return check_dollars(what, a_million_in), check_dollars(what, a_million_out)


def guarded(
    call: Any, key: Key, seconds: float | None = None, stopped: threading.Event | None = None
) -> Any:
    """`call()`, with whatever either SDK raises put into one of three kinds, without the key.

    seconds: that it may take in all; a batch's without. stopped: is waited for no longer when this
    is set. `from None`: the SDK's errors hold the request, and with it the key.
    """
    from . import limits

    try:
        return limits.in_time(call, limits.BATCH_SECONDS if seconds is None else seconds, stopped)
    except (Transient, Refused, Unusable):
        raise
    except Exception as error:  # both SDKs', the network's, or a reply of another form
        raise _kind_of(error, key) from None


def _kind_of(error: Exception, key: Key) -> Exception:
    status = getattr(error, "status_code", None)
    said = key.scrub(" ".join(str(error).split()))[:200]
    if status is None:  # no reply, or one that is no reply of this protocol
        name, cause = type(error).__name__, error.__cause__
        never_sent = type(cause).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout")
        if name in ("APITimeoutError", "TimeoutError"):
            return Transient("no answer in time", billed=not never_sent)
        if "TooMuch" in (name, type(cause).__name__):  # of `limits`; one SDK wraps it
            said = key.scrub(str(error if name == "TooMuch" else cause))
            return Transient(said, billed=True)
        if name == "APIConnectionError":
            return Transient("the connection failed", billed=not never_sent)
        return Transient(f"a reply that cannot be read ({name})", billed=True)
    if status in (408, 409, 425, 429) or status >= 500:
        return Transient(f"status {status}", _wait_of(error))
    if status in (401, 402, 403, 404):
        return Unusable(f"status {status}: {said}")
    return Refused(f"status {status}: {said}")


def _wait_of(error: Exception) -> float | None:
    """Seconds that the server asks to wait, from `retry-after` (seconds or a date)."""
    import email.utils
    import time

    headers = getattr(getattr(error, "response", None), "headers", {})
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            return max(0.0, float(value) * scale)
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            continue
    return None
