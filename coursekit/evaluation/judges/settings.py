"""Which judge a session asks: one setting, `COURSE_JUDGE`."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...common.profile import Profile
from ...tasks import Task
from .judge import Judge
from .program import ProgramJudge

if TYPE_CHECKING:
    from .providers import AnthropicProvider, OpenAIProvider


def load_truth(task: Task, judge: Judge) -> Judge:
    """The program that knows the truth of the task; where none does, `judge` stands in."""
    return ProgramJudge(task) if task.knows_truth else judge


def load_judge(task: Task, profile: Profile) -> Judge:
    """The judge that the environment names; the task's own program if it names none.

    COURSE_JUDGE: `program` (free, offline; for tasks of which one knows the truth), `anthropic`,
    `anthropic:MODEL` or `openai:MODEL`.
    COURSE_JUDGE_URL: of another server that speaks the protocol (vLLM, Ollama, LM Studio). On this
    machine or in a private network it is taken to cost nothing, except for a model whose price the
    course knows. COURSE_JUDGE_PRICE: dollars a million tokens in and out, `2.5,10`, of a model
    whose price the course does not know; `0,0` for one that is free. COURSE_JUDGE_DOLLARS: the cap
    (5 if not set) on all that is ever spent through the artifacts folder's store, by all sessions
    together. COURSE_RUBRIC: a markdown file in place of the task's. Verdicts and payments are
    kept in the artifacts folder.

    Raises ValueError for another name, an amount or address that is none, or a price that is needed
    and not known.
    """
    asked = os.environ.get("COURSE_JUDGE") or "program"
    if asked.partition(":")[0] == "program":
        return ProgramJudge(task)
    from ...tasks.rubric import load_rubric
    from .llm_judge import LLMJudge
    from .store import VerdictStore

    provider = _provider(asked)
    (cap,) = _dollars("COURSE_JUDGE_DOLLARS", os.environ.get("COURSE_JUDGE_DOLLARS") or "5", 1)
    return LLMJudge(
        provider,
        load_rubric(Path(os.environ.get("COURSE_RUBRIC") or task.rubric)),
        VerdictStore(profile.artifacts / "verdicts.sqlite"),
        max_dollars=cap,
    )


def _provider(asked: str) -> AnthropicProvider | OpenAIProvider:
    """The provider and model that COURSE_JUDGE names, with a price that is known."""
    from .keys import Key
    from .providers import AnthropicProvider, OpenAIProvider

    kind, _, model = asked.partition(":")
    url = os.environ.get("COURSE_JUDGE_URL") or None
    free = _is_our_own(url) if url else False
    options = {"base_url": url, "price": _price()}
    if kind == "anthropic":
        provider = AnthropicProvider(**({"model": model} if model else {}), **options)
    elif kind == "openai" and model:
        if url and not os.environ.get("OPENAI_API_KEY"):
            options["key"] = Key("not-needed", "OPENAI_API_KEY")  # a server of one's own
        provider = OpenAIProvider(model, **options)
    else:
        raise ValueError(
            f"COURSE_JUDGE is {asked!r}: wanted program, anthropic, anthropic:MODEL or openai:MODEL"
        )
    if provider.price is None and free:
        provider.price = (0.0, 0.0)
    if provider.price is None:
        raise ValueError(
            f"the price of {provider.model} is not known here, so no cap could be kept: set "
            "COURSE_JUDGE_PRICE to dollars a million tokens in and out, as in 2.5,10 (0,0 if it "
            "is free)"
        )
    return provider


def _price() -> tuple[float, float] | None:
    """As set; else None, for the provider to know."""
    given = os.environ.get("COURSE_JUDGE_PRICE")
    return _dollars("COURSE_JUDGE_PRICE", given, 2) if given else None


def _dollars(name: str, given: str, count: int) -> tuple[float, ...]:
    """So many amounts of dollars, with commas between, out of the setting `name`."""
    from .providers import check_dollars

    try:
        amounts = tuple(check_dollars(name, float(part)) for part in given.split(","))
    except ValueError:
        amounts = ()
    if len(amounts) != count:
        wanted = "an amount, as in 5" if count == 1 else "two amounts, as in 2.5,10"
        raise ValueError(f"{name} is {given!r}: wanted {wanted}, in dollars, 0 or more")
    return amounts


def _is_our_own(url: str) -> bool:
    """Whether a server is on this machine or in a private network: nobody sends a bill from there.

    Raises ValueError for what is no address of a server.
    """
    try:
        parts = urlsplit(url)
        host = (parts.scheme in ("http", "https") and parts.hostname) or ""
    except ValueError:
        host = ""
    if not host:
        raise ValueError(
            f"COURSE_JUDGE_URL is {url!r}: wanted an address as in http://localhost:8000/v1"
        )
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:  # a name, not a number
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
