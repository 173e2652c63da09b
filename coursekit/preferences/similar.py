"""Texts that are the same, or nearly so: for duplicates in a data set and leaks between two."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise


def normalised(text: str) -> str:
    """`text` without case, punctuation and spacing: what a copy keeps when it is retyped.

    A text of punctuation alone stays as it is.
    """
    return " ".join(re.findall(r"\w+", text.lower())) or text.strip()


def shingles(text: str) -> frozenset[str]:
    """The pairs of neighbouring words of `text`, its beginning and its end included."""
    words = ["^", *normalised(text).split(), "$"]
    return frozenset(f"{one} {other}" for one, other in pairwise(words))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """The share of their shingles that two texts have in common: 1 for all, 0 for none."""
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def near_duplicates(
    texts: Sequence[str], others: Sequence[str] | None = None, threshold: float = 0.8
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j): `texts[i]` and `others[j]` have a Jaccard index of at least `threshold`.

    Without `others`, pairs i > j within `texts`. At 0.8, texts of seventeen words may differ in
    one of them, longer ones in more, shorter ones in case and punctuation alone.

    Exact, yet quick on tens of thousands of texts: two sets that are so alike share one of the
    rarest shingles of each, so only texts that do are compared (prefix filtering, Bayardo, Ma and
    Srikant 2007, doi:10.1145/1242572.1242591).
    """
    sets = [shingles(text) for text in texts]
    against = sets if others is None else [shingles(text) for text in others]
    counted = sets if others is None else [*sets, *against]
    frequency = Counter(shingle for found in counted for shingle in found)
    index: dict[str, list[int]] = defaultdict(list)
    if others is not None:
        for j, found in enumerate(against):
            for shingle in _rarest(found, frequency, threshold):
                index[shingle].append(j)
    for i, found in enumerate(sets):
        rarest = _rarest(found, frequency, threshold)
        for j in sorted({j for shingle in rarest for j in index[shingle]}):
            shorter, longer = sorted((len(found), len(against[j])))
            if shorter >= threshold * longer and jaccard(found, against[j]) >= threshold:
                yield i, j
        if others is None:
            for shingle in rarest:
                index[shingle].append(i)


def _rarest(found: frozenset[str], frequency: Counter[str], threshold: float) -> list[str]:
    """As many of the rarest shingles as any set so alike must have one of."""
    enough = len(found) - math.ceil(threshold * len(found)) + 1
    return sorted(found, key=lambda shingle: (frequency[shingle], shingle))[:enough]
