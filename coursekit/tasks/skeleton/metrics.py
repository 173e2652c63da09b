"""Numbers about a response: every public function here is a metric of the task.

It gets the prompt (without the instruction of task.toml) and the response, two texts, and returns a
number, from 0 (bad) to 1 (good) unless task.toml says otherwise. It must return one for every
response, also an empty one. Helpers begin with an underscore.
"""

import re


def three_sentences_at_most(prompt: str, response: str) -> float:
    """1 for one to three sentences, else 0: a heuristic, which looks at the text alone."""
    return float(1 <= len(_sentences(response)) <= 3)


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"[.!?]+(?:\s+|$)", text) if part.strip()]
