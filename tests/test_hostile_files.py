"""Whatever stands in a file: it is read, or one sentence says what is wrong and where.

Hypothesis makes the files: rows of every layout with something else in some of their places, and
sound files with damage in some of their bytes. What a reader accepts must go through all that is
done with it afterwards.
"""

import contextlib
import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coursekit.evaluation import annotated_win_rate, length_controlled, read_annotations
from coursekit.evaluation.judges.person import Labelling
from coursekit.preferences import (
    audit,
    check_triples,
    data_card,
    load_triples,
    save_dataset,
    split_by_prompt,
    to_trl,
    write_triples,
)
from coursekit.preferences.triples import save_triples
from coursekit.training import load_metrics

quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


CHAT = [user("Say hi."), assistant("Hi."), user("Again.")]
SAID = "\n\nHuman: Say hi.\n\nAssistant: Hi.\n\nHuman: Again.\n\nAssistant: "
PROVENANCE = {
    "chosen_score": 0.5,
    "rejected_score": 0.25,
    "chosen_temperature": 0.7,
    "rejected_temperature": 1.0,
    "chosen_source": "cool",
    "rejected_source": "hot",
    "chosen_position": 1,
    "asked": 1,
    "prompt_id": 0,
    "judge": "rubric",
}
ROWS = [
    {"prompt": "Say hi.", "chosen": "Hi.", "rejected": "No."},
    {"prompt": "Say hi.", "chosen": "Hi.", "rejected": "No.", **PROVENANCE},
    {"prompt": CHAT, "chosen": [assistant("a")], "rejected": [assistant("b")]},
    {"prompt": "Again.", "chosen": [*CHAT, assistant("a")], "rejected": [*CHAT, assistant("b")]},
    {"chosen": SAID + "Hi.", "rejected": SAID + "No."},
    {"prompt": "Again.", "chosen": SAID + "Hi.", "rejected": SAID + "No."},
    {"instruction": "Say", "input": "hi", "chosen": "Hi.", "rejected": "No."},
    {"prompt": "Say hi.", "completion": "Hi.", "label": True},
    {"prompt": CHAT, "completion": [assistant("No.")], "label": False},
]
ANNOTATION = {"instruction": "Say hi.", "output_1": "Hi.", "output_2": "No.", "preference": 1.5}
METRICS = {"step": 1, "loss": 0.6, "kl/k1": 0.1}

texts = st.sampled_from(
    ["", " ", "a", "1", "nan", "Human:", "\n\nHuman: a\n\nAssistant: b", "a\u2028b\x85c\rd", "\0",
     '[{"role": "user"}]', "[{'role': 'user'}]", "é\U0001f600", "Say hi."]
)  # fmt: skip
numbers = st.sampled_from([0, 1, -1, 3, 2.5, 1e308, -0.0, 10**399, float("nan"), float("inf")])
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "", 1]), "content": texts}
)
junk = st.recursive(
    texts | numbers | st.none() | st.booleans() | turns,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(sorted({name for row in ROWS for name in row} | ANNOTATION.keys() | {""}))


@st.composite
def spoilt(draw, sound):
    """A row with some columns gone, and junk in some."""
    row = dict(draw(st.sampled_from(sound)))
    for name in draw(st.lists(st.sampled_from(sorted(row)), max_size=2)):
        row.pop(name, None)
    places = names | st.sampled_from(sorted(row)) if row else names
    return row | draw(st.dictionaries(places, junk | st.lists(turns, max_size=3), max_size=2))


def rows_of(*sound):
    """Mostly sound rows, so that the spoilt ones are reached."""
    return st.lists(st.sampled_from(sound) | spoilt(sound) | junk, min_size=1, max_size=4)


@st.composite
def damaged(draw, sound):
    """Bytes of a sound file, cut, overwritten or with something put between."""
    data = draw(st.sampled_from(sound))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        put = draw(st.sampled_from(SPLINTERS) | st.binary(max_size=3))
        data = data[:at] + put + data[at + draw(st.sampled_from([0, 0, 1, 2, 10, 10**6])) :]
    return data


SPLINTERS = [
    *(b"", b"\n", b"\r", b'"', b",", b"{", b"}", b"[", b"]", b"\\ud800", b"\0", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", "\u2028".encode(), "\x85".encode(), b"NaN", b"-Infinity", b"1e999"),
    *(b'"chosen": "a", ', b'"step": 1, ', b"[" * 5000, b'{"a":' * 60, b"9" * 400, b"9" * 5000),
]


def as_csv(rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    for row in rows:
        nested = {name: json.dumps(v) if isinstance(v, list) else v for name, v in row.items()}
        writer.writerow(nested)
    return file.getvalue()


def told(path, read):
    """What `read` returns; or None if it refuses `path` in a sentence of its own."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return read(path)
    except ValueError as error:
        # A ValueError of ours, not one of the library's kinds of it, and with the file's name.
        assert type(error) is ValueError and str(path) in str(error), repr(error)
        assert len(str(error)) < 1500
    return None


def used(triples, folder):
    """All that is done with triples."""
    check_triples(triples)
    report = audit(triples)
    report.table()
    audit(triples, validation=triples, evaluation=[row["prompt"] for row in triples])
    train, validation = split_by_prompt(triples, 0.5)
    data_card(train, validation, report, title="x")
    assert load_triples(save_triples(triples, folder / "used.jsonl"))
    to_trl(triples, chat=True)
    for layout in ("plain", "conversational", "thumbs"):
        for suffix in ("jsonl", "csv"):
            write_triples(triples, folder / f"used.{suffix}", layout)


def read_triples(path, skip_bad):
    triples = told(path, lambda path: load_triples(path, skip_bad=skip_bad))
    if triples is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            used(triples, path.parent)


def check_json(tmp_path, rows, suffix, skip_bad):
    path = tmp_path / f"rows.{suffix}"
    text = "\n".join(map(json.dumps, rows)) if suffix == "jsonl" else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    read_triples(path, skip_bad)


def check_csv(tmp_path, rows, skip_bad):
    path = tmp_path / "rows.csv"
    rows = [row for row in rows if isinstance(row, dict)]
    path.write_text(as_csv(rows or [{}]), encoding="utf-8", newline="")
    read_triples(path, skip_bad)


def check_damaged_rows(tmp_path, data, suffix):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(data)
    read_triples(path, False)


def check_annotations(tmp_path, data):
    path = tmp_path / "annotations.json"
    path.write_bytes(data)
    annotations = told(path, read_annotations)
    rated = sum(item.points is not None for item in annotations or ())
    if rated:
        assert 0 <= annotated_win_rate(annotations).estimate.value <= 1
    if rated > 1:
        assert 0 <= length_controlled(annotations, draws=5).value <= 1


def check_metrics(tmp_path, data):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(data)
    frame = told(path, load_metrics)
    assert frame is None or len(frame)


def check_labels(tmp_path, data):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(data)
    work = told(path, lambda path: Labelling(PAIRS, path))
    if work:
        done = work.done
        if work.current:
            work.label("left")
            done += 1
        assert Labelling(PAIRS, path).done == done


PAIRS = [({"prompt": "a"}, "one", "other"), ({"prompt": "b"}, "one", "other")]
LABELS = b"".join(
    json.dumps(line).encode() + b"\n"
    for line in (
        {"pair": "1", "label": None},
        {"pair": [1], "label": "tie"},
        {"pair": "1"},
        {"pair": "1", "label": "skip"},
    )
)


def encoded(rows, lines=True):
    return ("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)).encode()


SOUND_ROWS = [encoded([row, row], lines) for row in ROWS for lines in (True, False)]
SOUND_CSV = [as_csv([row, row]).encode() for row in ROWS]
SOUND_ANNOTATIONS = [encoded([ANNOTATION, ANNOTATION], lines) for lines in (True, False)]

anything = rows_of(*ROWS)
annotations = damaged(SOUND_ANNOTATIONS) | rows_of(ANNOTATION).map(encoded)
metrics = damaged([encoded([METRICS, METRICS]) + b"\n"]) | rows_of(METRICS).map(encoded)

test_rows_of_json = quick(
    given(rows=anything, suffix=st.sampled_from(["json", "jsonl"]), skip_bad=st.booleans())(
        check_json
    )
)
test_rows_of_csv = quick(given(rows=anything, skip_bad=st.booleans())(check_csv))
test_damaged_json = quick(
    given(data=damaged(SOUND_ROWS), suffix=st.sampled_from(["json", "jsonl"]))(check_damaged_rows)
)
test_damaged_csv = quick(given(data=damaged(SOUND_CSV), suffix=st.just("csv"))(check_damaged_rows))
test_annotations = quick(given(data=annotations)(check_annotations))
test_metrics = quick(given(data=metrics)(check_metrics))
test_labels = quick(given(data=damaged([LABELS]))(check_labels))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The same triples as a Parquet file and as a folder that `datasets` saved."""
    folder = tmp_path_factory.mktemp("stored")
    rows = [{**ROWS[0], "prompt": f"Say {number}."} for number in range(3)]
    to_trl(rows, chat=False).to_parquet(str(folder / "rows.parquet"))
    save_dataset(rows, folder / "saved")
    return folder


def check_stored(stored, part, data, seed):
    """One file of it damaged; it is mended again afterwards."""
    path = stored / part
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    file = files[seed % len(files)]
    sound = file.read_bytes()
    at = seed % (len(sound) + 1)
    file.write_bytes(sound[:at] + data + sound[at + (seed // 7) % 40 :])
    try:
        told(path, load_triples)
    finally:
        file.write_bytes(sound)


test_damaged_parquet_and_datasets = settings(quick, max_examples=25)(
    given(
        part=st.sampled_from(["rows.parquet", "saved"]),
        data=st.binary(max_size=4),
        seed=st.integers(0, 10**5),
    )(check_stored)
)
