"""Texts that are the same, or nearly so: for duplicates in a data set and leaks between two."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from itertools import count as count_from

import numpy as np
from scipy.sparse import csr_array


def normalised(text: str) -> str:
    """`text` without case, punctuation and spacing: what a copy keeps when it is retyped.

    A text of punctuation alone stays as it is.
    """
    return " ".join(re.findall(r"\w+", text.lower())) or text.strip()


def near_duplicates(
    texts: Sequence[str],
    others: Sequence[str] | None = None,
    threshold: float = 0.8,
    advance: Callable[[int], None] = lambda n: None,
) -> Iterator[tuple[int, int]]:
    """Pairs (i, j): `texts[i]` and `others[j]` have a Jaccard index of at least `threshold`.

    The index is the share that two texts have in common of their shingles: pairs of neighbouring
    words, beginning and end included. At 0.8, texts of seventeen words may differ in one of them,
    longer ones in more, shorter ones in case and punctuation alone. Without `others`, pairs i > j
    within `texts`. `advance` is told twice of each of `texts`: when it is read and when it has been
    compared.

    Exact, yet quick on a million texts: two sets that are so alike share one of the rarest shingles
    of each, so only texts that do are compared (prefix filtering, Bayardo, Ma and Srikant 2007,
    doi:10.1145/1242572.1242591), a portion at a time.
    """
    if not texts:
        return
    found = _by_rarity(chain(texts, others or ()), len(texts), advance)
    rarest = _rarest(found, threshold)
    first, second = found[: len(texts)], found if others is None else found[len(texts) :]
    mine, theirs = rarest[: len(texts)], rarest if others is None else rarest[len(texts) :]
    having = theirs.T.tocsr()  # by shingle, the texts that have it among their rarest
    for part in _portions(mine @ np.diff(having.indptr)):
        shared = (mine[part] @ having).tocsr()
        shared.sort_indices()
        i, j = shared.nonzero()
        i += part.start
        if others is None:
            i, j = i[i > j], j[i > j]
        yield from _alike(first, second, i, j, threshold)
        advance(part.stop - part.start)


def _by_rarity(texts: Iterable[str], count: int, advance: Callable[[int], None]) -> csr_array:
    """The shingles of each text, (texts, shingles): 1 where it has one; the rarest come first.

    Rare by the number of texts that have it. `advance` is told of the first `count`.
    """
    shingles, starts = _shingles(texts, count, advance)
    found = csr_array((np.ones(len(shingles), dtype=np.int32), shingles, starts))
    found.sum_duplicates()
    found.data[:] = 1
    rank = np.empty(found.shape[1], dtype=np.int32)
    rank[np.argsort(_texts_with(found), kind="stable")] = np.arange(len(rank))
    found = csr_array((found.data, rank[found.indices], found.indptr), shape=found.shape)
    found.sort_indices()
    return found


def _shingles(
    texts: Iterable[str], count: int, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The shingles of all texts, by number; and where those of each text start, and all end."""
    numbers: dict[str, int] = defaultdict(count_from(0).__next__)  # a new word, a new number
    words, ends = array("i"), array("q", [0])
    for text in texts:
        said = ["^", *normalised(text).split(), "$"]
        words.extend(map(numbers.__getitem__, said))
        ends.append(len(words))
        if len(ends) <= count + 1:
            advance(1)
    known, ends = np.frombuffer(words, dtype=np.intc), np.array(ends)
    shingles = np.delete(known, ends[1:] - 1).astype(np.int64)  # the first word of each
    shingles <<= 32
    shingles |= np.delete(known, ends[:-1])  # and the second
    starts = ends - np.arange(len(ends))  # a text has a shingle less than it has words
    return _numbered(shingles), starts.astype(np.int32)


def _numbered(values: np.ndarray) -> np.ndarray:
    """Equal numbers for equal values, from 0 in their order; `values` are sorted meanwhile.

    `np.unique` gives the same, and takes twice the memory.
    """
    order = np.argsort(values)
    values[:] = values[order]
    numbers = np.empty(len(values), dtype=np.int32)
    numbers[order] = np.cumsum(np.append(False, values[1:] != values[:-1]), dtype=np.int32)
    return numbers


def _texts_with(found: csr_array) -> np.ndarray:
    """How many texts have each shingle, (shingles,)."""
    return np.bincount(found.indices, minlength=found.shape[1])


def _rarest(found: csr_array, threshold: float) -> csr_array:
    """Of each text as many of the rarest shingles as any set so alike must have one of.

    Those that no other text has are left out: they find nothing.
    """
    alone = int((_texts_with(found) == 1).sum())
    lengths = np.diff(found.indptr)
    enough = lengths - np.ceil(threshold * lengths).astype(np.int32) + 1
    place = np.arange(found.nnz, dtype=np.int32) - np.repeat(found.indptr[:-1], lengths)
    kept = (place < np.repeat(enough, lengths)) & (found.indices >= alone)
    starts = np.cumsum(np.append(False, kept), dtype=np.int32)[found.indptr]
    return csr_array((found.data[kept], found.indices[kept], starts), shape=found.shape)


def _portions(sizes: np.ndarray, most: int = 2_000_000) -> Iterator[slice]:
    """Slices of neighbours, in order, whose sizes add up to about `most`: what fits in memory."""
    portion = np.cumsum(sizes) // most
    starts = [0, *(np.flatnonzero(np.diff(portion)) + 1).tolist(), len(sizes)]
    yield from (slice(start, stop) for start, stop in pairwise(starts) if start < stop)


def _alike(
    first: csr_array, second: csr_array, i: np.ndarray, j: np.ndarray, threshold: float
) -> Iterator[tuple[int, int]]:
    """Those of the pairs (i, j) whose sets have a Jaccard index of at least `threshold`."""
    sizes = np.diff(first.indptr)[i], np.diff(second.indptr)[j]
    possible = np.minimum(*sizes) >= threshold * np.maximum(*sizes)
    i, j, both = i[possible], j[possible], (sizes[0] + sizes[1])[possible]
    for part in _portions(both):
        common = first[i[part]].multiply(second[j[part]]).sum(axis=1)
        alike = common / (both[part] - common) >= threshold
        yield from zip(i[part][alike].tolist(), j[part][alike].tolist(), strict=True)
