"""Prompts: a text, or a conversation that ends with the user; and how one becomes the other."""

from __future__ import annotations

import json
from collections.abc import Hashable

Message = dict[str, str]  # {"role", "content"}
Prompt = str | list[Message]  # one turn of the user, or a conversation that ends with one


def as_messages(prompt: Prompt) -> list[Message]:
    """The conversation so far: a text is one turn of the user."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def as_text(prompt: Prompt) -> str:
    """The prompt in one text, for models and formats that know no conversation."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(message["content"] for message in prompt)


def plain_prompt(prompt: Prompt) -> str:
    """The prompt as a model without chat template is asked, in training and in generation alike.

    It ends with a line break. Joined with nothing between, "... in one word" and "yes" may share a
    token ("wordy" is one); a trainer then drops the end of the prompt, which generation sees. A
    model that was trained on another join wants a chat template that says so.
    """
    text = as_text(prompt)
    return text if text.endswith("\n") else text + "\n"


def plain_response(response: str) -> str:
    """The response as it follows `plain_prompt`: white space before it would join the line break.

    Many vocabularies have tokens of several line breaks, or of a line break and spaces.
    """
    return response.lstrip()


def prompt_key(prompt: Prompt) -> Hashable:
    """What two prompts have in common if they are the same: usable in sets and as a key."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
