"""Chance that is the same in every process: a number drawn by what it is drawn for."""

from __future__ import annotations

from hashlib import sha256


def drawn_number(text: str, size: int = 8) -> int:
    """A whole number from 0 to 256^size - 1, of even spread over texts (SHA-256's first bytes).

    What is drawn for one text does not depend on how many others there are, nor on their order.
    """
    return int.from_bytes(sha256(text.encode()).digest()[:size], "big")


def drawn_share(text: str) -> float:
    """A number from 0 to 1 likewise, to compare with a share."""
    return drawn_number(text) / 2**64
