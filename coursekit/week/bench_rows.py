"""How many rows does it take? `python -m coursekit bench --rows 60000` measures and prints a table.

Made-up preference data are read, split, audited, judged and saved, each step in a process of its
own: the seconds are the step's alone, the memory is the most that the process ever had, libraries
and rows included. `--short` makes rows of a line in place of rows of two or three kilobytes.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
VOCABULARY = 30_000
NEARLY_AGAIN, AGAIN = 0.02, 0.01  # shares of the prompts that are copies, one word changed or none
LONG, SHORT = (60, 220), (12, 8)  # words of a prompt and of a response, on average


def print_table(n: int, short: bool = False) -> None:
    """Make the rows, measure every step on them, and print a line each as it is done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_files(folder, n, *(SHORT if short else LONG))
        print(f"{n:,} rows of {size / n:,.0f} bytes, {size / 1e6:,.0f} MB as JSON Lines\n")
        print("| what | seconds | memory at its peak, MB |\n|---|---|---|")
        for what in STEPS:
            seconds, peak = measured(what, folder)
            print(f"| {what} | {seconds:.1f} | {peak:,.0f} |", flush=True)


def made_up_rows(n: int, prompt_words: int, response_words: int, seed: int = 0) -> Iterator[Row]:
    """`n` triples, one at a time; words are as unevenly frequent as those of a language (Zipf)."""
    rng = np.random.default_rng(seed)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = np.array(
        ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(VOCABULARY)]
    )
    shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))

    def drawn(mean: int) -> list[str]:
        length = max(3, int(rng.gamma(4, mean / 4)))
        return words[np.searchsorted(shares, rng.random(length) * shares[-1])].tolist()

    earlier: list[list[str]] = []
    for number in range(n):
        prompt, kind = drawn(prompt_words), rng.random()
        if earlier and kind < NEARLY_AGAIN + AGAIN:
            prompt = list(earlier[rng.integers(len(earlier))])
            if kind < NEARLY_AGAIN:
                prompt[rng.integers(len(prompt))] = "changed"
        elif len(earlier) < 1000:
            earlier.append(prompt)
        # One sign outside of Latin-1 makes a whole string of Python's two or four times as large.
        ends = np.where(rng.random(2) < 0.01, " 🙂", ".")
        texts = [" ".join(drawn(response_words)).capitalize() + str(end) for end in ends]
        yield {
            "prompt": " ".join(prompt) + "?",
            **dict(zip(("chosen", "rejected"), texts, strict=True)),
            **{f"{side}_score": float(rng.integers(1, 11)) for side in ("chosen", "rejected")},
            "prompt_id": number,
        }


def write_files(folder: Path, n: int, *words: int) -> int:
    """The same rows in each format, and their prompts as a task; bytes of the JSON Lines."""
    from pyarrow import RecordBatch, parquet

    from ..tasks.new import make_task

    task = make_task(folder / "task")
    rows = made_up_rows(n, *words)
    first = next(rows)
    schema = RecordBatch.from_pylist([first]).schema
    with (
        (folder / "rows.jsonl").open("w", encoding="utf-8") as lines,
        (folder / "rows.csv").open("w", encoding="utf-8", newline="") as table,
        (task / "prompts.jsonl").open("w", encoding="utf-8") as prompts,
        parquet.ParquetWriter(folder / "rows.parquet", schema) as columns,
    ):
        cells = csv.DictWriter(table, list(first))
        cells.writeheader()
        for batch in _batches(chain([first], rows)):
            columns.write_batch(RecordBatch.from_pylist(batch, schema))
            cells.writerows(batch)
            for row in batch:
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                prompts.write(json.dumps({"prompt": row["prompt"]}) + "\n")
    return (folder / "rows.jsonl").stat().st_size


def _batches(rows: Iterator[Row], size: int = 10_000) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


# The steps. Each takes the folder and returns what is then measured, so that what comes before is
# not: reading the rows, say, which others do first.


def _reading(name: str) -> Callable[[Path], Callable[[], Any]]:
    from ..preferences import load_triples

    return lambda folder: lambda: load_triples(folder / name)


def _drawing(folder: Path) -> Callable[[], Any]:
    from ..common.profile import load_profile
    from ..tasks.folder import read_task

    profile = load_profile("tiny")
    return lambda: read_task(folder / "task").rows("preferences", 10_000, profile)


def _splitting(folder: Path) -> Callable[[], Any]:
    from ..preferences import split_by_prompt

    triples = _rows(folder)
    return lambda: split_by_prompt(triples)


def _auditing(folder: Path) -> Callable[[], Any]:
    from ..preferences import audit, split_by_prompt

    train, validation = split_by_prompt(_rows(folder))
    return lambda: audit(train, validation=validation)


def _judging(folder: Path) -> Callable[[], Any]:
    """Two candidates a prompt, of which the longer is better, with the journal on the disk."""
    from ..preferences import judge_pairs, ranked_samples, to_triples

    rows = _rows(folder)
    for row in rows:
        texts = row.pop("chosen"), row.pop("rejected")
        row["candidates"] = [
            {"response": text, "source": "sample", "temperature": 0.9} for text in texts
        ]
    path = folder / "pairs.jsonl"
    return lambda: to_triples(judge_pairs(rows, Longer(), ranked_samples(2), path=path))


class Longer:
    """A judge to whom the longer of two responses is the better one."""

    name = identity = "longer"

    def compare(self, row: Row, first: str, second: str) -> str:
        return "first" if len(first) > len(second) else "second"


def _saving(folder: Path) -> Callable[[], Any]:
    from ..preferences import save_dataset, write_triples

    triples = _rows(folder)

    def save() -> None:
        write_triples(triples, folder / "out.jsonl")
        save_dataset(triples, folder / "out")

    return save


def _rows(folder: Path) -> list[Row]:
    from ..preferences import load_triples

    return load_triples(folder / "rows.jsonl")


STEPS: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "read JSON Lines": lambda folder: _reading("rows.jsonl")(folder),
    "read Parquet": lambda folder: _reading("rows.parquet")(folder),
    "read CSV": lambda folder: _reading("rows.csv")(folder),
    "save as JSON Lines and a `datasets` folder": _saving,
    "read the `datasets` folder": lambda folder: _reading("out")(folder),
    "draw 10,000 prompts of a task": _drawing,
    "split by prompt": _splitting,
    "audit, against validation": _auditing,
    "judge a pair a prompt, in both orders": _judging,
}


def measured(what: str, folder: Path) -> tuple[float, float]:
    """Seconds of a step, and the peak memory of its process in megabytes."""
    command = [sys.executable, "-m", __spec__.name, what, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def measure_here(what: str, folder: Path) -> tuple[float, float]:
    """As `measured`, in this process."""
    step = STEPS[what](folder)
    start = time.perf_counter()
    step()
    return time.perf_counter() - start, _peak()


def _peak() -> float:
    """The most memory that this process ever had, megabytes."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """One step on files that are there: how `print_table` starts it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=STEPS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    print(json.dumps(measure_here(options.what, options.folder)))


if __name__ == "__main__":
    main()
