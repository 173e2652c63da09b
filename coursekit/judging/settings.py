"""Which judge a session asks: one setting, `COURSE_JUDGE`."""

from __future__ import annotations

import os
from pathlib import Path

from ..profile import Profile
from .judge import Judge
from .rubric_judge import RubricJudge


def load_judge(profile: Profile) -> Judge:
    """The judge that the environment names; the rubric program if it names none.

    COURSE_JUDGE: `rubric` (free, offline), `anthropic` or `openai` (also `anthropic:MODEL`,
    `openai:MODEL`). COURSE_JUDGE_URL: of another server that speaks the protocol (vLLM, Ollama, LM
    Studio). COURSE_JUDGE_DOLLARS: the cap (5 if not set). COURSE_RUBRIC: a markdown file in place
    of the course's. Verdicts are kept in the artifacts folder.

    Raises ValueError for another name.
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
    options = {"base_url": url}
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
    cap = float(os.environ.get("COURSE_JUDGE_DOLLARS") or 5)
    return LLMJudge(
        provider,
        load_rubric(Path(os.environ.get("COURSE_RUBRIC") or TRIAGE)),
        VerdictStore(profile.artifacts / "verdicts.sqlite"),
        max_dollars=cap if provider.price else None,
    )
