"""Annotations made elsewhere, their win rate, and the win rate with length held equal."""

import json

import numpy as np
import pytest

from coursekit.evaluation import (
    Annotation,
    annotated_win_rate,
    length_controlled,
    read_annotations,
    win_rate,
)
from coursekit.evaluation.annotations import from_win_rate
from coursekit.evaluation.judges import ProgramJudge
from coursekit.tasks.triage import TRIAGE

ROW = {"instruction": "Say hello.", "output_1": "Hello.", "output_2": "Hello there."}


def written(tmp_path, preferences, lines=False):
    rows = [{**ROW, "preference": value} for value in preferences]
    path = tmp_path / "annotations.json"
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("lines", [False, True])
def test_every_kind_of_preference(tmp_path, lines):
    preferences = [1, 2, 0, 1.5, 1.8, None, 2, float("nan")]
    annotations = read_annotations(written(tmp_path, preferences, lines))
    assert [item.points for item in annotations] == pytest.approx(
        [0, 1, 0.5, 0.5, 0.8, None, 1, None]
    )
    result = annotated_win_rate(annotations)
    assert (result.wins, result.ties, result.losses, result.missing) == (3, 2, 1, 2)
    assert result.estimate.value == pytest.approx((1 + 0.5 + 0.5 + 0.8 + 1) / 6)
    assert result.se == pytest.approx(np.std([0, 1, 0.5, 0.5, 0.8, 1], ddof=1) / 6**0.5)
    assert "2 missing" in str(result) and "on 6 prompts" in str(result)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"preference": 3}, r"row 2: preference is 3: wanted 1 \(first\), 2"),
        ({"preference": 0.4}, "row 2: preference is 0.4"),
        ({"preference": -1}, "row 2: preference is -1"),
        ({"preference": "2"}, "row 2: preference is '2', wanted a number"),
        ({"preference": True}, "row 2: preference is True, wanted a number"),
        ({"preference": float("inf")}, "row 2: preference is inf: wanted 1"),
        ({"preference": 10**400}, "row 2: preference is 1000"),
        ({"output_1": None}, "row 2: output_1 is None, wanted a text"),
        ({"output_2": ...}, "row 2 has no output_2: add it"),
    ],
)
def test_what_is_no_annotation_is_named(tmp_path, change, message):
    row = {**ROW, "preference": 1} | change
    row = {name: value for name, value in row.items() if value is not ...}
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{**ROW, "preference": 1}, row]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "no annotation"),
        ("", "no annotation"),
        ('{"a": 1', "row 1, is not JSON"),
        ("[1]", "row 1 is int"),
        ('{"output_1": ' + "[" * 10**5, "x.json: more than 50 levels"),
        ("[{" + '"preference": ' + "1" * 5000 + "}]", "5,000 digits"),
        ('{"preference": 1, "preference": 2}', "row 1 has an object with the key 'preference'"),
    ],
)
def test_what_is_no_file_of_annotations(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


def test_ends_of_lines_inside_texts_and_a_byte_order_mark(tmp_path):
    row = {**ROW, "output_1": "a\u2028b\x85c", "preference": 1}
    path = tmp_path / "annotations.jsonl"
    text = "\n".join([json.dumps(row, ensure_ascii=False)] * 2)
    path.write_text(text, encoding="utf-8-sig")
    assert [item.output_1 for item in read_annotations(path)] == [row["output_1"]] * 2
    path.write_text(text, encoding="utf-16")
    with pytest.raises(ValueError, match=r"annotations\.jsonl is not text in UTF-8"):
        read_annotations(path)
    with pytest.raises(ValueError, match="is a folder: name the file in it"):
        read_annotations(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*none: correct the path"):
        read_annotations(tmp_path / "none")


def test_without_a_verdict_there_is_no_win_rate(tmp_path):
    with pytest.raises(ValueError, match="no verdict at all"):
        annotated_win_rate(read_annotations(written(tmp_path, [None, None])))


def test_our_own_comparisons_come_out_the_same(triples):
    good, bad = [row["chosen"] for row in triples], [row["rejected"] for row in triples]
    ours = win_rate(triples, good[:12] + bad[12:], bad, ProgramJudge(TRIAGE))
    annotations = from_win_rate(triples, good[:12] + bad[12:], bad, ours)
    again = annotated_win_rate(annotations)
    assert again.estimate == ours.estimate and again.se == ours.se
    assert annotations[0].output_2 == good[0] and annotations[0].instruction == triples[0]["prompt"]


def simulated(n, quality, length, bias, seed=0):
    """Comparisons by P(second) = sigmoid(quality + bias tanh(d / s)); d has the mean `length`."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(length, 60, size=n).round().astype(int)
    logit = quality + bias * np.tanh(longer / longer.std())
    chance = 1 / (1 + np.exp(-np.clip(logit, -500, 500)))
    points = (rng.random(n) < chance).astype(float)
    return [
        Annotation("?", "x" * 500, "x" * max(1, 500 + d), p)
        for d, p in zip(longer, points, strict=True)
    ]


def test_where_length_alone_drives_the_preference_nothing_is_left():
    annotations = simulated(20_000, quality=0.0, length=80, bias=2.0)
    assert annotated_win_rate(annotations).estimate.value > 0.7
    assert length_controlled(annotations, draws=3).value == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("quality", [-0.8, 0.4, 1.2])
def test_where_both_do_quality_is_recovered(quality):
    annotations = simulated(20_000, quality=quality, length=80, bias=2.0)
    expected = 1 / (1 + np.exp(-quality))
    assert length_controlled(annotations, draws=3).value == pytest.approx(expected, abs=0.025)


def test_its_interval_covers():
    hits = 0
    for seed in range(200):
        found = length_controlled(simulated(200, 0.4, 40, 1.0, seed), draws=200)
        hits += found.low <= 1 / (1 + np.exp(-0.4)) <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_the_regression_agrees_with_a_library():
    linear_model = pytest.importorskip("sklearn.linear_model")
    annotations = simulated(500, 0.5, 30, 1.5)
    longer = np.array([len(item.output_2) - len(item.output_1) for item in annotations])
    model = linear_model.LogisticRegression(C=1e6, tol=1e-8).fit(
        np.tanh(longer / longer.std())[:, None], [item.points for item in annotations]
    )
    expected = 1 / (1 + np.exp(-model.intercept_[0]))
    assert length_controlled(annotations, draws=10).value == pytest.approx(expected, abs=1e-3)


def test_extremes():
    alike = [Annotation("?", "a", "b", points) for points in (1.0, 1.0, 0.5, 0.0)]
    assert length_controlled(alike, draws=20).value == pytest.approx(0.625, abs=1e-3)
    told_by_length = simulated(200, 0.0, 0, 1000.0)
    found = length_controlled(told_by_length, draws=50)
    assert 0 <= found.low <= found.high <= 1
    with pytest.raises(ValueError, match="at least two"):
        length_controlled([Annotation("?", "a", "b", None)] * 3)
