"""Writes this task's prompts, demonstrations and references, the same whenever it is run.

`python make.py` in this folder. The metrics and the rubric say what a good note is; the writers of
the demonstrations do not know them well, see `RATES`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

ITEMS = "basket calendar device image map photo stock ticket video wallet".split()
CLAIMS = "refund voucher discount".split()
OPENING = "hi team"
PADDING = (
    ", and keep everyone informed",
    " and see whether things improve",
    " as soon as possible, as always",
)
CAREFUL, RASH = "we check it", "customer gets it"
# How often a writer errs: promises what nobody has decided, pads the note, names another item.
RATES = {"promise": 0.45, "padding": 0.4, "wrong item": 0.1}
# Tried on the tiny model: 480 demonstrations do not teach it to copy the facts, and with twice as
# many prompts to prefer on, DPO at the profile's settings goes too far (notes fall apart).
DEMONSTRATIONS, OTHERS = 960, 320

Facts = dict[str, str]


def draw_facts(rng: random.Random) -> Facts:
    """What a customer writes: the item ordered, the time of the message, what is claimed."""
    time = f"{rng.randint(8, 19):02d}:{rng.randint(0, 59):02d}"
    return {"order": rng.choice(ITEMS), "time": time, "claim": rng.choice(CLAIMS)}


def write_prompt(facts: Facts, rng: random.Random) -> str:
    """The facts in any order."""
    parts = [f"{name}: {value}" for name, value in facts.items()]
    rng.shuffle(parts)
    return " | ".join(parts)


def write_note(facts: Facts, promise: str = CAREFUL) -> str:
    """A note to the team without its full stop; without fault, unless told otherwise."""
    told = ", ".join(f"{name} {facts[name]}" for name in ("order", "time", "claim"))
    return f"{OPENING}, {told}: {promise}"


def write_imperfectly(facts: Facts, rng: random.Random) -> str:
    """A note with each vice at its rate."""
    if rng.random() < RATES["wrong item"]:
        facts = facts | {"order": rng.choice([item for item in ITEMS if item != facts["order"]])}
    promise = RASH if rng.random() < RATES["promise"] else CAREFUL
    padding = rng.choice(PADDING) if rng.random() < RATES["padding"] else ""
    return f"{write_note(facts, promise)}{padding}."


def write_files(folder: Path) -> None:
    """The three files; no two customers say the same."""
    rng = random.Random("claims")
    drawn: dict[tuple[str, ...], tuple[str, Facts]] = {}
    while len(drawn) < DEMONSTRATIONS + OTHERS:
        facts = draw_facts(rng)
        drawn.setdefault(tuple(facts.values()), (write_prompt(facts, rng), facts))
    shown, others = list(drawn.values())[:DEMONSTRATIONS], list(drawn.values())[DEMONSTRATIONS:]
    _write(
        folder / "demonstrations.jsonl",
        ({"prompt": prompt, "response": write_imperfectly(facts, rng)} for prompt, facts in shown),
    )
    _write(folder / "prompts.jsonl", ({"prompt": prompt} for prompt, _ in others))
    _write(
        folder / "references.jsonl",
        ({"prompt": prompt, "reference": f"{write_note(facts)}."} for prompt, facts in others),
    )


def _write(path: Path, rows: Iterable[Facts]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    write_files(Path(__file__).parent)
