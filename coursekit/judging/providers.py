"""Two protocols, one call: Anthropic's Messages API and what speaks OpenAI's chat completions.

The official SDKs do the talking, with their own retries off: when to ask again, how long to wait
and what it may cost is decided in one place (`llm_judge`), for both alike.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """What came back: text, or in `problem` why there is none (`cut`, `refused`, ...)."""

    text: str
    input_tokens: int
    output_tokens: int
    problem: str = ""


class Transient(Exception):
    """Worth asking again. wait: seconds that the server asked for, if it did."""

    def __init__(self, cause: str, wait: float | None = None) -> None:
        super().__init__(cause)
        self.wait = wait


class Refused(Exception):
    """This request will never be answered; others may."""


class Unusable(Exception):
    """No request will be answered: a wrong key, model or address."""


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

    def collect(self, batch: str) -> dict[str, Reply | str] | None:
        """By key the replies of a batch, or why there is none; None while it is being worked on."""
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
        sdk = _sdk("anthropic")
        self.model = model
        self.price = PRICES.get(model) if price is None else price
        self._effort = {"effort": effort} if effort else {}
        self._key = key or find_key("ANTHROPIC_API_KEY")
        self._client = sdk.Anthropic(
            api_key=self._key.reveal(), base_url=base_url, timeout=timeout, max_retries=0
        )
        self.identity = [self.name, model, str(self._client.base_url), effort or ""]

    def ask(self, request: Request) -> Reply:
        return _guarded(
            lambda: self._reply(self._client.messages.create(**self._body(request))), self._key
        )

    def submit(self, requests: Sequence[Request]) -> str:
        bodies = [{"custom_id": item.key, "params": self._body(item)} for item in requests]
        return _guarded(lambda: self._client.messages.batches.create(requests=bodies).id, self._key)

    def collect(self, batch: str) -> dict[str, Reply | str] | None:
        def results() -> dict[str, Reply | str] | None:
            batches = self._client.messages.batches
            if batches.retrieve(batch).processing_status != "ended":
                return None
            return {
                line.custom_id: self._reply(line.result.message)
                if line.result.type == "succeeded"
                else f"the batch says {line.result.type}"
                for line in batches.results(batch)
            }

        return _guarded(results, self._key)

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
        usage = message.usage
        return Reply(text, usage.input_tokens, usage.output_tokens, stopped)


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
        sdk = _sdk("openai")
        self.model = model
        self.price = PRICES.get(model) if price is None else price
        self._key = key or find_key("OPENAI_API_KEY")
        self._client = sdk.OpenAI(
            api_key=self._key.reveal(), base_url=base_url, timeout=timeout, max_retries=0
        )
        self.identity = [self.name, model, str(self._client.base_url)]

    def ask(self, request: Request) -> Reply:
        create = self._client.chat.completions.create
        return _guarded(lambda: self._reply(create(**self._body(request))), self._key)

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

        return _guarded(send, self._key)

    def collect(self, batch: str) -> dict[str, Reply | str] | None:
        import json

        from openai.types.chat import ChatCompletion

        def results() -> dict[str, Reply | str] | None:
            found = self._client.batches.retrieve(batch)
            if found.status in ("validating", "in_progress", "finalizing", "cancelling"):
                return None
            replies: dict[str, Reply | str] = {}
            for name in (found.output_file_id, found.error_file_id):
                text = self._client.files.content(name).text if name else ""
                for line in filter(str.strip, text.splitlines()):
                    item = json.loads(line)
                    response = item.get("response") or {}
                    if response.get("status_code") == 200:
                        completion = ChatCompletion.model_validate(response["body"])
                        replies[item["custom_id"]] = self._reply(completion)
                    else:
                        replies[item["custom_id"]] = "the batch says failed"
            return replies

        return _guarded(results, self._key)

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
        usage = completion.usage
        return Reply(
            choice.message.content or "",
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
            problem,
        )


def _sdk(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a judge by {name} needs its SDK, an optional extra: pip install {name}"
        ) from error


def _guarded(call: Any, key: Key) -> Any:
    """`call()`, with whatever either SDK raises put into one of three kinds, without the key.

    `from None`: the SDK's errors hold the request, and with it the key.
    """
    try:
        return call()
    except (Transient, Refused, Unusable):
        raise
    except Exception as error:  # both SDKs', the network's, or a reply of another form
        raise _kind_of(error, key) from None


def _kind_of(error: Exception, key: Key) -> Exception:
    status = getattr(error, "status_code", None)
    said = key.scrub(" ".join(str(error).split()))[:200]
    if status is None:  # no reply, or one that is no reply of this protocol
        name = type(error).__name__
        if name == "APITimeoutError":
            return Transient("no answer in time")
        if name == "APIConnectionError":
            return Transient("the connection failed")
        return Transient(f"a reply that cannot be read ({name})")
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
