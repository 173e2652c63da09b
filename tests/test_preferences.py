"""Triples: made, split, saved, read back, refused."""

import copy
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import repeat
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from coursekit.common.files import save_jsonl
from coursekit.common.journal import Journal
from coursekit.evaluation.judges import FlawedJudge, ProgramJudge, Verdict, both_orders
from coursekit.preferences import (
    Design,
    Source,
    check_triples,
    judge_pairs,
    load_triples,
    make_triples,
    ranked_samples,
    reference_against_sample,
    sample_candidates,
    split_by_prompt,
    to_triples,
    to_trl,
    two_system_prompts,
    two_temperatures,
)
from coursekit.tasks import with_references
from coursekit.tasks.triage import TRIAGE

ALL_PAIRS = Design("by hand", (Source("any"),))


def candidates(row, *texts, temperatures=None):
    temperatures = temperatures or [1.0] * len(texts)
    found = [
        {"response": text, "temperature": temperature, "source": f"at {temperature}"}
        for text, temperature in zip(texts, temperatures, strict=True)
    ]
    return {**row, "candidates": found, "prompt_id": 0, "design": "by hand", "seed": 0}


def triples_of(*rows, design=ALL_PAIRS, judge=None, **options):
    return to_triples(judge_pairs(rows, judge or ProgramJudge(TRIAGE), design, **options))


def test_the_better_report_is_chosen_and_ties_make_nothing(triples):
    row = {key: triples[0][key] for key in ("prompt", "facts")}
    good, bad = triples[0]["chosen"], triples[0]["rejected"]
    for order in ((good, bad), (bad, good)):
        (triple,) = triples_of(candidates(row, *order))
        assert (triple["chosen"], triple["rejected"]) == (good, bad)
        assert triple["judge"] == "program" and triple["facts"] == row["facts"]
    assert triples_of(candidates(row, good, good)) == []
    (tie,) = judge_pairs([candidates(row, "x", "y")], ProgramJudge(TRIAGE), ALL_PAIRS)
    assert tie["winner"] == "tie" and tie["consistent"]
    assert to_triples([tie]) == []


def test_a_pair_is_taken_once_and_a_prompt_gives_few(triples):
    row = {key: triples[0][key] for key in ("prompt", "facts")}
    good, bad = triples[0]["chosen"], triples[0]["rejected"]
    assert len(triples_of(candidates(row, good, bad, good, bad))) == 1
    many = candidates(row, good, bad, "x", bad + "\nmore")
    assert len(triples_of(many, design=replace(ALL_PAIRS, pairs_per_prompt=2))) == 2


def test_where_a_triple_came_from(triples):
    row = {key: triples[0][key] for key in ("prompt", "facts")}
    good, bad = triples[0]["chosen"], triples[0]["rejected"]
    (triple,) = triples_of(candidates(row, bad, good, temperatures=[0.7, 1.0]))
    expected = {
        "chosen_temperature": 1.0,
        "rejected_temperature": 0.7,
        "chosen_source": "at 1.0",
        "rejected_source": "at 0.7",
        "chosen_score": 1.0,
        "chosen_position": 2,
        "asked": 2,
        "consistent": True,
        "prompt_id": 0,
        "design": "by hand",
        "seed": 0,
    }
    assert triple.items() >= expected.items()
    assert triple["rejected_score"] < 1


def test_asked_once_a_judge_who_goes_by_position_decides_everything(triples):
    first = FlawedJudge(ProgramJudge(TRIAGE), position_bias=9.0)
    row = candidates({key: triples[0][key] for key in ("prompt", "facts")}, "a", "b", "c")
    assert triples_of(row, judge=first) == []
    (pair, *others) = judge_pairs([row], first, ALL_PAIRS, twice=False)
    assert pair["winner"] == "first" and pair["answers"] == ["first"] and len(others) == 2


# The designs.


def test_best_against_worst(triples):
    row = {key: triples[0][key] for key in ("prompt", "facts")}
    good, bad = triples[0]["chosen"], triples[0]["rejected"]
    worse, none = bad.replace("time: ", "clock: "), "no report"
    design = ranked_samples(4)
    (triple,) = triples_of(candidates(row, bad, worse, good, none), design=design)
    assert (triple["chosen"], triple["rejected"]) == (good, none)
    assert triples_of(candidates(row, good, good), design=design) == []
    (pair,) = judge_pairs([candidates(row, "x", "y")], ProgramJudge(TRIAGE), design)
    assert pair["winner"] == "tie"


def test_across_sources_only(triples):
    row = {key: triples[0][key] for key in ("prompt", "facts")}
    good, bad = triples[0]["chosen"], triples[0]["rejected"]
    design = replace(ALL_PAIRS, pairs="across")
    same = candidates(row, good, bad)
    assert triples_of(same) and not triples_of(same, design=design)
    assert triples_of(candidates(row, good, bad, temperatures=[0.7, 1.0]), design=design)


DESIGNS = {
    "two temperatures": (two_temperatures(samples=1), {"cool": 1, "hot": 1}),
    "best against worst of 3": (ranked_samples(3), {"sample": 3}),
    "all pairs of 3": (ranked_samples(3, pairs="all"), {"sample": 3}),
    "two system prompts": (
        two_system_prompts("Be careful.", "Be quick.", samples=1),
        {"careful": 1, "careless": 1},
    ),
    "reference against sample": (reference_against_sample(), {"reference": 1, "sample": 1}),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_each_design_samples_and_pairs(name, model, tokenizer, profile, tmp_path):
    design, sources = DESIGNS[name]
    assert design.name == name
    rows = with_references(TRIAGE, TRIAGE.rows("preferences", 5, profile))
    quick = replace(profile, max_new_tokens=30)
    made, pairs = make_triples(
        model, tokenizer, rows, quick, ProgramJudge(TRIAGE), design, folder=tmp_path
    )
    sampled = sample_candidates(model, tokenizer, rows, quick, design)
    for row in sampled:
        assert Counter(one["source"] for one in row["candidates"]) == sources
        assert row["design"] == name
    assert pairs and all(pair["winner"] in ("first", "second", "tie") for pair in pairs)
    if design.pairs == "across":
        assert all(pair["first"]["source"] != pair["second"]["source"] for pair in pairs)
    if made:
        assert load_triples(tmp_path / "triples.jsonl") == made
        assert (tmp_path / "triples.jsonl.count").read_text(encoding="utf-8") == f"{len(made)}\n"
        assert len(load_triples(tmp_path / "triples")) == len(made)
    again = make_triples(
        model, tokenizer, rows, quick, ProgramJudge(TRIAGE), design, folder=tmp_path
    )
    assert again == (made, pairs)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2 + bool(made)  # nothing was put aside


def test_references_are_what_the_row_says(model, tokenizer, profile):
    rows = with_references(TRIAGE, TRIAGE.rows("preferences", 2, profile))
    quick = replace(profile, max_new_tokens=5)
    design = reference_against_sample()
    for row in sample_candidates(model, tokenizer, rows, quick, design):
        written, sampled = row["candidates"]
        assert written["response"] == row["reference"] and written["temperature"] is None
        assert sampled["response"] != row["reference"]
        assert ProgramJudge(TRIAGE).score(row, written["response"]) == 1
    with pytest.raises(ValueError, match="row 1 has no text in the column 'reference'"):
        plain = TRIAGE.rows("preferences", 2, profile)
        sample_candidates(model, tokenizer, plain, quick, design)


def test_a_system_prompt_is_seen_by_the_model_and_not_kept(model, tokenizer, profile, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "coursekit.lm.generation.generate",
        lambda model, tokenizer, prompts, **_: seen.extend(prompts) or ["x"] * len(prompts),
    )
    rows = TRIAGE.rows("preferences", 1, profile)
    design = two_system_prompts("Be careful.", "Be quick.", samples=1)
    (row,) = sample_candidates(model, tokenizer, rows, profile, design)
    assert row["prompt"] == rows[0]["prompt"]
    assert [turns[0] for turns in seen] == [
        {"role": "system", "content": "Be careful."},
        {"role": "system", "content": "Be quick."},
    ]
    seen.clear()
    refusing = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    refusing.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ raise_exception('no such role') }}{% endif %}{{ message['content'] }}{% endfor %}"
    )
    sample_candidates(model, refusing, rows, profile, design)
    assert seen[0] == [{"role": "user", "content": f"Be careful.\n\n{rows[0]['prompt']}"}]
    seen.clear()
    refusing.chat_template = None
    sample_candidates(model, refusing, rows, profile, design)
    assert seen[0] == f"Be careful.\n\n{rows[0]['prompt']}"


def test_a_judge_that_goes_by_position_decides_nothing(triples):
    class First:
        name = "first"

        def compare(self, row, first, second):
            return "first"

    assert both_orders(First(), triples[0], "a", "b") == Verdict("tie", consistent=False)
    assert both_orders(First(), triples[0], "a", "a") == Verdict("tie")


def test_sampling_keeps_provenance(model, tokenizer, profile):
    rows = TRIAGE.rows("preferences", 6, profile)
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


def test_trl_columns(triples):
    chat = to_trl(triples, chat=True)
    assert chat.column_names == ["prompt", "chosen", "rejected"]
    assert chat[0]["chosen"] == [{"role": "assistant", "content": triples[0]["chosen"]}]
    (plain,) = to_trl([{**triples[0], "rejected": "\n  no"}], chat=False)
    assert plain == {
        "prompt": triples[0]["prompt"] + "\n",  # closed, since no template closes it
        "chosen": triples[0]["chosen"],
        "rejected": "no",
    }


def test_check_passes_rows_through(triples):
    assert check_triples(triples) == triples


# Sampling that survives a kill.


def test_sampling_killed_anywhere_ends_as_if_nothing_had_happened(
    model, tokenizer, profile, tmp_path, monkeypatch
):
    """A kill leaves the file cut at any byte: resumed from there, it becomes the whole file."""
    from coursekit.preferences import sampling

    monkeypatch.setattr(sampling, "BLOCK", 4)
    quick = replace(profile, max_new_tokens=12)
    rows = TRIAGE.rows("preferences", 10, profile)

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


def test_how_much_is_saved_together_changes_no_response(model, tokenizer, profile, tmp_path):
    """A large model's batch is small: it is saved when one is full, and gives the same."""
    rows = TRIAGE.rows("preferences", 70, profile)
    saved, found = [], []
    for batch in (512, 50, 2):
        some = replace(profile, max_new_tokens=8, generation_batch=batch)
        path = tmp_path / f"{batch}.jsonl"
        found.append(sample_candidates(model, tokenizer, rows, some, seed=3, path=path))
        lines = path.read_text(encoding="utf-8").splitlines()
        saved.append(Counter(json.loads(line)["journal"][1] for line in lines))
    assert found[0] == found[1] == found[2]
    assert list(saved[0].values()) == [64, 6]  # a seed's prompts, at most
    assert list(saved[1].values()) == [12] * 5 + [4, 6]  # 48 responses fill 50 places
    assert set(saved[2].values()) == {1}


def test_killed_ten_times_while_triples_are_made(tmp_path):
    """SIGKILL at ten random places, resumed each time: the files of an undisturbed run."""
    code = """
import os, random, shutil, signal, sys, time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from coursekit.lm.loading import load_model, load_tokenizer
from coursekit.evaluation.judges import ProgramJudge
from coursekit.preferences import make_triples, sampling
from coursekit.tasks.triage import TRIAGE
from coursekit.common.profile import load_profile
sampling.BLOCK = 4
profile = replace(load_profile("tiny"), threads=1, max_new_tokens=24)
model, tokenizer = load_model(profile.base_model, profile), load_tokenizer(profile.base_model)
rows = TRIAGE.rows("preferences", 64, profile)

def start(folder):
    child = os.fork()
    if child == 0:
        make_triples(model, tokenizer, rows, profile, ProgramJudge(TRIAGE), seed=1, folder=folder)
        os._exit(0)
    return child

def size(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())

assert os.waitpid(start(sys.argv[1] + "/whole"), 0)[1] == 0
whole, rng, killed = size(sys.argv[1] + "/whole"), random.Random(0), 0
for _ in range(60):  # a kill when the files have grown by up to a tenth
    child, ended = start(folder := sys.argv[1] + "/killed"), (0, 0)
    until = size(folder) + rng.uniform(0, 0.1) * whole
    while size(folder) < until and not ended[0]:
        time.sleep(0.001)
        ended = os.waitpid(child, os.WNOHANG)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    killed += ended[1] == signal.SIGKILL
    if killed == 10:
        break
    if ended[1] == 0:  # it was quicker: once more from the start
        shutil.rmtree(folder)
assert os.waitpid(start(sys.argv[1] + "/killed"), 0)[1] == 0
print(killed)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "10"
    for name in ("candidates.jsonl", "pairs.jsonl", "triples.jsonl"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert whole and (tmp_path / "killed" / name).read_bytes() == whole
    files = [file.name for file in (tmp_path / "killed").iterdir()]
    assert sorted(name for name in files if not name.startswith(".")) == [
        "candidates.jsonl",
        "candidates.made_from.json",
        "pairs.jsonl",
        "pairs.made_from.json",
        "triples",
        "triples.jsonl",
        "triples.jsonl.count",
    ]


def test_candidates_of_another_run_are_kept_and_not_used(
    model, tokenizer, profile, tmp_path, capsys
):
    quick = replace(profile, max_new_tokens=5)
    rows = TRIAGE.rows("preferences", 3, profile)
    path = tmp_path / "candidates.jsonl"
    first = sample_candidates(model, tokenizer, rows, quick, seed=1, path=path)
    with torch.no_grad():
        model.lm_head.weight.mul_(3.0)  # another model
    second = sample_candidates(model, tokenizer, rows, quick, seed=1, path=path)
    assert first != second
    assert "kept as candidates-" in capsys.readouterr().out
    assert len(list(tmp_path.glob("candidates-*.jsonl"))) == 1
    assert (tmp_path / "candidates-old1.made_from.json").is_file()
    assert sample_candidates(model, tokenizer, rows, quick, seed=1, path=path) == second


def test_candidates_are_of_one_tokenizer_one_code_and_whole_rows(
    model, tokenizer, profile, tmp_path, monkeypatch
):
    from coursekit.lm import generation
    from coursekit.preferences import sampling

    asked = []

    def here(model, tokenizer, rows, profile, design, seed, starts, folder):
        for start in starts:
            asked.append(start)
            yield repeat("a report")

    monkeypatch.setattr(sampling, "_sampled_here", here)
    rows = TRIAGE.rows("preferences", 3, profile)
    sample = lambda rows, tokenizer: sample_candidates(  # noqa: E731
        model, tokenizer, rows, profile, path=tmp_path / "candidates.jsonl"
    )
    sample(rows, tokenizer), sample(rows, tokenizer)
    assert len(asked) == 1
    turned = [row | {"facts": rows[0]["facts"]} for row in rows]
    assert sample(turned, tokenizer)[2]["facts"] == rows[0]["facts"] and len(asked) == 2
    other = copy.deepcopy(tokenizer)
    other.chat_template = "Hello. " + other.chat_template
    sample(turned, other)
    assert len(asked) == 3
    changed = tmp_path / "generation.py"
    changed.write_text(
        (ROOT / "coursekit" / "lm" / "generation.py").read_text(encoding="utf-8") + "\nX = 1\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(generation, "__file__", str(changed))
    sample(turned, other)
    assert len(asked) == 4


def test_weights_of_the_same_sum_are_another_model(model, tokenizer, profile, tmp_path):
    from coursekit.lm.identity import loaded_identity

    before = loaded_identity(model)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.flip(0))
    assert loaded_identity(model) != before


def test_kept_pairs_are_of_one_judge(triples, tmp_path, capsys):
    """A judge whose preferences are turned round answers for itself, under the same name too."""

    class Turned:
        name = "rubric"
        identity = "turned round"

        def compare(self, row, first, second):
            return {"first": "second", "second": "first"}.get(
                winner := ProgramJudge(TRIAGE).compare(row, first, second), winner
            )

    rows = [candidates(triples[0], triples[0]["chosen"], triples[0]["rejected"])]
    path = tmp_path / "pairs.jsonl"
    ask = lambda judge, scorer=None: judge_pairs(  # noqa: E731
        rows, judge, ALL_PAIRS, path=path, scorer=scorer
    )[0]
    assert ask(ProgramJudge(TRIAGE))["winner"] == "first"
    assert ask(Turned())["winner"] == "second"
    assert "judge was" in capsys.readouterr().out
    assert "score" in ask(Turned(), ProgramJudge(TRIAGE))["first"]  # another scorer, other points
    assert len(list(tmp_path.glob("pairs-old*.jsonl"))) == 2
    nameless = SimpleNamespace(name="mine", compare=lambda row, first, second: "tie")
    with pytest.raises(ValueError, match="'mine' has no `identity`"):
        ask(nameless)
    assert judge_pairs(rows, nameless, ALL_PAIRS)[0]["winner"] == "tie"


@pytest.mark.parametrize("damage", [b'{"row": ', b"[1]", b'{"journal": 3}', b"\xff"])
def test_a_damaged_journal_is_kept_and_not_used(damage, tmp_path, capsys):
    path = tmp_path / "work.jsonl"
    with Journal(path, {"seed": 1}) as journal:
        journal.append([{"row": 1}])
    path.write_bytes(damage + b"\n" + path.read_bytes())
    with Journal(path, {"seed": 1}) as journal:
        assert journal.done == []
    assert "line 1 is damaged, or of another kind of file: kept as work-old1.jsonl" in (
        capsys.readouterr().out
    )
    assert damage in (tmp_path / "work-old1.jsonl").read_bytes() and not path.exists()
