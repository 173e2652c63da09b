"""Triples: made, split, saved, read back, refused."""

import contextlib
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import ROOT

from coursekit.judging import RubricJudge, Verdict, both_orders
from coursekit.preferences import (
    alert_rows,
    check_triples,
    judge_candidates,
    load_triples,
    sample_candidates,
    save_jsonl,
    split_by_prompt,
    to_trl,
)


def candidates(row, *texts):
    return {**row, "candidates": [{"response": text, "temperature": 1.0} for text in texts]}


def test_the_better_report_is_chosen_and_ties_make_nothing(triples):
    row = {key: triples[0][key] for key in ("prompt", "alert")}
    good, bad = triples[0]["chosen"], triples[0]["rejected"]
    for order in ((good, bad), (bad, good)):
        (triple,) = judge_candidates([candidates(row, *order)], RubricJudge())
        assert (triple["chosen"], triple["rejected"]) == (good, bad)
        assert triple["judge"] == "rubric" and triple["alert"] == row["alert"]
    assert judge_candidates([candidates(row, good, good)], RubricJudge()) == []
    assert judge_candidates([candidates(row, "x", "y")], RubricJudge()) == []


def test_a_pair_is_taken_once_and_a_prompt_gives_few(triples):
    row = {key: triples[0][key] for key in ("prompt", "alert")}
    good, bad = triples[0]["chosen"], triples[0]["rejected"]
    assert len(judge_candidates([candidates(row, good, bad, good, bad)], RubricJudge())) == 1
    many = candidates(row, good, bad, "x", bad + "\nmore")
    assert len(judge_candidates([many], RubricJudge(), pairs_per_prompt=2)) == 2


def test_a_judge_that_goes_by_position_decides_nothing(triples):
    class First:
        name = "first"

        def compare(self, row, first, second):
            return "first"

    assert both_orders(First(), triples[0], "a", "b") == Verdict("tie", consistent=False)
    assert both_orders(First(), triples[0], "a", "a") == Verdict("tie")


def test_sampling_keeps_provenance(model, tokenizer, profile):
    rows = alert_rows("preferences", 6, profile)
    sampled = sample_candidates(model, tokenizer, rows, profile, seed=3)
    assert [row["prompt"] for row in sampled] == [row["prompt"] for row in rows]
    for row in sampled:
        assert Counter(c["temperature"] for c in row["candidates"]) == {0.7: 2, 1.0: 2}
    assert sampled == sample_candidates(model, tokenizer, rows, profile, seed=3)
    assert sampled != sample_candidates(model, tokenizer, rows, profile, seed=4)


def test_split_shares_no_prompt(triples):
    train, validation = split_by_prompt(triples * 3, 0.25)
    assert len(train) == 36 and len(validation) == 12
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in validation}


def test_saved_and_read_back(triples, tmp_path):
    path = save_jsonl(triples, tmp_path / "deep" / "triples.jsonl")
    assert load_triples(path) == triples
    assert [file.name for file in path.parent.iterdir()] == ["triples.jsonl"]


def test_instruction_rows_are_read(tmp_path):
    path = tmp_path / "rows.json"
    row = {"instruction": "Do.", "input": "This", "output": "-", "chosen": "a", "rejected": "b"}
    path.write_text(json.dumps([row, {**row, "input": ""}]))
    assert [row["prompt"] for row in load_triples(path)] == ["Do.\n\nThis", "Do."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: it should hold one triple a line"),
        ("[]", "no rows"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": ', "line 2 is not JSON"),
        ('{"prompt": "a", "chosen": "b"}', "row 1 has no column 'rejected'"),
        ('{"prompt": "a", "chosen": "b", "rejected": 3}', "row 1, column 'rejected' is 3"),
        ('{"prompt": "a", "chosen": " ", "rejected": "c"}', "column 'chosen' is ' '"),
        ("[1]", "row 1 is int, not an object"),
    ],
)
def test_bad_files_are_told(tmp_path, content, message):
    path = tmp_path / "file.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_triples(path)
    with pytest.raises(FileNotFoundError, match="make triples first"):
        load_triples(tmp_path / "none.jsonl")


def test_trl_columns(triples):
    chat = to_trl(triples, chat=True)
    assert chat.column_names == ["prompt", "chosen", "rejected"]
    assert chat[0]["chosen"] == [{"role": "assistant", "content": triples[0]["chosen"]}]
    assert to_trl(triples, chat=False)[0]["prompt"] == triples[0]["prompt"]


def test_check_passes_rows_through(triples):
    assert check_triples(triples) == triples


# Sampling that survives a kill.


def test_sampling_killed_anywhere_ends_as_if_nothing_had_happened(
    model, tokenizer, profile, tmp_path, monkeypatch
):
    """A kill leaves the file cut at any byte: resumed from there, it becomes the whole file."""
    from coursekit.preferences import sampling

    monkeypatch.setattr(sampling, "CHUNK", 4)
    quick = replace(profile, max_new_tokens=12)
    rows = alert_rows("preferences", 10, profile)

    def sample(path):
        return sample_candidates(model, tokenizer, rows, quick, seed=3, path=path)

    whole = tmp_path / "whole.jsonl"
    expected = sample(whole)
    data = whole.read_bytes()
    assert len(data.splitlines()) == 10
    cuts = [0, 1, len(data) - 1, len(data), *random.Random(0).sample(range(len(data)), 10)]
    for cut in cuts:
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(data[:cut])
        assert sample(path) == expected
        assert path.read_bytes() == data
    assert sample_candidates(model, tokenizer, rows, quick, seed=3) == expected  # without a file


def test_a_process_killed_while_sampling(tmp_path):
    """SIGKILL at random moments, resumed until it ends: the file of an undisturbed run."""
    code = """
import sys
from dataclasses import replace
from coursekit.models import load_model, load_tokenizer
from coursekit.preferences import alert_rows, sample_candidates, sampling
from coursekit.profile import load_profile
sampling.CHUNK = 8
profile = replace(load_profile("tiny"), threads=1, max_new_tokens=24)
model, tokenizer = load_model(profile.base_model, profile), load_tokenizer(profile.base_model)
print("ready", flush=True)
rows = alert_rows("preferences", 64, profile)
sample_candidates(model, tokenizer, rows, profile, seed=1, path=sys.argv[1])
"""

    def start(name):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        return process

    assert start("whole").wait() == 0
    rng, sizes = random.Random(1), []
    for _ in range(4):
        process = start("killed")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.1, 0.9))
        process.kill()
        process.wait()
        path = tmp_path / "killed"
        sizes.append(path.stat().st_size if path.exists() else 0)
    assert sizes[0] < (tmp_path / "whole").stat().st_size  # it was in the midst of it
    assert start("killed").wait() == 0
    assert (tmp_path / "killed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_candidates_of_another_run_are_kept_and_not_used(
    model, tokenizer, profile, tmp_path, capsys
):
    quick = replace(profile, max_new_tokens=5)
    rows = alert_rows("preferences", 3, profile)
    path = tmp_path / "candidates.jsonl"
    first = sample_candidates(model, tokenizer, rows, quick, seed=1, path=path)
    with torch.no_grad():
        model.lm_head.weight.mul_(3.0)  # another model
    second = sample_candidates(model, tokenizer, rows, quick, seed=1, path=path)
    assert first != second
    assert "kept as candidates-" in capsys.readouterr().out
    assert len(list(tmp_path.glob("candidates-*.jsonl"))) == 1
    assert sample_candidates(model, tokenizer, rows, quick, seed=1, path=path) == second
