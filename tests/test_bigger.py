"""Many rows: read one at a time, compared in portions, with a line that says how far it has come;
and the same findings as the plain way to compute them.
"""

import hashlib
import json
import random
import re
import sys
import time
import tracemalloc
from collections import Counter, defaultdict
from itertools import count
from types import SimpleNamespace

import pytest

from coursekit.common import progress as progress_module
from coursekit.common.files import lines_of, read_text, rows_of
from coursekit.common.made_from import fingerprint, plain
from coursekit.preferences import (
    audit,
    load_triples,
    parse_rows,
    save_dataset,
    similar,
    split_by_prompt,
    to_trl,
    triples,
    write_triples,
)
from coursekit.preferences.auditing import _cut_short, _opening
from coursekit.preferences.similar import near_duplicates, normalised
from coursekit.week.bench_rows import STEPS, made_up_rows, measure_here, write_files


def rows_in_files(folder, n, *words):
    size = write_files(folder, n, *words)
    save_dataset(list(made_up_rows(n, *words)), folder / "saved")
    return size


NAMES = ["rows.jsonl", "rows.csv", "rows.parquet", "saved"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder with the same 20,000 rows of half a kilobyte in each format."""
    folder = tmp_path_factory.mktemp("many")
    rows_in_files(folder, 20_000, 20, 40)
    return folder


@pytest.fixture()
def slow(monkeypatch):
    """`slow(seconds)`: every look at the clock costs so many from now on; stderr is a terminal."""

    def slow(seconds):
        looks = count()
        clock = SimpleNamespace(monotonic=lambda: next(looks) * seconds)
        monkeypatch.setattr(progress_module, "time", clock)
        # Here and not in the fixture: a test has another stderr than its fixtures.
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    return slow


# Memory.


def peak_of(work):
    """The most memory that was taken while it worked, and what of that its result keeps, bytes."""
    tracemalloc.start()
    try:
        result = work()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, peak, held


@pytest.mark.parametrize("name", NAMES)
def test_reading_takes_no_more_memory_than_the_rows(many, name):
    load_triples(many / name)  # libraries and their caches
    rows, peak, held = peak_of(lambda: load_triples(many / name))
    assert len(rows) == 20_000
    assert held > 10e6  # the rows are there
    assert peak < held + 5e6, "more than the rows themselves was in memory"


def test_whoever_reads_a_file_at_once_needs_more(many):
    """The measure above can fail: this is what it is about."""
    path = many / "rows.jsonl"
    _, peak, held = peak_of(lambda: [json.loads(line) for line in read_text(path).splitlines()])
    assert peak > held + 10e6


def test_the_first_row_is_there_before_the_second_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b'{"a": 2}\n' * 100_000 + b"\xff\n")
    rows = rows_of(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(ValueError, match=r"not text in UTF-8 \(byte 900009\)"):
        list(rows)


def test_an_audit_takes_little_beside_the_rows(many):
    rows = load_triples(many / "rows.jsonl")
    found, peak, _ = peak_of(lambda: audit(rows))
    assert found["near-duplicate prompts"].rows
    assert peak < 28e6  # 34e6 with `np.unique` and eight bytes for each number


def test_to_columns_takes_no_second_copy_of_them(many):
    rows = load_triples(many / "rows.jsonl")
    to_trl(rows[:9], chat=True)
    made, peak, _ = peak_of(lambda: to_trl(rows, chat=True))
    assert made.data.nbytes > 9e6  # Arrow's own memory, of which the measure does not know
    assert peak < 26e6, "a batch of rows, and more than that"  # 51e6 where `datasets` hashes them


def test_rows_are_told_from_others_by_their_contents():
    rows = [{"prompt": f"Say {i}.", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(8)]
    known = to_trl(rows, chat=True)._fingerprint
    assert to_trl([dict(row) for row in rows], chat=True)._fingerprint == known
    changed = [*rows[:-1], {**rows[-1], "rejected": "No 7"}]
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    joined = [
        {**row, "chosen": row["chosen"] + "no", "rejected": row["rejected"][2:]} for row in rows
    ]
    for others in (changed, swapped, joined, rows[:-1], rows[::-1]):
        assert to_trl(others, chat=True)._fingerprint != known
    assert to_trl(rows, chat=False)._fingerprint != known


def test_to_columns_in_batches_is_as_all_at_once(monkeypatch):
    from datasets import Dataset

    monkeypatch.setattr(triples, "BATCH", 3)
    rows = [{"prompt": f"Say {i}.", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(8)]
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}]
    for given in (rows, [*rows, {**rows[0], "prompt": turns}]):
        for chat in (True, False):
            made = to_trl(given, chat)
            row_of = triples.trl_row if chat else lambda row, _: triples._plain_row(row)
            wanted = Dataset.from_list([row_of(row, chat) for row in given])
            assert made.features == wanted.features and list(made) == list(wanted)


# The same as ever.


def test_every_format_gives_the_same_rows(tmp_path):
    rows_in_files(tmp_path, 60, 8, 6)
    first = load_triples(tmp_path / "rows.jsonl")
    assert first == list(made_up_rows(60, 8, 6)) == load_triples(tmp_path / "rows.parquet")
    for name in ("rows.csv", "saved"):
        for one, other in zip(load_triples(tmp_path / name), first, strict=True):
            assert all(one[column] == other[column] for column in triples.COLUMNS)


def test_a_file_that_was_cut_says_so_whatever_its_last_line_says(tmp_path):
    rows = list(made_up_rows(5, 5, 5))
    for name in ("rows.jsonl", "rows.csv"):
        path = write_triples(rows, tmp_path / name)
        content = path.read_bytes()
        end = content.rindex(b"\n", 0, -1) + 1
        for cut in (content[:end], content[: end - 10]):  # after a line; in the midst of one
            path.write_bytes(cut)
            with pytest.raises(ValueError, match="has 4 rows, and 5 were saved: it was cut"):
                load_triples(path)
        path.write_bytes(content[:-20] + b"\xff" + content[-20:])
        with pytest.raises(ValueError, match="not text in UTF-8"):
            load_triples(path)
        path.write_bytes(content)
        assert len(load_triples(path)) == 5


def test_rows_may_come_from_anywhere_one_by_one():
    rows = list(made_up_rows(5, 5, 5))
    assert parse_rows(iter(rows)) == rows == parse_rows(rows)
    with pytest.raises(ValueError, match="no rows"):
        parse_rows(iter(()))
    with pytest.raises(ValueError, match="none of the 2 rows"):
        parse_rows(iter([1, 2]), skip_bad=True)


def test_a_mark_of_order_in_the_midst_is_told(tmp_path):
    """It is not to be seen: two files were put one after the other."""
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps(row) for row in made_up_rows(2, 5, 5)]
    path.write_text("\ufeff" + rows[0] + "\n\ufeff" + rows[1], encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2 is not JSON \(a byte order mark"):
        load_triples(path)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_of_a_table_end_as_in_any_system(tmp_path, ends):
    path = tmp_path / "rows.csv"
    lines = ["prompt,chosen,rejected", 'a,"b\nc",d', "e,f,g"]
    path.write_bytes(("\ufeff" + ends.join(lines)).encode())
    rows = load_triples(path)
    assert [row["prompt"] for row in rows] == ["a", "e"] and rows[0]["chosen"] == "b\nc"
    assert "".join(lines_of(path, newline="")) == read_text(path)


def few_words(rng, n):
    """Rows of so few words that everything comes again and again."""
    say = lambda: rng.choice(["yes", "no", "Well,", "…", ""])  # noqa: E731
    ends = ["", ".", " ", "\nend"]
    return [
        {
            "prompt": rng.choice(["a b c", "a b d", "A, b c!", "x"]),
            "chosen": say() + rng.choice(ends),
            "rejected": say() + rng.choice(ends),
        }
        for _ in range(n)
    ]


def plain_audit(rows):
    """Doubles, contradictions and cut responses as one would write them for a hundred rows."""
    first, doubled, ways = set(), [], defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        key = (row["prompt"], row["chosen"], row["rejected"])
        doubled += [index] * (key in first)
        first.add(key)
        chosen, rejected = row["chosen"].strip(), row["rejected"].strip()
        if chosen != rejected:
            ways[row["prompt"], frozenset((chosen, rejected))][chosen].append(index)
    both = [
        i for sides in ways.values() if len(sides) > 1 for found in sides.values() for i in found
    ]
    return tuple(doubled), tuple(sorted(both))


def test_faults_are_those_of_the_plain_way():
    seen = Counter()
    for seed in range(30):
        rows = few_words(random.Random(seed), 80)
        found = audit(rows)
        doubled, both = plain_audit(rows)
        assert found["doubled rows"].rows == doubled
        assert found["contradictions"].rows == both
        seen.update(doubled=bool(doubled), both=bool(both))
    assert min(seen.values()) > 5


def test_a_cut_is_told_by_how_the_others_end():
    whole = {"chosen": "It is the disk that is full.", "rejected": "Nobody knows it at all."}
    cut = {"chosen": "It is the disk that is", "rejected": "Nobody knows it at all."}
    assert _cut_short([whole] * 19 + [cut]) == [19]
    assert _cut_short([whole] + [cut] * 19) == []  # they end like that here
    form = {"chosen": "a: 1\nz: 2", "rejected": "a: 3\nz: 4"}
    assert _cut_short([form] * 19 + [{"chosen": "a: 1", "rejected": "a: 3\nz: 4"}]) == [19]


def test_an_opening_is_the_first_word_however_the_text_begins():
    texts = ["Yes, it is.", "«No»", "  ", "... ?", "ÉTÉ 1", "\n\nwell-known", "İz", "_x y", ""]
    assert [_opening(text) for text in texts] == [
        (normalised(text).split() or [""])[0] for text in texts
    ]


def test_telltale_openings_are_counted_right():
    rows = [
        {"prompt": f"Say {i}.", "chosen": f"Sure, {i}.", "rejected": f"{'Sure' * (i % 5 == 0)} no."}
        for i in range(100)
    ]
    said = audit(rows)["telltale openings"].found
    assert said == '"sure" opens 100 chosen and 20 rejected; "no" opens 0 chosen and 80 rejected'


def test_near_duplicates_in_small_portions_are_the_same(monkeypatch):
    texts = [" ".join(row["prompt"].split()) for row in made_up_rows(1500, 25, 3, seed=1)]
    whole = list(near_duplicates(texts)), list(near_duplicates(texts[:700], texts[700:]))
    assert whole[0] == sorted(whole[0]) and min(map(len, whole)) > 5
    original = similar._portions
    told = []
    monkeypatch.setattr(similar, "_portions", lambda sizes: original(sizes, most=40))
    assert list(near_duplicates(texts, advance=told.append)) == whole[0]
    assert sum(told) == 2 * len(texts)
    assert list(near_duplicates(texts[:700], texts[700:])) == whole[1]
    assert list(near_duplicates([])) == [] == list(near_duplicates(["a"], []))


def test_shingles_are_numbered_as_numpy_does_it():
    import numpy as np

    for n, most in ((0, 1), (1, 1), (500, 3), (500, 10**12)):
        values = np.random.default_rng(n).integers(0, most, n)
        wanted = np.unique(values, return_inverse=True)[1]
        assert similar._numbered(values).tolist() == wanted.tolist()


def test_portions_are_whole_and_small():
    import numpy as np

    sizes = np.array([3, 1, 1, 9, 0, 0, 2, 2, 7])
    found = list(similar._portions(sizes, most=4))
    assert [place for part in found for place in range(part.start, part.stop)] == list(range(9))
    assert all(sizes[part].sum() <= 4 + sizes[part].max() for part in found) and len(found) == 5
    assert list(similar._portions(sizes, most=100)) == [slice(0, 9)]


def test_a_fingerprint_is_that_of_the_whole_text():
    for parts in (
        (),
        ([],),
        ("a", None, 1.5, float("nan"), True),
        ([{"b": 1, "a": [1, (2, 3)]}, [], [[], {}]], ({"é": "\ud83d\ude42"},), {2: 1, 10: (3,)}),
        ([[1, 2], [3]], [["x"]]),
    ):
        text = json.dumps(plain(parts), sort_keys=True)
        assert fingerprint(*parts) == hashlib.sha256(text.encode()).hexdigest()[:16]


# How far it has come.


@pytest.mark.parametrize("name", NAMES)
def test_what_takes_long_says_how_far_it_is(tmp_path, slow, capsys, name):
    rows_in_files(tmp_path, 50, 5, 5)
    capsys.readouterr()
    slow(0.001)
    load_triples(tmp_path / name)
    assert capsys.readouterr().err == ""  # done before two seconds
    slow(1.0)
    load_triples(tmp_path / name)
    said = capsys.readouterr().err
    assert f"reading {name}: " in said and " s left" in said
    assert re.search(r": 5[01] (rows|lines) in \d", said)


def test_a_list_is_read_to_its_last_line(tmp_path, slow, capsys):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(list(made_up_rows(5, 5, 5)), indent=1) + "\n", encoding="utf-8")
    slow(1.0)
    load_triples(path)
    assert "reading rows.json: 42 lines in" in capsys.readouterr().err


def test_the_audit_and_writing_say_it_too(tmp_path, slow, capsys):
    train, validation = split_by_prompt(list(made_up_rows(60, 5, 5)))
    slow(1.0)
    audit(train, validation=validation, evaluation=["Why?"])
    said = capsys.readouterr().err
    steps = len(train) * (5 + 6 + 2 * 3)
    assert f" of {steps:,} steps, " in said and f"audit: {steps:,} steps in" in said
    write_triples(train, tmp_path / "out.jsonl")
    assert f"writing out.jsonl: {len(train)} rows in" in capsys.readouterr().err


# What measures it.


def test_every_step_of_the_bench_runs(tmp_path):
    size = write_files(tmp_path, 300, 12, 8)
    assert size == (tmp_path / "rows.jsonl").stat().st_size
    start = time.perf_counter()
    for what in STEPS:
        seconds, peak = measure_here(what, tmp_path)
        assert 0 < seconds < time.perf_counter() - start and peak > 50
    assert load_triples(tmp_path / "out") and (tmp_path / "pairs.jsonl").is_file()


def test_made_up_rows_are_a_data_set_to_audit():
    rows = list(made_up_rows(3000, 20, 10, seed=3))
    assert rows == list(made_up_rows(3000, 20, 10, seed=3))
    assert rows != list(made_up_rows(3000, 20, 10, seed=4))
    found = audit(rows)
    assert 10 < len(found["repeated prompts"].rows) < 60
    assert 20 < len(found["near-duplicate prompts"].rows) < 120


def test_a_journal_waits_for_the_disk_once_a_second(tmp_path, monkeypatch):
    from coursekit.common import journal as module

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock, synced = Clock(), []
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module.os, "fsync", synced.append)
    with module.Journal(tmp_path / "x.jsonl", {}) as journal:
        for number in range(50):
            journal.append([{"number": number}])
            # On the disk or not, whoever reads the file sees it: this process may be killed.
            assert len(module.read_journal(tmp_path / "x.jsonl")) == number + 1
        assert len(synced) == 1
        clock.now += 1
        journal.append([])
        assert len(synced) == 2
    assert len(synced) == 3  # whatever came last
