"""From candidates to triples: which of two responses is better, and who said so."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import save_jsonl
from ..common.journal import Journal
from ..common.made_from import MadeFrom, code_version, fingerprint, only_here, set_aside
from ..common.profile import Profile
from ..common.progress import progress
from ..evaluation import judges
from ..evaluation.judges import Judge, Verdict, announce, both_orders, one_order, side_by_side
from ..evaluation.judges.judge import POINTS, spent
from .sampling import Design, profile_design, sample_candidates
from .triples import count_path, save_dataset, save_triples

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..evaluation.endpoint import Endpoint

Candidate = dict[str, Any]


def make_triples(
    model: PreTrainedModel | Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    judge: Judge,
    design: Design | None = None,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    scorer: Judge | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Sample, judge in both orders, and return the triples and all judged pairs, ties included.

    model: in memory, or on a server (`Endpoint`), which is then asked for many responses at a time.

    With `folder`, everything is saved there as it is made: `candidates.jsonl`, `pairs.jsonl`; and
    at the end `triples.jsonl` and the `datasets` folder `triples`. Stopped and called again with
    the same arguments, it goes on where it was. A `triples.jsonl` that says something else than the
    pairs (other pairs', or edited) is kept under another name.
    """
    design = design or profile_design(profile)
    path = (lambda name: Path(folder) / name) if folder else (lambda name: None)
    candidates = sample_candidates(
        model, tokenizer, rows, profile, design, seed, path("candidates.jsonl")
    )
    pairs = judge_pairs(candidates, judge, design, path=path("pairs.jsonl"), scorer=scorer)
    triples = to_triples(pairs)
    if folder:
        _save(triples, Path(folder))
    return triples, pairs


def _save(triples: list[dict[str, Any]], folder: Path) -> None:
    """Save the triples; others that lie there are set aside, with their card."""
    path = folder / "triples.jsonl"
    with only_here(path):
        new = save_jsonl(triples, folder / "triples.new.jsonl")
        if path.is_file() and path.read_bytes() != new.read_bytes():
            also = (count_path(path), folder / "triples")
            set_aside(path, "other triples than the kept pairs give", also)
        new.unlink()
        save_triples(triples, path)
        if not (folder / "triples" / "state.json").is_file():
            save_dataset(triples, folder / "triples")


def judge_pairs(
    candidates: Sequence[dict[str, Any]],
    judge: Judge,
    design: Design,
    *,
    twice: bool = True,
    quiet: bool = False,
    path: str | Path | None = None,
    scorer: Judge | None = None,
) -> list[dict[str, Any]]:
    """Every pair that `judge` was asked about, with its verdict: winners and ties.

    The judge sees each pair in both orders (with `twice=False` once, as it comes). A prompt is left
    when it has given `design.pairs_per_prompt` winners; no two texts are compared twice. `quiet`
    shows no progress.

    With `path`, a prompt's pairs are appended to that file when it is judged; see `Journal`. Kept
    pairs are used again only for the same candidates, judge and scorer, told by their `identity`.
    The points that are kept beside the responses are the judge's own, or those of `scorer`.

    Returns rows `{"prompt", "first", "second", "winner", "consistent", "answers", "judge", ...}`:
    first and second are candidates (with `score` if the judge gives points), winner is `first`,
    `second`, `tie`, or `invalid` where there was no verdict, answers what the judge said each time
    it was asked, and the columns of the row they belong to follow.
    """
    scorer = scorer or judge
    made_from = _made_from(candidates, judge, scorer, design, twice) if path else {}
    ask = both_orders if twice else one_order
    with (
        Journal(path, made_from) as journal,
        progress(None if quiet else "judging", len(candidates), "prompts") as advance,
    ):
        advance(len(journal.done))
        rest = candidates[len(journal.done) :]
        announce(
            judge,
            [(row, *texts) for row in rest for texts in combinations(_responses(row), 2)],
        )
        for judged in side_by_side(
            judge, lambda row: list(_judged(row, judge, scorer, design, ask)), rest
        ):
            journal.append(judged)
            advance(1, spent(judge))
        return [pair for group in journal.done for pair in group]


def _made_from(
    candidates: Sequence[dict[str, Any]], judge: Judge, scorer: Judge, design: Design, twice: bool
) -> MadeFrom:
    """Whatever the judged pairs depend on. Raises ValueError for a judge without `identity`."""
    for one in (judge, scorer):
        if not hasattr(one, "identity"):
            raise ValueError(
                f"the judge {one.name!r} has no `identity`, so that its kept verdicts could be "
                "taken for another judge's: give it one (see judges.judge.Judge), or keep nothing "
                "(no path, no folder)"
            )
    return {
        "candidates": fingerprint(candidates),
        "judge": judge.identity,
        "scorer": scorer.identity,
        "design": asdict(design),
        "both orders": twice,
        "pairing code": code_version(sys.modules[__name__], judges.judge),
    }


def _judged(
    row: dict[str, Any], judge: Judge, scorer: Judge, design: Design, ask: Any
) -> Iterator[dict]:
    """The pairs of one prompt, as rows, until there are winners enough."""
    about = {name: value for name, value in row.items() if name != "candidates"}
    compare = _best_and_worst if design.pairs == "best_worst" else _in_turn
    taken: set[frozenset[str]] = set()
    winners = 0
    for first, second, verdict in compare(row, judge, ask):
        texts = frozenset((first["response"], second["response"]))
        same_source = first["source"] == second["source"]
        if texts in taken or (design.pairs == "across" and same_source):
            continue
        if winners == design.pairs_per_prompt:
            return
        taken.add(texts)
        verdict = verdict()
        winners += verdict.winner in ("first", "second")
        yield {
            "prompt": row["prompt"],
            "first": _with_score(first, row, scorer),
            "second": _with_score(second, row, scorer),
            "winner": verdict.winner,
            "consistent": verdict.consistent,
            "answers": list(verdict.answers),
            "judge": judge.name,
            **about,
        }


def _in_turn(row: dict[str, Any], judge: Judge, ask: Any) -> Iterator[tuple]:
    """Each pair of candidates with the call that asks for its verdict."""
    for first, second in combinations(row["candidates"], 2):
        yield first, second, partial(ask, judge, row, first["response"], second["response"])


def _best_and_worst(row: dict[str, Any], judge: Judge, ask: Any) -> Iterator[tuple]:
    """The one pair of best and worst, ranked by a round robin: a win is a point, a tie half."""
    found = row["candidates"]
    points = [0.0] * len(found)
    verdicts: dict[tuple[int, int], Verdict] = {}
    for one, other in combinations(range(len(found)), 2):
        verdict = ask(judge, row, found[one]["response"], found[other]["response"])
        verdicts[one, other] = verdict
        worth = POINTS[verdict.winner]
        if worth is None:
            worth = POINTS["tie"]  # neither gains on the other, in the order alone
        points[one] += worth
        points[other] += 1 - worth
    order = sorted(range(len(found)), key=points.__getitem__)
    first, second = sorted((order[0], order[-1]))
    if first != second:
        yield found[first], found[second], lambda: verdicts[first, second]


def _responses(row: Mapping[str, Any]) -> list[str]:
    return [one["response"] for one in row["candidates"]]


def _with_score(candidate: Candidate, row: Mapping[str, Any], scorer: Judge) -> Candidate:
    score = getattr(scorer, "score", None)
    return {**candidate, "score": score(row, candidate["response"])} if score else candidate


def to_triples(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs that have a winner as triples, with where each came from. Others make no triple.

    Columns beside prompt, chosen and rejected: of each response its `source`, `temperature` and
    `score`; `chosen_position` (1 or 2: where the winner stood); `asked` (how often the judge was),
    `consistent`, `judge`, and what else the pairs carry (`prompt_id`, `design`, `seed`, `facts`).
    """
    triples = []
    for pair in pairs:
        if pair["winner"] not in ("first", "second"):
            continue
        sides = ("first", "second") if pair["winner"] == "first" else ("second", "first")
        roles = dict(zip(("chosen", "rejected"), sides, strict=True))
        rest = ("prompt", "first", "second", "winner", "answers", "consistent", "judge")
        triples.append(
            {
                "prompt": pair["prompt"],
                **{role: pair[side]["response"] for role, side in roles.items()},
                **{
                    f"{role}_{name}": pair[side][name]
                    for name in ("source", "temperature", "score")
                    for role, side in roles.items()
                    if name in pair[side]
                },
                "chosen_position": 1 if pair["winner"] == "first" else 2,
                "asked": len(pair["answers"]),
                "consistent": pair["consistent"],
                "judge": pair["judge"],
                **{name: value for name, value in pair.items() if name not in rest},
            }
        )
    return triples
