"""`check`: what it finds in a task's folder, and what `new` writes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT

from coursekit.tasks import SPLITS, load_rubric, load_task, read_task, shipped_tasks
from coursekit.tasks.check import check_task, half_width, main_check
from coursekit.tasks.folder import split_of
from coursekit.tasks.new import main_new, make_task
from coursekit.tasks.problems import Problem, report

TOML = 'title = "Shop"\ndescription = "A question, and a short answer."\n'
SPLIT = "[splits]\npreferences = 40\nvalidation = 20\nevaluation = 40\n"
RUBRIC = "# Answers\n\nShort ones.\n\n## short\n\n1 if short.\n"
PROMPTS = [f"Question {number}: what is it?" for number in range(400)]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def asked(prompts):
    return jsonl({"prompt": prompt} for prompt in prompts)


@pytest.fixture
def write(tmp_path):
    def write(**files):
        files = {
            "task_toml": TOML + SPLIT,
            "rubric_md": RUBRIC,
            "prompts_jsonl": asked(PROMPTS),
        } | files
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / name.replace("_", ".")).write_bytes(data)
        return tmp_path

    return write


@pytest.fixture
def check(write, profile):
    return lambda **files: check_task(write(**files), profile)


def test_nothing_is_wrong_with_a_sound_task(check):
    assert check() == [] and report([]) == "nothing wrong"


def test_an_empty_folder_is_one_error(tmp_path, profile, capsys):
    (problem,) = check_task(tmp_path, profile)
    assert (problem.file, problem.line, problem.severe) == (tmp_path, None, True)
    assert problem.remedy.endswith(f"python -m coursekit new {tmp_path}")
    assert main_check([str(tmp_path)]) == 1
    assert capsys.readouterr().out.endswith("1 error, 0 warnings\n")


def test_a_setting_that_is_none_ends_the_command(write, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROFILE", "huge")
    assert main_check([str(write())]) == 1
    assert "set COURSE_PROFILE to one of" in capsys.readouterr().err


def test_shipped_folders_are_sound(profile):
    for name in shipped_tasks()[1:]:
        assert [problem for problem in check_task(name, profile) if problem.severe] == []


def test_all_that_reading_refuses_is_said_at_once(check):
    problems = check(
        task_toml=TOML + "colour = 1\n" + SPLIT,
        prompts_jsonl=asked(PROMPTS) + "{}\nnothing\n",
        rubric_md="# R\n\ncafé\n".encode("latin-1"),
        metrics_py="def f(:\n",
    )
    assert [(problem.file.name, problem.line, problem.severe) for problem in problems] == [
        ("rubric.md", 3, True),
        ("task.toml", 3, True),
        ("prompts.jsonl", 401, True),
        ("prompts.jsonl", 402, True),
        ("metrics.py", 1, True),
    ]
    assert all(problem.remedy for problem in problems)


@pytest.mark.parametrize(
    ("rubric", "line", "what"),
    [
        ("# R\n\nAll good.\n", 1, "has no clause"),
        ("# R\n\n## one\n\nx\n\n## one\n\nx\n", 7, "the clause 'one' is there twice"),
        ("# R\n\n## one\n\n## two\n\nx\n", 3, "the clause 'one' says nothing"),
        ("All good.\n", 1, "the rubric has no title"),
        ("", 1, "is empty"),
    ],
)
def test_a_rubric_that_judges_cannot_use(check, rubric, line, what):
    (problem,) = check(rubric_md=rubric)
    assert (problem.file.name, problem.line, problem.severe) == ("rubric.md", line, True)
    assert what in problem.what and problem.remedy


def test_few_prompts_and_what_they_cost(check):
    evaluation = [prompt for prompt in PROMPTS if _split(prompt) == "evaluation"]
    others = [prompt for prompt in PROMPTS if _split(prompt) != "evaluation"]
    (problem,) = check(prompts_jsonl=asked(others + evaluation[:9]))
    assert not problem.severe and problem.file.name == "prompts.jsonl"
    assert problem.what == ("evaluation: 9 prompts; a win rate would be known to within 33 points")
    assert problem.remedy.startswith("add about 218 prompts")  # (96 - 9) of 40 per cent
    (problem,) = check(prompts_jsonl=asked(others))
    assert problem.severe and problem.what.startswith("evaluation: no prompt (40 per cent")


def _split(prompt):
    return split_of(prompt, dict(zip(SPLITS, (0, 40, 20, 40), strict=True)))


def test_half_width():
    assert half_width(96) == pytest.approx(10, abs=0.01) and half_width(0) == 100
    assert half_width(9) == pytest.approx(98 / 3)


def test_doubles(check):
    again = [{"prompt": PROMPTS[6]}, {"prompt": f" {PROMPTS[7]}\n"}]
    first, second = check(prompts_jsonl=asked(PROMPTS) + jsonl(again))
    assert (first.line, second.line, first.severe) == (401, 402, False)
    assert first.what == f"the prompt of line 7 again ({PROMPTS[6]!r})"
    assert second.what.startswith("the prompt of line 8 again")


def test_demonstrations_that_are_prompts_too(check):
    rows = [{"prompt": PROMPTS[30], "response": "r"}, {"prompt": "Another", "response": "r"}]
    (problem,) = check(demonstrations_jsonl=jsonl(rows))
    assert (problem.file.name, problem.line, problem.severe) == ("prompts.jsonl", 31, False)
    assert "demonstrations.jsonl, line 1" in problem.what and "evaluates nothing" in problem.remedy


def test_prompts_that_are_used_for_nothing(check):
    found = [
        problem
        for problem in check(task_toml=TOML, prompts_jsonl=asked(PROMPTS))
        if "used for nothing" in problem.what
    ]
    (problem,) = found
    idle = sum(
        split_of(prompt, dict(zip(SPLITS, (40, 30, 10, 20), strict=True))) == "demonstrations"
        for prompt in PROMPTS
    )
    assert problem.what.startswith(f"{idle} of 400 prompts") and not problem.severe
    assert "demonstrations = 0 under [splits]" in problem.remedy


def test_references_for_unknown_prompts(check):
    rows = [
        {"prompt": PROMPTS[0], "reference": "r"},
        {"prompt": "Nobody asked", "reference": "r"},
    ]
    (problem,) = check(references_jsonl=jsonl(rows))
    assert (problem.file.name, problem.line, problem.severe) == ("references.jsonl", 2, False)
    assert "'Nobody asked'" in problem.what


def test_a_reference_of_an_idle_prompt_is_not_unknown(check):
    """Where demonstrations are given, the prompts that the hash keeps for them are idle."""
    problems = check(
        task_toml=TOML,
        demonstrations_jsonl=jsonl([{"prompt": "a", "response": "b"}]),
        references_jsonl=jsonl({"prompt": prompt, "reference": "r"} for prompt in PROMPTS),
    )
    assert any("used for nothing" in problem.what for problem in problems)
    assert not any("not there" in problem.what for problem in problems)


@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        ("return float('nan') if prompt == BAD else 1", 2, "f gave nan on"),
        ("return 1 / (prompt != BAD)", 3, "f raised ZeroDivisionError: division by zero on"),
        ("return 7 if prompt == BAD and response else 0", 2, "f gave 7, not within 0 to 1, on"),
    ],
)
def test_metrics_are_tried_on_every_prompt(check, body, line, what):
    code = f"BAD = {PROMPTS[40]!r}\ndef f(prompt, response):\n    {body}\n"
    (problem,) = check(metrics_py=code)
    assert (problem.file.name, problem.line, problem.severe) == ("metrics.py", line, True)
    assert problem.what.startswith(what) and "prompts.jsonl, line 41," in problem.what
    assert "mend it" in problem.remedy


@pytest.mark.parametrize("file", ["references", "demonstrations"])
def test_metrics_are_tried_on_the_responses_that_are_known(check, file):
    wanted = {"references": "reference", "demonstrations": "response"}[file]
    rows = [{"prompt": "Q?" if file == "demonstrations" else PROMPTS[3], wanted: "Known words"}]
    code = "def f(prompt, response):\n    return 1 if 'Known' not in response else None\n"
    (problem,) = check(metrics_py=code, **{f"{file}_jsonl": jsonl(rows)})
    assert problem.what.startswith("f gave None on") and "'Known words'" in problem.what


def test_each_metric_that_fails_is_named_once(check):
    code = "def f(prompt, response):\n    return None\n\ndef g(prompt, response):\n    return ''\n"
    assert [problem.line for problem in check(metrics_py=code)] == [1, 4]


def test_prompts_longer_than_the_context(check):
    long = "word " * 3000
    rows = [{"prompt": prompt} for prompt in PROMPTS] + [{"prompt": long}]
    (problem,) = check(prompts_jsonl=jsonl(rows))
    assert (problem.file.name, problem.line, problem.severe) == ("prompts.jsonl", 401, True)
    assert "with 96 for a response more than the context of 1024" in problem.what
    assert problem.remedy == "cut it to 928 tokens"


def test_the_instruction_counts(check):
    instruction = "word " * 3000
    problems = check(
        task_toml=f'instruction = "{instruction}"\n' + TOML + SPLIT,
        prompts_jsonl=asked(PROMPTS[:20]),
    )
    severe = [problem for problem in problems if problem.severe]
    assert len(severe) == 20 and "the instruction included" in severe[0].what


def test_demonstrations_longer_than_sft_takes(check, profile):
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "word " * 2000}]
    (problem,) = check(demonstrations_jsonl=jsonl(rows))
    assert (problem.file.name, problem.line, problem.severe) == ("demonstrations.jsonl", 2, True)
    assert f"and SFT takes {profile.sft.max_length}" in problem.what


@pytest.mark.parametrize("model", ["nobody/has-this-model", "/no/such/folder"])
def test_a_model_that_is_not_at_hand(write, profile, model):
    (problem,) = check_task(write(), replace(profile, base_model=model))
    assert not problem.severe and problem.what.startswith("lengths not checked")
    assert model in problem.what


def test_files_that_nothing_reads(check):
    (problem,) = check(demonstration_jsonl="", README_md="", make_py="")
    assert problem.file.name == "demonstration.jsonl" and not problem.severe
    assert problem.remedy == "name it demonstrations.jsonl?"


def test_report(tmp_path):
    alike = [Problem(tmp_path / "a", line, "x", "do y", severe=False) for line in range(1, 9)]
    severe = Problem(tmp_path / "b", None, "z", "do w")
    lines = report([*alike, severe]).split("\n")
    assert lines[0] == f"error    {tmp_path / 'b'}: z: do w"
    assert lines[1] == f"warning  {tmp_path / 'a'}, line 1: x: do y"
    assert lines[6:] == ["         and 3 more like the last", "1 error, 8 warnings"]


# A new one.


def test_new_writes_a_task_that_can_be_used(tmp_path, profile, capsys):
    folder = tmp_path / "my shop"
    assert main_new([str(folder)]) == 0
    assert str(folder) in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        "task.toml",
        "prompts.jsonl",
        "rubric.md",
        "metrics.py",
    }
    problems = check_task(folder, profile)
    assert problems and not any(problem.severe for problem in problems)
    assert main_check([str(folder)]) == 0
    task = load_task(folder)
    assert task.name == "my_shop" and not task.knows_truth
    assert len(load_rubric(task.rubric).clauses) == 3
    assert sum(len(task.entries(split)) for split in SPLITS) == 12
    row = task.rows("evaluation", 1, profile)[0]
    assert row["prompt"] == f"{task.instruction}\n{task.shown(row)}"
    metric = task.metrics[0]
    assert metric.name == "three sentences at most"
    for response, score in (("", 0), ("One. Two! Three?", 1), ("No end", 1), ("a. b. c. d.", 0)):
        assert metric.score(row, response) == score


def test_every_comment_of_the_skeleton_that_hides_a_setting_may_be_opened(tmp_path, profile):
    folder = make_task(tmp_path / "new")
    path = folder / "task.toml"
    text = path.read_text(encoding="utf-8")
    for line in ('name = "my_task"', 'asked = "message"'):
        text = text.replace(f"# {line}", line)
    for line in ("[metrics.questions]", "bounds = [0, 10]", 'better = "neither"'):
        text = text.replace(f"# {line}", line)
    path.write_text(text, encoding="utf-8")
    with (folder / "metrics.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n\ndef questions(prompt, response):\n    return min(10, response.count('?'))\n"
        )
    task = read_task(folder)
    assert (task.name, task.asked) == ("my_task", "message")
    assert (task.metrics[1].bounds, task.metrics[1].better) == ((0.0, 10.0), None)


def test_new_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is not empty, and nothing is overwritten: name a new"):
        make_task(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match=r"notes\.txt is a file, and"):
        make_task(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="'triage' is a shipped task"):
        make_task("triage")
    assert main_new([str(tmp_path)]) == 1 and "is not empty" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert make_task(tmp_path / "empty") == tmp_path / "empty"


def test_the_commands_run(tmp_path):
    for module, says in (("new", "python -m coursekit check"), ("check", "0 errors, 3 warnings")):
        done = subprocess.run(
            [sys.executable, "-m", f"coursekit.tasks.{module}", str(tmp_path / "shop")],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert (done.returncode, done.stderr) == (0, "") and says in done.stdout
