"""What a good note to the claims team is: three numbers, each from 0 to 1."""

import re

ENOUGH = 12  # words that a note needs at most


def facts(prompt: str, response: str) -> float:
    """The share of the customer's facts that the note repeats: order, time and claim."""
    told = re.findall(r"\w+: ([\w:]+)", prompt)
    said = re.findall(r"[\w:]*\w", response.lower())
    return sum(value in said for value in told) / len(told)


def caution(prompt: str, response: str) -> float:
    """1 if the note says that the claim is checked, and promises nothing to the customer."""
    said = set(re.findall(r"\w+", response.lower()))
    promised = said & {"gets", "get", "granted", "approved", "sent", "paid"}
    return float(bool(said & {"check", "checked", "checking"}) and not promised)


def brevity(prompt: str, response: str) -> float:
    """1 for a note of up to `ENOUGH` words, 0 for an empty one or one of twice as many."""
    words = len(response.split())
    return max(0.0, min(1.0, 2 - words / ENOUGH)) if words else 0.0
