"""Which judge a session asks: one setting, `COURSE_JUDGE`."""

from __future__ import annotations

import os
from pathlib import Path

from ..profile import Profile
from .judge import Judge
from .rubric_judge import RubricJudge


def load_judge(profile: Profile) -> Judge:
    """The judge that the environment names; the rubric program if it names none.

    COURSE_JUDGE: `rubric` (free, offline), `anthropic`, `anthropic:MODEL` or `openai:MODEL`.
    COURSE_JUDGE_URL: of another server that speaks the protocol (vLLM, Ollama, LM Studio), which is
    taken to cost nothing. COURSE_JUDGE_DOLLARS: the cap (5 if not set). COURSE_JUDGE_PRICE: dollars
    a million tokens in and out, `2.5,10`, of a model whose price the course does not know.
    COURSE_RUBRIC: a markdown file in place of the course's. Verdicts are kept in the artifacts
    folder.

    Raises ValueError for another name, or a price that is needed and not known.
    """
    kind, _, model = (os.environ.get("COURSE_JUDGE") or "rubric").partition(":")
    if kind == "rubric":
        return RubricJudge()
    from .keys import Key
    from .llm_judge import LLMJudge
    from .providers import AnthropicProvider, OpenAIProvider
    from .store import VerdictStore
    from .written_rubric import TRIAGE, load_rubric

    url = os.environ.get("COURSE_JUDGE_URL")
    options = {"base_url": url, "price": _price(url)}
    if kind == "anthropic":
        provider = AnthropicProvider(**({"model": model} if model else {}), **options)
    elif kind == "openai" and model:
        if url and not os.environ.get("OPENAI_API_KEY"):
            options["key"] = Key("not-needed", "OPENAI_API_KEY")  # a server of one's own
        provider = OpenAIProvider(model, **options)
    else:
        raise ValueError(
            f"COURSE_JUDGE is {os.environ['COURSE_JUDGE']!r}: wanted rubric, anthropic, "
            "anthropic:MODEL or openai:MODEL"
        )
    if provider.price is None:
        raise ValueError(
            f"the price of {provider.model} is not known here, so no cap could be kept: set "
            "COURSE_JUDGE_PRICE to dollars a million tokens in and out, as in 2.5,10"
        )
    cap = float(os.environ.get("COURSE_JUDGE_DOLLARS") or 5)
    return LLMJudge(
        provider,
        load_rubric(Path(os.environ.get("COURSE_RUBRIC") or TRIAGE)),
        VerdictStore(profile.artifacts / "verdicts.sqlite"),
        max_dollars=cap,
    )


def _price(url: str | None) -> tuple[float, float] | None:
    """As set; nothing for a server of one's own; else None, for the provider to know."""
    given = os.environ.get("COURSE_JUDGE_PRICE")
    if not given:
        return (0.0, 0.0) if url else None
    try:
        a_million_in, a_million_out = (float(part) for part in given.split(","))
    except ValueError:
        raise ValueError(
            f"COURSE_JUDGE_PRICE is {given!r}: wanted two numbers, as in 2.5,10"
        ) from None
    return a_million_in, a_million_out
