"""The shipped folder `claims`: its files follow from its script, and its metrics see each vice."""

import importlib.util
import json
import random
import tomllib
from pathlib import Path

import pytest

import coursekit

FOLDER = Path(coursekit.__file__).parent / "tasks" / "claims"
FILES = ("prompts.jsonl", "demonstrations.jsonl", "references.jsonl")
METRICS = ("facts", "caution", "brevity")


def module(name):
    """One of the folder's scripts: it is data, and no part of the package."""
    spec = importlib.util.spec_from_file_location(f"claims_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def rows(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def scores(prompt, response):
    metrics = module("metrics")
    return [getattr(metrics, name)(prompt, response) for name in METRICS]


@pytest.fixture()
def drawn():
    """A prompt and its facts."""
    make = module("make")
    rng = random.Random(3)
    facts = make.draw_facts(rng)
    return make, make.write_prompt(facts, rng), facts


def test_the_script_writes_the_shipped_files_byte_for_byte(tmp_path):
    module("make").write_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        # A checkout on Windows may have turned the ends of lines.
        shipped = (FOLDER / name).read_bytes().replace(b"\r\n", b"\n")
        assert (tmp_path / name).read_bytes() == shipped, f"run {FOLDER / 'make.py'} again"


def test_no_prompt_occurs_twice_and_none_is_trained_and_asked():
    prompts = [row["prompt"] for name in FILES[:2] for row in rows(name)]
    assert len(prompts) == len(set(prompts))
    same = {tuple(sorted(prompt.split(" | "))) for prompt in prompts}
    assert len(same) == len(prompts)  # nor the same facts in another order


def test_each_prompt_that_is_asked_has_a_reference():
    assert [row["prompt"] for row in rows(FILES[2])] == [row["prompt"] for row in rows(FILES[0])]


def test_every_reference_is_without_fault():
    for row in rows("references.jsonl"):
        assert scores(row["prompt"], row["reference"]) == [1, 1, 1], row


def test_a_promise_costs_caution_alone(drawn):
    make, prompt, facts = drawn
    assert scores(prompt, make.write_note(facts, promise=make.RASH) + ".") == [1, 0, 1]


def test_a_promise_beside_a_check_is_still_one(drawn):
    make, prompt, facts = drawn
    note = f"{make.write_note(facts)}, and the {make.RASH}."
    assert scores(prompt, note)[1] == 0


def test_every_padding_costs_brevity_alone(drawn):
    make, prompt, facts = drawn
    for padding in make.PADDING:
        told, caution, brevity = scores(prompt, f"{make.write_note(facts)}{padding}.")
        assert (told, caution) == (1, 1)
        assert 0 < brevity < 1


@pytest.mark.parametrize(
    ("fact", "wrong"), [("order", "wig"), ("time", "03:59"), ("claim", "praise")]
)
def test_a_wrong_fact_costs_a_third(drawn, fact, wrong):
    make, prompt, facts = drawn
    note = make.write_note(facts | {fact: wrong}) + "."
    assert scores(prompt, note) == [pytest.approx(2 / 3), 1, 1]


def test_a_fact_within_another_word_is_none(drawn):
    make, prompt, facts = drawn
    note = make.write_note(facts | {"order": f"{facts['order']}s", "time": f"{facts['time']}0"})
    assert scores(prompt, note)[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize("note", ["", " ", "\n"])
def test_an_empty_note_earns_nothing(drawn, note):
    assert scores(drawn[1], note) == [0, 0, 0]


def test_a_note_without_end_earns_no_brevity(drawn):
    make, prompt, facts = drawn
    assert scores(prompt, " ".join([make.write_note(facts)] * 4))[2] == 0


def test_any_greeting_and_style_will_do(drawn):
    make, prompt, facts = drawn
    without = make.write_note(facts).removeprefix(f"{make.OPENING}, ")
    assert scores(prompt, without) == scores(prompt, f"dear all, {without}!") == [1, 1, 1]
    note = f"Checking the {facts['claim']} of {facts['time']} ({facts['order'].upper()})"
    assert scores(prompt, note) == [1, 1, 1]


def test_the_writers_err_at_their_rates():
    """Within four standard errors; what is shown is as imperfect as the script says."""
    rates = module("make").RATES
    found = [scores(row["prompt"], row["response"]) for row in rows("demonstrations.jsonl")]
    for column, vice in enumerate(("wrong item", "promise", "padding")):
        share = sum(row[column] < 1 for row in found) / len(found)
        error = (rates[vice] * (1 - rates[vice]) / len(found)) ** 0.5
        assert abs(share - rates[vice]) < 4 * error, vice


def test_its_settings_name_its_metrics_and_its_size_is_small():
    settings = tomllib.loads((FOLDER / "task.toml").read_text(encoding="utf-8"))
    assert settings["truth"] == list(METRICS)
    assert sum(settings["splits"].values()) == 100
    assert sum(path.stat().st_size for path in FOLDER.glob("*.*")) < 250_000


def test_the_rubric_has_a_clause_for_each_metric():
    headings = [
        line.removeprefix("## ")
        for line in (FOLDER / "rubric.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("## ")
    ]
    assert headings == list(METRICS)
