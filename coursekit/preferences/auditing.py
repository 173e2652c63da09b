"""The audit: what is wrong with a set of triples, what it does to training, and how to mend it.

Two kinds of finding. *Faults* are rows: identical responses, doubles, leaks; each can be dropped.
*Biases* are properties of the whole: how often the longer response wins, or the cooler temperature.
A bias is flagged only where chance is a poor explanation (p < 0.001), so that data without one pass
in silence; what so many rows cannot show stays unseen, and the table says how much that is.

Rows that share a prompt are no independent evidence: what one prompt favours, all its pairs favour.
So the sum over each prompt's rows counts as one observation (`_deviation`); with a row a prompt
it is the usual test.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count as count_from
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..common.chance import drawn_number
from ..common.progress import progress
from ..common.prompts import Prompt, as_text, prompt_key
from ..evaluation.judges import Agreement, Judge, agreement
from ..evaluation.judges.judge import MIRRORED, ask_all
from .similar import near_duplicates, normalised
from .triples import check_triples

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[dict[str, Any]]
CHANCE = 0.001  # what is less likely by chance, two-sided, is a bias
SURE = 3.29  # the same in standard errors
_LOPSIDED = 3  # one response this many times as long as the other


@dataclass(frozen=True)
class Share:
    """How often something won, of `n` rows in which it could: a value and its 95 % interval.

    effective: how many rows of a prompt each would show as much; fewer than `n` where the rows of a
    prompt go together.
    """

    value: float
    low: float
    high: float
    n: int
    effective: float

    @property
    def sure(self) -> bool:
        """Whether chance (one half) explains it poorly: p < 0.001."""
        return abs(self.value - 0.5) * 2 * math.sqrt(self.effective) > SURE  # NaN of no rows never

    def __str__(self) -> str:
        return f"{self.value:.0%} of {self.n} ({self.low:.0%} to {self.high:.0%})"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    outcome: `ok`, `fault` (rows to drop or mend), `bias` (of the whole), or `not measured`.
    found: what was seen, in words. rows: the faulty rows, counted from 0.
    """

    check: str
    outcome: Literal["ok", "fault", "bias", "not measured"]
    found: str
    effect: str
    fix: str
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Audit:
    """All findings on `n` triples, and what was measured for them.

    shares: by name, how often the longer, the cooler, the first-shown won; length_differences,
    margins: a number a triple, chosen less rejected, in characters and in the judge's points;
    agreements: by name.
    """

    n: int
    findings: tuple[Finding, ...]
    shares: dict[str, Share] = field(default_factory=dict)
    length_differences: tuple[int, ...] = ()
    margins: tuple[float, ...] = ()
    agreements: dict[str, Agreement] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that ask for something to be done."""
        return tuple(item for item in self.findings if item.outcome in ("fault", "bias"))

    def __getitem__(self, check: str) -> Finding:
        return next(item for item in self.findings if item.check == check)

    def table(self) -> pd.DataFrame:
        """One line a check; effect and fix where something was found."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "check": item.check,
                    "outcome": item.outcome,
                    "found": item.found,
                    "what it does to training": item.effect if item in self.problems else "",
                    "how to mend it": item.fix if item.outcome != "ok" else "",
                }
                for item in self.findings
            ]
        ).set_index("check")

    def without_faults(self, triples: Rows) -> list[dict[str, Any]]:
        """`triples` (those audited) without the rows that have a fault."""
        faulty = {row for item in self.findings for row in item.rows}
        return [triple for index, triple in enumerate(triples) if index not in faulty]


def audit(
    triples: Rows,
    *,
    validation: Rows = (),
    evaluation: Sequence[Prompt] = (),
    pairs: Rows = (),
    second_judge: Judge | None = None,
    sample: int = 200,
) -> Audit:
    """Look for everything that is known to spoil preference training.

    Args:
        triples: the training triples, with whatever provenance they have; see `to_triples`.
        validation: the held-out triples. evaluation: the prompts of the final evaluation.
        pairs: all judged pairs, ties included (`judge_pairs`): for the judge's consistency.
        second_judge: asked about `sample` of the pairs (or triples), for their agreement.

    Numbers of the provenance that are none (NaN, infinity, other texts) count as missing.

    Raises ValueError if there are no triples, or for rows that are none.
    """
    if not triples:
        raise ValueError("no triples to audit")
    check_triples(triples, allow_empty=True)
    if validation:
        check_triples(validation, "the validation triples", allow_empty=True)
    shares: dict[str, Share] = {}
    agreements: dict[str, Agreement] = {}
    margins = _margins(triples)
    held_out = [row["prompt"] for row in validation]
    with progress("audit", _steps(triples, held_out, evaluation), "steps", after=2) as advance:
        done = partial(_told, advance, len(triples))
        findings = [
            *(done(check(triples)) for check in _OF_RESPONSES),
            *_of_prompts(triples, held_out, evaluation, advance),
            *map(done, _of_sides(triples, pairs, shares)),
        ]
    findings += [
        _against_scores(margins),
        _consistency(pairs, agreements),
        _second_opinion(pairs or triples, second_judge, sample, agreements),
    ]
    return Audit(
        n=len(triples),
        findings=tuple(findings),
        shares=shares,
        length_differences=tuple(len(row["chosen"]) - len(row["rejected"]) for row in triples),
        margins=tuple(margin for margin in margins if margin is not None),
        agreements=agreements,
    )


def _steps(triples: Rows, held_out: Sequence[Prompt], evaluation: Sequence[Prompt]) -> int:
    """How much is to be done: a step a row and check, two for each comparison of prompts."""
    comparisons = 1 + bool(held_out) + bool(evaluation)  # see `near_duplicates`
    return len(triples) * (len(_OF_RESPONSES) + 6 + 2 * comparisons)


def _of_sides(triples: Rows, pairs: Rows, shares: dict[str, Share]) -> Iterator[Finding]:
    """What tells the chosen from the rejected responses, beside their content."""
    yield _length(triples, shares)
    yield _lopsided(triples)
    yield _openings(triples)
    yield _temperature(triples, shares)
    yield _source(triples, shares)
    yield _position(triples, pairs, shares)


def _told(advance: Callable[[int], None], n: int, finding: Finding) -> Finding:
    advance(n)
    return finding


def _of_prompts(
    triples: Rows,
    held_out: Sequence[Prompt],
    evaluation: Sequence[Prompt],
    advance: Callable[[int], None],
) -> list[Finding]:
    texts, asked = _different_prompts(triples)
    advance(2 * (len(triples) - len(texts)) * (1 + bool(held_out) + bool(evaluation)))
    return [
        _repeated_prompts(triples, asked),
        _near_prompts(texts, asked, advance),
        _leak("validation leak", texts, asked, held_out, advance),
        _leak("evaluation leak", texts, asked, evaluation, advance),
    ]


# Faults: rows.


def _rows_finding(
    check: str, rows: Sequence[int], n: int, what: str, effect: str, fix: str
) -> Finding:
    """A fault if there are such rows."""
    rows = tuple(sorted(set(rows)))
    if not rows:
        return Finding(check, "ok", "none", effect, fix)
    shown = ", ".join(str(row + 1) for row in rows[:3]) + (", …" if len(rows) > 3 else "")
    found = f"{len(rows)} of {n} rows ({len(rows) / n:.1%}) {what}: row {shown}"
    return Finding(check, "fault", found, effect, fix, rows)


def _empty(triples: Rows) -> Finding:
    return _rows_finding(
        "empty responses",
        [
            index
            for index, row in enumerate(triples)
            if not (row["chosen"].strip() and row["rejected"].strip())
        ],
        len(triples),
        "have a response without text",
        "A chosen one teaches to say nothing; a rejected one is told apart by its length alone.",
        "Drop the rows, and see why the generator or the export left them empty.",
    )


def _truncated(triples: Rows) -> Finding:
    """Responses that stop before their end, judged by how the others end."""
    return _rows_finding(
        "truncated responses",
        _cut_short(triples),
        len(triples),
        "have a response that seems cut off",
        "The end token is then learnt after half an answer, or the judge judged the cut.",
        "Sample with more new tokens; drop rows at the limit. Look at these first: it is a guess.",
    )


_ENDS = (".", "!", "?", '"', "'", "”", "’", ")", "]", "}", "`", "*", "…", "。")


def _cut_short(triples: Rows) -> list[int]:
    """Rows with a response whose last line or last sign is not what such responses end with.

    Where nearly all responses are forms whose last line opens with the same word, another opening
    is a cut. In prose, where nearly all end with a sign that ends a sentence: a response of some
    length that does not, while its rival does.
    """
    openings: Counter[str] = Counter()
    written = ended = 0
    for row in triples:
        for text in (row["chosen"].rstrip(), row["rejected"].rstrip()):
            written += bool(text)
            ended += text.endswith(_ENDS)
            if "\n" in text:
                openings[_last_opening(text)] += 1
    usual, count = openings.most_common(1)[0] if openings else ("", 0)
    if count >= 0.8 * written:
        return [
            index
            for index, row in enumerate(triples)
            for side in ("chosen", "rejected")
            if row[side].strip() and _last_opening(row[side].rstrip()) != usual
        ]
    if ended < 0.8 * written:
        return []
    rows = []
    for index, row in enumerate(triples):
        for side, rival in (("chosen", "rejected"), ("rejected", "chosen")):
            text = row[side].rstrip()
            in_prose = len(text.split()) >= 5 and "\n" not in text
            if in_prose and not text.endswith(_ENDS) and row[rival].rstrip().endswith(_ENDS):
                rows.append(index)
    return rows


def _last_opening(text: str) -> str:
    return (text.rpartition("\n")[2].split() or [""])[0]


def _identical(triples: Rows) -> Finding:
    return _rows_finding(
        "identical pairs",
        [i for i, row in enumerate(triples) if row["chosen"].strip() == row["rejected"].strip()],
        len(triples),
        "have the same text as chosen and rejected",
        "Loss ln 2 for ever and no gradient; counted as ranked wrong, they cap the accuracy.",
        "Drop them: such a pair is a tie.",
    )


def _doubles(triples: Rows) -> Finding:
    first: set[Any] = set()
    doubled = []
    for index in _not_alone(map(_as_key, triples), len(triples)):
        key = _as_key(triples[index])
        if key in first:
            doubled.append(index)
        first.add(key)
    return _rows_finding(
        "doubled rows",
        doubled,
        len(triples),
        "repeat an earlier row",
        "Each weighs as much as its copies together; memorised sooner.",
        "Keep one of each.",
    )


def _as_key(row: dict[str, Any]) -> Hashable:
    return prompt_key(row["prompt"]), row["chosen"], row["rejected"]


def _not_alone(keys: Iterable[Hashable], n: int) -> list[int]:
    """Indices of all keys of which there may be another, by their hashes: few, of a million."""
    hashes = np.fromiter(map(hash, keys), dtype=np.int64, count=n)
    _, place, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[place] > 1).tolist()


def _contradictions(triples: Rows) -> Finding:
    ways: dict[Any, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index in _not_alone(map(_as_pair, triples), len(triples)):
        row = triples[index]
        if row["chosen"].strip() != row["rejected"].strip():
            ways[_as_pair(row)][row["chosen"].strip()].append(index)
    return _rows_finding(
        "contradictions",
        [i for sides in ways.values() if len(sides) > 1 for found in sides.values() for i in found],
        len(triples),
        "say of the same pair that each of the two is better",
        "Their gradients cancel at first; then they hold the pair's margin at zero.",
        "Drop both, or ask again: it is a tie.",
    )


def _as_pair(row: dict[str, Any]) -> Hashable:
    """The same whichever of the two responses is chosen."""
    texts = row["chosen"].strip(), row["rejected"].strip()
    return prompt_key(row["prompt"]), min(texts), max(texts)


_OF_RESPONSES = (_empty, _truncated, _identical, _doubles, _contradictions)


def _different_prompts(triples: Rows) -> tuple[list[str], np.ndarray]:
    """The prompts, normalised, each once; and the number of the one that each row asks, (rows,)."""
    numbers: dict[str, int] = defaultdict(count_from(0).__next__)
    prompts = (normalised(as_text(row["prompt"])) for row in triples)
    asked = np.fromiter(map(numbers.__getitem__, prompts), dtype=np.int32, count=len(triples))
    return list(numbers), asked


def _rows_that_ask(asked: np.ndarray, prompts: Collection[int]) -> list[int]:
    numbers = np.fromiter(prompts, dtype=asked.dtype, count=len(prompts))
    return np.flatnonzero(np.isin(asked, numbers)).tolist()


def _repeated_prompts(triples: Rows, asked: np.ndarray) -> Finding:
    """The same prompt in rows that are not pairs of one sampling (`prompt_id`)."""
    rows: dict[int, list[int]] = defaultdict(list)
    again = np.flatnonzero(np.bincount(asked)[asked] > 1)
    for index, prompt in zip(again.tolist(), asked[again].tolist(), strict=True):
        rows[prompt].append(index)
    repeated = []
    for same in rows.values():
        owner = triples[same[0]].get("prompt_id", same[0])
        seen: set[Any] = set()
        for index in same:
            row = triples[index]
            triple = (prompt_key(row["prompt"]), row["chosen"], row["rejected"])
            if row.get("prompt_id", index) != owner and triple not in seen:
                repeated.append(index)
            seen.add(triple)
    return _rows_finding(
        "repeated prompts",
        repeated,
        len(triples),
        "ask what an earlier row has asked",
        "The prompt weighs more than others, and a split by row would leak it.",
        "Keep one, or, if they are meant, split by prompt and limit the pairs of each.",
    )


def _near_prompts(
    texts: Sequence[str], asked: np.ndarray, advance: Callable[[int], None]
) -> Finding:
    return _rows_finding(
        "near-duplicate prompts",
        _rows_that_ask(asked, {later for later, _ in near_duplicates(texts, advance=advance)}),
        len(asked),
        "ask nearly what an earlier row has asked",
        "Less variety than the number of rows says; a split between them leaks.",
        "Keep one of each group, or keep a group on one side of the split.",
    )


def _leak(
    check: str,
    texts: Sequence[str],
    asked: np.ndarray,
    prompts: Sequence[Prompt],
    advance: Callable[[int], None],
) -> Finding:
    where = check.split()[0]
    effect = f"The {where} then measures memory: its numbers come out too good."
    fix = "Take the rows out of the training triples; split by prompt before anything else."
    if not prompts:
        missing = f"no {where} prompts given"
        return Finding(check, "not measured", missing, effect, f"Pass {where}=.")
    theirs = {normalised(as_text(prompt)) for prompt in prompts}
    leaked = {number for number, text in enumerate(texts) if text in theirs}
    leaked |= {number for number, _ in near_duplicates(texts, list(theirs), advance=advance)}
    return _rows_finding(
        check,
        _rows_that_ask(asked, leaked),
        len(asked),
        f"ask (nearly) what the {where} asks",
        effect,
        fix,
    )


def _lopsided(triples: Rows) -> Finding:
    rows = []
    for index, row in enumerate(triples):
        shorter, longer = sorted((len(row["chosen"].strip()), len(row["rejected"].strip())))
        if shorter and longer > _LOPSIDED * shorter and longer - shorter > 30:
            rows.append(index)
    return _rows_finding(
        "lopsided lengths",
        rows,
        len(triples),
        f"have one response over {_LOPSIDED} times as long as the other",
        "Such a pair teaches length before anything else: its summed log-ratio has most terms.",
        "Look at them: often a bare answer against a sentence. Drop, or sample both alike.",
    )


def _margins(triples: Rows) -> list[float | None]:
    """The judge's points for chosen less those for rejected; None where a row has none."""
    names = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"))
    margins: list[float | None] = []
    for row in triples:
        found = next(((row[c], row[r]) for c, r in names if c in row and r in row), ())
        scores = [_number(score) for score in found]
        margins.append(None if not scores or None in scores else scores[0] - scores[1])
    return margins


def _number(value: Any) -> float | None:
    """A number, also one that a CSV holds as text; None for what is none, or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _against_scores(margins: Sequence[float | None]) -> Finding:
    effect = "The label says the contrary of the score (or a tie is taught as a preference)."
    fix = "Take the label from the score, or drop the rows; ask which of the two was wrong."
    check = "labels against scores"
    if all(margin is None for margin in margins):
        return Finding(
            check, "not measured", "no scores in the rows", effect, "Keep the judge's scores."
        )
    return _rows_finding(
        check,
        [i for i, margin in enumerate(margins) if margin is not None and margin <= 0],
        len(margins),
        "have a chosen response that scores no higher than the rejected one",
        effect,
        fix,
    )


# Biases: of the whole.


def share(won: Sequence[bool], prompts: Sequence[Hashable] | None = None) -> Share:
    """The share of `won`, with Wilson's 95 % interval (1927, doi:10.1080/01621459.1927.10502953).

    prompts: what each belongs to; without, each stands for itself. The interval is that of as many
    independent rows as show the share with the same certainty: n over the design effect (Kish,
    Survey Sampling, 1965), which is estimated under chance and is at least 1. (That of scipy takes
    whole numbers of rows alone.)
    """
    n = len(won)
    if n == 0:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0.0)
    off = np.array(won, dtype=float) - 0.5
    p = float(off.mean()) + 0.5
    effective = n / max(1.0, float((_sums(off, prompts) ** 2).sum()) / (n / 4))
    z = NormalDist().inv_cdf(0.975)
    centre = (p + z * z / (2 * effective)) / (1 + z * z / effective)
    root = math.sqrt(p * (1 - p) / effective + z * z / (4 * effective * effective))
    half = z * root / (1 + z * z / effective)
    return Share(p, centre - half, centre + half, n, effective)


def _sums(values: np.ndarray, prompts: Sequence[Hashable] | None) -> np.ndarray:
    """The sum of the values of each prompt; without prompts the values themselves."""
    if prompts is None:
        return values
    number: dict[Hashable, int] = {}
    place = [number.setdefault(prompt, len(number)) for prompt in prompts]
    return np.bincount(place, weights=values, minlength=len(number))


def _deviation(values: np.ndarray, prompts: Sequence[Hashable]) -> float:
    """How many standard errors the sum of `values` is from zero, where chance would have it.

    The variance is the sum of the squared sums over prompts, however the rows of a prompt go
    together (Liang and Zeger 1986, doi:10.1093/biomet/73.1.13). Of few prompts it makes no more
    than their root, so that it errs towards silence.
    """
    sums = _sums(values, prompts)
    scale = math.sqrt(float((sums**2).sum()))
    return float(sums.sum()) / scale if scale else 0.0


def _texts(rows: Rows) -> list[str]:
    """What each row's prompt is, to tell which rows share one."""
    return [as_text(row["prompt"]) for row in rows]


def detectable(n: float) -> float:
    """The least distance from one half that `n` rows can show at p < 0.001."""
    return SURE / (2 * math.sqrt(n)) if n else float("nan")


def _bias(
    check: str,
    shares: dict[str, Share],
    name: str,
    measured: Share,
    effect: str,
    fix: str,
    more: str = "",
) -> Finding:
    """A finding on `measured`, which is kept under `name` ("the longer won")."""
    shares[name] = measured
    found = f"{name}: {measured}{more}"
    if not measured.sure:
        unseen = detectable(measured.effective)
        found += f"; a bias below {unseen:.0%} would not show" if unseen < 0.5 else "; too few"
        return Finding(check, "ok", found, effect, fix)
    return Finding(check, "bias", found, effect, fix)


def _length(triples: Rows, shares: dict[str, Share]) -> Finding:
    """How often the longer wins, and the correlation of winning with the difference in length.

    The correlation is that of z d with z, z = 1 or -1 at random: the mean difference over its root
    mean square.
    """
    differences = np.array([len(row["chosen"]) - len(row["rejected"]) for row in triples])
    prompts = _texts(triples)
    unequal = [index for index, difference in enumerate(differences) if difference]
    longer = share(differences[unequal] > 0, [prompts[index] for index in unequal])
    scale = math.sqrt(float((differences.astype(float) ** 2).mean()))
    correlation = float(differences.mean()) / scale if scale else 0.0
    effect = "The policy can lower the loss by its length alone, and will."
    fix = (
        "If length is no merit: sample both alike, pair by length, or ask a judge that is told to "
        "ignore it; compare length-controlled. If it is one (padding was punished), know it."
    )
    more = f", correlation with length {correlation:+.2f}"
    finding = _bias("length bias", shares, "the longer won", longer, effect, fix, more)
    if finding.outcome == "ok" and abs(_deviation(differences, prompts)) > SURE:
        found = f"the longer won: {longer}, but by more: correlation with length {correlation:+.2f}"
        return Finding(finding.check, "bias", found, effect, fix)
    return finding


def _openings(triples: Rows) -> Finding:
    """First words that stand far more often on one side: a mark of how the data were made.

    All words together should be flagged by chance as rarely as one share is, so that each must be
    surer the more there are (Bonferroni's correction).
    """
    prompts, words = _texts(triples), {}
    chosen, rejected = (
        np.array([words.setdefault(_opening(row[side]), len(words)) for row in triples])
        for side in ("chosen", "rejected")
    )
    counts = [np.bincount(side, minlength=len(words)).tolist() for side in (chosen, rejected)]
    rows = np.flatnonzero(chosen != rejected)
    opened = np.concatenate([chosen[rows], rejected[rows]])
    order, number = np.argsort(opened, kind="stable"), np.bincount(opened, minlength=len(words))
    of_word = dict(zip(words, np.split(order, np.cumsum(number)[:-1]), strict=True))
    # Fewer rows than this cannot tell anything, whichever side they are on.
    common = {word: places for word, places in of_word.items() if len(places) > SURE**2}
    sure = NormalDist().inv_cdf(1 - CHANCE / 2 / max(1, len(common)))
    telltale = []
    for word, places in common.items():
        signs = np.where(places < len(rows), 1.0, -1.0)  # chosen ones first, then rejected ones
        asked = [prompts[row] for row in rows[places % len(rows)]]
        if abs(_deviation(signs, asked)) > sure:
            of_chosen, of_rejected = (side[words[word]] for side in counts)
            telltale.append((abs(of_chosen - of_rejected), word, of_chosen, of_rejected))
    effect = "Ranking by the first word is easier than by content: the policy learns the word."
    fix = "See what puts it there (a rewriting prompt, a template); make both sides the same way."
    if not telltale:
        return Finding("telltale openings", "ok", "none", effect, fix)
    shown = "; ".join(
        f'"{word}" opens {chosen} chosen and {rejected} rejected'
        for _, word, chosen, rejected in sorted(telltale, reverse=True)[:3]
    )
    return Finding("telltale openings", "bias", shown, effect, fix)


def _opening(text: str) -> str:
    """The first of a text's words as `normalised` has them."""
    word = re.search(r"\w+", text.lower())
    return word.group() if word else (text.split() or [""])[0]


def _temperature(triples: Rows, shares: dict[str, Share]) -> Finding:
    found = [(row, pair) for row in triples if (pair := _temperatures(row)) and pair[0] != pair[1]]
    check = "temperature confound"
    effect = 'Part of what is taught is "sound as if sampled cool": sharper, not better.'
    fix = "Compare samples of one temperature (several samples, ranked), or know how much it is."
    if not found:
        return Finding(
            check, "not measured", "no pairs of two temperatures", effect, "Nothing to mend."
        )
    won = share([pair[0] < pair[1] for _, pair in found], _texts([row for row, _ in found]))
    return _bias(check, shares, "the cooler won", won, effect, fix)


def _temperatures(row: dict[str, Any]) -> tuple[float, float] | None:
    """At which temperatures chosen and rejected were sampled; None if one was not, or not told."""
    found = _number(row.get("chosen_temperature")), _number(row.get("rejected_temperature"))
    return None if None in found else found


def _source(triples: Rows, shares: dict[str, Share]) -> Finding:
    """Which of two sources (system prompts; reference, sample) wins, at equal temperatures."""
    check = "source confound"
    effect = "Whatever else tells the sources apart (length, format, wording) is learnt as well."
    fix = "Compare the sources in the other columns first; or take pairs from one source."
    found = []
    for row in triples:
        sources = [row.get(f"{side}_source") for side in ("chosen", "rejected")]
        named = None if None in sources else [str(source) for source in sources]
        temperatures = _temperatures(row)
        alike = not temperatures or temperatures[0] == temperatures[1]
        if named and named[0] != named[1] and alike:
            found.append((row, named))
    if not found:
        return Finding(check, "not measured", "no pairs of two sources", effect, "Nothing to mend.")
    winner = Counter(chosen for _, (chosen, _) in found).most_common(1)[0][0]
    among = [(row, chosen == winner) for row, (chosen, other) in found if winner in (chosen, other)]
    won = share([first for _, first in among], _texts([row for row, _ in among]))
    return _bias(check, shares, f"{winner!r} won", won, effect, fix)


def _position(triples: Rows, pairs: Rows, shares: dict[str, Share]) -> Finding:
    """How often the judge named what it was shown first, where it named one of the two."""
    check = "position bias"
    effect = "Labels say where a response stood, not how good it is: noise, or worse, a confound."
    fix = "Ask in both orders and keep only what holds in both; draw the order at random."
    found = [
        (pair, answer == "first")
        for pair in pairs
        for answer in pair.get("answers", ())
        if answer in ("first", "second")
    ]
    if not found:  # triples that came without their pairs: where the winner stood
        found = [
            (row, _number(row["chosen_position"]) == 1)
            for row in triples
            # Asked in both orders, the position where the winner stood has no part in it.
            if _number(row.get("chosen_position")) in (1, 2) and _number(row.get("asked", 1)) == 1
        ]
    if not found:
        return Finding(
            check, "not measured", "no record of positions", effect, "Keep the order as shown."
        )
    first = share([first for _, first in found], _texts([row for row, _ in found]))
    return _bias(check, shares, "the first shown won", first, effect, fix)


# The judge.


def _consistency(pairs: Rows, agreements: dict[str, Agreement]) -> Finding:
    """Whether the judge says the same in both orders."""
    check = "judge's self-consistency"
    effect = "What flips with the order is no preference; asked once, it would be a label."
    fix = "Keep flipped pairs as ties; a clearer rubric or a better judge flips less."
    asked = [
        (*pair["answers"], prompt_key(pair["prompt"]))
        for pair in pairs
        if len(pair.get("answers", ())) == 2 and "invalid" not in pair["answers"]
    ]
    if not asked:
        return Finding(
            check, "not measured", "no pair was asked in both orders", effect, "Ask in both."
        )
    found = agreement(
        *zip(*((one, MIRRORED[other], key) for one, other, key in asked), strict=True)
    )
    agreements["with itself, order changed"] = found
    return _agreement_finding(check, found, effect, fix)


def _second_opinion(
    rows: Rows, judge: Judge | None, sample: int, agreements: dict[str, Agreement]
) -> Finding:
    """Whether another judge gives the same labels."""
    check = "agreement with a second judge"
    effect = "Where two judges differ the label is one judge's taste: noise to the other."
    fix = "Read the pairs on which they differ; write the rubric's clause that decides them."
    if judge is None:
        return Finding(check, "not measured", "no second judge", effect, "Pass second_judge=.")
    labelled = [row for row in rows if row.get("winner") != "invalid"]
    chosen = sorted(labelled, key=_draw)[:sample]
    oriented = [_oriented(row) for row in chosen]
    items = [(row, *texts) for row, (texts, _) in zip(chosen, oriented, strict=True)]
    both = [
        (label, verdict.winner, prompt_key(row["prompt"]))
        for row, (_, label), verdict in zip(chosen, oriented, ask_all(judge, items), strict=True)
        if verdict.winner != "invalid"
    ]
    if not both:
        return Finding(check, "not measured", "no pair has both verdicts", effect, "Ask again.")
    found = agreement(*zip(*both, strict=True))
    agreements[f"with {judge.name}"] = found
    return _agreement_finding(check, found, effect, fix)


def _agreement_finding(check: str, found: Agreement, effect: str, fix: str) -> Finding:
    """Below 0.6 agreement is called moderate at best (Landis and Koch 1977, a convention)."""
    poor = not math.isnan(found.kappa) and found.low < 0.6
    return Finding(check, "bias" if poor else "ok", str(found), effect, fix)


def _oriented(row: dict[str, Any]) -> tuple[tuple[str, str], str]:
    """Two responses in an order that does not tell the label, and the label in that order."""
    if "winner" in row:
        return (row["first"]["response"], row["second"]["response"]), row["winner"]
    if _draw(row) % 2:
        return (row["chosen"], row["rejected"]), "first"
    return (row["rejected"], row["chosen"]), "second"


def _draw(row: dict[str, Any]) -> int:
    """A number that is random over rows and the same in every run."""
    texts = sorted(
        (row["first"]["response"], row["second"]["response"])
        if "winner" in row
        else (row["chosen"], row["rejected"])
    )
    return drawn_number("\0".join([str(row["prompt"]), *texts]))
