"""A folder as task: what its files say, and one clear error for what they should not."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ROOT

from coursekit.tasks import SPLITS, load_task, read_task, shipped_tasks
from coursekit.tasks.contents import prompt_key
from coursekit.tasks.folder import split_of
from coursekit.tasks.settings import SHARES, line_of, read_settings

TOML = 'title = "Shop"\ndescription = "A question, and a short answer."\n'
RUBRIC = "# Answers\n\nShort ones.\n\n## short\n\n1 if short.\n"
ALL_TO_EVALUATION = "\n[splits]\nevaluation = 100\n"
PROMPTS = [f"Question {number}: what is it?" for number in range(60)]


def jsonl(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def asked(prompts):
    return jsonl(*({"prompt": prompt} for prompt in prompts))


@pytest.fixture
def make(tmp_path):
    """Writes a folder: file names with dots as keyword `task_toml`; None leaves a file out."""

    def write(**files):
        folder = tmp_path / "shop"
        folder.mkdir(exist_ok=True)
        files = {
            "task_toml": TOML,
            "rubric_md": RUBRIC,
            "prompts_jsonl": asked(PROMPTS),
        } | files
        for name, content in files.items():
            path = folder / name.replace("_", ".")
            if content is None:
                path.unlink(missing_ok=True)
            else:
                data = content if isinstance(content, bytes) else content.encode()
                path.write_bytes(data)
        return folder

    return write


def refused(folder):
    with pytest.raises(ValueError) as error:
        read_task(folder)
    return str(error.value)


def test_defaults(make, profile):
    task = read_task(make())
    assert (task.name, task.title, task.asked) == ("shop", "Shop", "prompt")
    assert task.description == "A question, and a short answer."
    assert [metric.name for metric in task.metrics] == ["length"]
    assert (task.metrics[0].bounds, task.metrics[0].better) == (None, None)
    assert not task.knows_truth
    assert task.rows("demonstrations", 9, profile) == []
    row = task.rows("evaluation", 1, profile)[0]
    assert row.keys() == {"prompt"} and task.reference(row) is None
    assert task.score(row, "four") == {"length": 4.0}
    assert task.probes(3) == [] and task.rubric.read_text(encoding="utf-8") == RUBRIC


def test_all_that_task_toml_says(make):
    toml = (
        'name = "desk-1"\ntitle = "Desk"\ndescription = "D."\nlimits = ["One.", "Two."]\n'
        'asked = "letter"\ntruth = ["names_the_day"]\n'
        '[metrics.names_the_day]\nbounds = [0, 2]\nbetter = "lower"\n'
        '[metrics."words"]\nbounds = "any"\nbetter = "neither"\n'
    )
    metrics = (
        "import os\nfrom math import sqrt\n"
        "def names_the_day(prompt, response): return _count(response)\n"
        "def _count(text): return text.count('day')\n"
        "def words(prompt, response): return len(response.split())\n"
        "class Helper: pass\n"
    )
    task = read_task(make(task_toml=toml, metrics_py=metrics))
    assert (task.name, task.limits, task.asked) == ("desk-1", ("One.", "Two."), "letter")
    day, words, length = task.metrics
    assert (day.name, day.kind, day.bounds, day.better) == (
        "names the day",
        "truth",
        (0.0, 2.0),
        "lower",
    )
    assert (words.name, words.kind, words.bounds, words.better) == (
        "words",
        "heuristic",
        None,
        None,
    )
    assert length.name == "length"
    assert task.truth({"prompt": "p"}, "a day") == 0.5
    assert task.score({"prompt": "p"}, "a day") == {
        "names the day": 1.0,
        "words": 2.0,
        "length": 5.0,
        "overall": 0.5,
    }


def test_length_may_be_defined_by_the_file(make):
    task = read_task(make(metrics_py="def length(prompt, response):\n    return 0.5\n"))
    assert [metric.name for metric in task.metrics] == ["length"]
    assert task.score({"prompt": "p"}, "abc") == {"length": 0.5}


def test_prompts_as_csv_and_as_text(make, profile):
    folder = make(
        prompts_jsonl=None,
        task_toml=TOML + ALL_TO_EVALUATION,
        prompts_csv='\ufeffday,prompt\r\nMonday,"Two\r\nlines, a ""comma"""\r\n\r\nFriday,Next\r\n',
    )
    rows = read_task(folder).rows("evaluation", 9, profile)
    assert sorted(rows, key=lambda row: row["prompt"]) == [
        {"prompt": "Next", "facts": {"day": "Friday"}},
        {"prompt": 'Two\nlines, a "comma"', "facts": {"day": "Monday"}},
    ]
    assert [entry.line for entry in read_task(folder).entries("evaluation")] == [2, 5]
    folder = make(prompts_jsonl=None, prompts_csv=None, prompts_txt="One?\r\n\n Two?\u2028 \r\n")
    prompts = {entry.prompt for split in SPLITS for entry in read_task(folder).entries(split)}
    assert prompts <= {"One?", "Two?"}


def test_adding_lines_moves_no_prompt(make):
    def where(folder):
        task = read_task(folder)
        return {entry.key: split for split in SPLITS for entry in task.entries(split)}

    few = where(make(prompts_jsonl=asked(PROMPTS[10:30])))
    many = where(make(prompts_jsonl=asked(PROMPTS)))
    assert few and few.items() <= many.items()
    # written down: a stable split is one that another version of the course makes too
    assert [split_of(prompt, SHARES) for prompt in PROMPTS[:6]] == [
        "evaluation",
        "preferences",
        "validation",
        "demonstrations",
        "evaluation",
        "preferences",
    ]


def test_shares_are_met(make):
    found = Counter(split_of(f"prompt {number}", SHARES) for number in range(20_000))
    for split, share in SHARES.items():
        assert found[split] / 200 == pytest.approx(share, abs=1)
    nothing = SHARES | {"demonstrations": 0, "evaluation": 60}
    assert all(split_of(f"{number}", nothing) != "demonstrations" for number in range(500))


def test_white_space_around_makes_no_other_prompt():
    turn = {"role": "user", "content": "a b"}
    assert prompt_key(" a b\n") == prompt_key("a b") == prompt_key([turn])
    assert prompt_key("a  b") != prompt_key("a b")


def test_no_prompt_is_in_two_splits(make, profile):
    task = read_task(make(demonstrations_jsonl=jsonl({"prompt": PROMPTS[0], "response": "r"})))
    seen = [
        row["prompt"]
        for split in SPLITS
        for seed in ((0,) if split != "evaluation" else (1,))
        for row in task.rows(split, 99, profile, seed)
    ]
    assert len(seen) == len(set(seen))


def test_more_rows_extend_fewer_and_the_seed_draws_the_order(make, profile):
    task = read_task(make())
    rows = task.rows("preferences", 99, profile, seed=3)
    assert 5 < len(rows) < 60
    assert task.rows("preferences", 4, profile, seed=3) == rows[:4]
    other = task.rows("preferences", 99, profile, seed=4)
    assert other != rows and sorted(map(str, other)) == sorted(map(str, rows))
    backwards = read_task(make(prompts_jsonl=asked(PROMPTS[::-1])))
    assert backwards.rows("preferences", 99, profile, seed=3) == rows
    assert task.rows("preferences", 0, profile) == []


def test_unknown_and_empty_splits(make, profile):
    task = read_task(make(task_toml=TOML + ALL_TO_EVALUATION))
    with pytest.raises(ValueError, match=r"unknown split 'test': name one of demonstrations"):
        task.rows("test", 3, profile)
    with pytest.raises(ValueError, match=r"'validation' \(0 per cent.*add prompts, or raise"):
        task.rows("validation", 3, profile)
    assert task.rows("demonstrations", 3, profile) == []


def test_demonstrations_are_taken_out_of_the_other_splits(make, profile):
    given = jsonl(*({"prompt": prompt, "response": f"to {prompt}"} for prompt in PROMPTS[:9]))
    task = read_task(make(task_toml=TOML + ALL_TO_EVALUATION, demonstrations_jsonl=given))
    rows = task.rows("demonstrations", 99, profile)
    assert {row["prompt"] for row in rows} == set(PROMPTS[:9])
    assert all(row["response"] == f"to {row['prompt']}" for row in rows)
    assert {row["prompt"] for row in task.rows("evaluation", 99, profile)} == set(PROMPTS[9:])


def test_references_serve_as_demonstrations(make, profile):
    given = jsonl(*({"prompt": prompt, "reference": f"to {prompt}"} for prompt in PROMPTS[:30]))
    task = read_task(make(references_jsonl=given))
    rows = task.rows("demonstrations", 99, profile)
    assert 0 < len(rows) < 30
    assert all(row["response"] == task.reference(row) == f"to {row['prompt']}" for row in rows)
    evaluated = {row["prompt"]: task.reference(row) for row in task.rows("evaluation", 99, profile)}
    assert not evaluated.keys() & {row["prompt"] for row in rows}
    assert set(evaluated.values()) > {None}


TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "A lamp"},
]


def test_the_instruction_stands_before_every_prompt_and_metrics_do_not_see_it(make, profile):
    toml = 'instruction = "Answer in one sentence."\n' + TOML + ALL_TO_EVALUATION
    metrics = "def seen(prompt, response):\n    return float(prompt == response)\n"
    prompts = jsonl({"prompt": "A chair", "colour": "red"}, {"prompt": TURNS})
    references = jsonl({"prompt": TURNS, "reference": "Here."})
    demonstrations = jsonl({"prompt": "A desk", "response": "Here."})
    task = read_task(
        make(
            task_toml=toml,
            metrics_py=metrics,
            prompts_jsonl=prompts,
            references_jsonl=references,
            demonstrations_jsonl=demonstrations,
        )
    )
    shown = task.rows("demonstrations", 1, profile)[0]
    assert shown == {"prompt": "Answer in one sentence.\nA desk", "response": "Here."}
    text, turns = sorted(
        task.rows("evaluation", 9, profile), key=lambda row: isinstance(row["prompt"], list)
    )
    assert text == {"prompt": "Answer in one sentence.\nA chair", "facts": {"colour": "red"}}
    last = {"role": "user", "content": "Answer in one sentence.\nA lamp"}
    assert turns == {"prompt": [*TURNS[:3], last]}
    assert task.shown(text) == "A chair"
    assert task.shown(turns) == "Be kind.\n\nHello\n\nYes?\n\nA lamp"
    assert (task.reference(text), task.reference(turns)) == (None, "Here.")
    for row in (text, turns):
        assert task.score(row, task.shown(row))["seen"] == 1
    assert TURNS[3]["content"] == "A lamp"


def test_probes(make):
    rows = [{"prompt": f"{number} + 1 =", "response": str(number + 1)} for number in range(5)]
    text = [{"prompt": "", "response": f"A text {number}.", "kind": "text"} for number in range(3)]
    task = read_task(make(probes_jsonl=jsonl(*rows, *text)))
    assert Counter(probe.kind for probe in task.probes(9)) == {"question": 5, "text": 3}
    assert Counter(probe.kind for probe in task.probes(2)) == {"question": 2, "text": 2}
    assert task.probes(2, seed=1) == task.probes(2, seed=1)
    assert {probe.response for probe in task.probes(9) if probe.kind == "text"} == {
        row["response"] for row in text
    }


def test_identity_is_of_the_contents(make):
    before = read_task(make()).identity
    assert read_task(make(prompts_jsonl=asked(PROMPTS).replace("\n", "\r\n"))).identity == before
    (make() / "notes.md").write_text("mine", encoding="utf-8")
    assert read_task(make()).identity == before
    for change in (
        {"rubric_md": RUBRIC + "\nMore.\n"},
        {"task_toml": TOML + "# more\n"},
        {"prompts_jsonl": asked(PROMPTS[1:])},
        {"metrics_py": "def x(prompt, response): return 1\n"},
        {"probes_jsonl": ""},
    ):
        assert read_task(make(**change)).identity != before, change
        make(**dict.fromkeys(change, None))


def test_another_process_reads_the_same(make, profile):
    task = read_task(make(metrics_py="def x(prompt, response):\n    return 1\n"))
    again = pickle.loads(pickle.dumps(task))
    assert again.identity == task.identity
    code = (
        "import sys\n"
        "from coursekit.common.profile import load_profile\n"
        "from coursekit.tasks import read_task\n"
        "task = read_task(sys.argv[1])\n"
        "rows = task.rows('evaluation', 99, load_profile())\n"
        "print(task.identity, [row['prompt'] for row in rows])"
    )
    variables = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code, str(task.folder)],
        capture_output=True,
        text=True,
        env=variables,
        check=True,
    )
    rows = [row["prompt"] for row in task.rows("evaluation", 99, profile)]
    assert out.stdout.strip() == f"{task.identity} {rows}"


def test_a_metric_may_use_a_dataclass(make):
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Day:\n    name: str\n"
        "def x(prompt, response):\n    return float(Day('a').name in response)\n"
    )
    assert read_task(make(metrics_py=code)).score({"prompt": "p"}, "a")["x"] == 1


# What is wrong.

PLAIN = "def polite(prompt, response):\n    "


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return float('nan')", "line 1: polite gave nan on"),
        ("return float('-inf')", "line 1: polite gave -inf on"),
        ("return 'good'", "line 1: polite gave 'good' on"),
        ("return None", "line 1: polite gave None on"),
        ("return 10 ** 400", "line 1: polite gave 1000"),
        ("x = 1\n    return x / 0", "line 5: polite raised ZeroDivisionError: division by zero on"),
        ("return 1.5", "line 1: polite gave 1.5, not within 0 to 1, on"),
    ],
)
def test_a_metric_that_fails_on_row_41(make, profile, body, says):
    code = PLAIN + f"if '40' not in prompt:\n        return 1\n    {body}\n"
    task = read_task(make(task_toml=TOML + ALL_TO_EVALUATION, metrics_py=code))
    bad, good = {"prompt": PROMPTS[40]}, {"prompt": PROMPTS[39]}
    assert task.score(good, "yes")["polite"] == 1
    with pytest.raises(ValueError) as error:
        task.score(bad, "yes")
    text = str(error.value)
    assert f"{task.folder / 'metrics.py'}, {says}" in text
    assert "prompts.jsonl, line 41, 'Question 40: what is it?', for the response 'yes'" in text
    assert "mend it" in text


def test_a_metric_that_fails_on_a_prompt_from_elsewhere(make):
    task = read_task(make(metrics_py=PLAIN + "return 2\n"))
    with pytest.raises(ValueError, match=r"on 'Nobody asked', for the response 'x': mend it, or"):
        task.score({"prompt": "Nobody asked"}, "x")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        # task.toml
        (
            "task_toml",
            TOML + 'descripton = "x"\n',
            "task.toml, line 3: unknown key 'descripton': did",
        ),
        (
            "task_toml",
            TOML + 'descripton = "x"\n',
            "unknown key 'descripton': did you mean 'description'?",
        ),
        (
            "task_toml",
            TOML + "[metrics.length]\nbound = [0, 1]\n",
            "line 4: unknown key 'bound' in [metrics.length]: did you mean",
        ),
        (
            "task_toml",
            TOML + "[splits]\nvalidation = 1\neval = 99\n",
            "line 5: unknown key 'eval' in [splits]",
        ),
        (
            "task_toml",
            TOML + "[splits]\nevaluation = 90\n",
            "line 3: the shares add up to 90: let them add up to 100",
        ),
        (
            "task_toml",
            TOML + "[splits]\nevaluation = -5\n",
            "line 4: the share of evaluation is -5",
        ),
        ("task_toml", TOML + 'limits = "one"\n', "line 3: limits is 'one': write a list of texts"),
        ("task_toml", TOML + "asked = 3\n", "line 3: asked is 3: write a text in quotes"),
        ("task_toml", TOML + 'name = "my task"\n', "line 3: name is 'my task': write a word"),
        ("task_toml", TOML + "title = 'again'\n", "line 3: not TOML"),
        ("task_toml", TOML + "asked = message\n", "line 3: not TOML"),
        ("task_toml", 'description = "x"\n', "task.toml: no title: write title"),
        ("task_toml", 'description = ""\ntitle = "x"', "line 1: no description: write description"),
        (
            "task_toml",
            TOML + 'truth = ["polite"]\n',
            "line 3: truth names 'polite', which metrics.py does not define",
        ),
        (
            "task_toml",
            TOML + 'truth = ["length"]\n',
            "line 3: the metric 'length' tells what is right, without bounds",
        ),
        (
            "task_toml",
            TOML + "[metrics.my_word]\n",
            "line 3: [metrics] names 'my word', which metrics.py does not",
        ),
        (
            "task_toml",
            TOML + "[metrics]\nlength = 3\n",
            "line 4: [metrics] has length = 3: write a table",
        ),
        (
            "task_toml",
            TOML + "[metrics.length]\nbounds = [1, 0]\n",
            "line 4: bounds are [1, 0]: write [least, greatest]",
        ),
        (
            "task_toml",
            TOML + "[metrics.length]\nbounds = [0, nan]\n",
            "line 4: bounds are [0, nan]",
        ),
        (
            "task_toml",
            TOML + '[metrics.length]\nbetter = "more"\n',
            "line 4: better is 'more': write one of \"higher\"",
        ),
        (
            "task_toml",
            (TOML + "# Stra\u00dfe\n").encode("latin-1"),
            "line 3: not text in UTF-8 (byte 0xdf): save it as UTF-8",
        ),
        ("task_toml", None, "task.toml: no such file: write title and description there"),
        ("task_toml", TOML + f"deep = {'[' * 9000}\n", "line 3: not TOML"),
        ("task_toml", TOML + f"long = {'1' * 9000}\n", "not TOML (Exceeds the limit"),
        # rubric.md
        (
            "rubric_md",
            "# R\n\n## caf\u00e9\n".encode("latin-1"),
            "rubric.md, line 3: not text in UTF-8 (byte 0xe9): save",
        ),
        ("rubric_md", None, "rubric.md: no such file: write what a good response is"),
        # prompts
        (
            "prompts_jsonl",
            (asked(["a"]) + '{"prompt": "\u00e9"}\n').encode("latin-1"),
            "prompts.jsonl, line 2: not text in UTF-8",
        ),
        ("prompts_jsonl", asked(["a"]).encode("utf-16"), "line 1: not text in UTF-8 (byte 0xff)"),
        ("prompts_jsonl", b"\x1f\x8b1", "prompts.jsonl: is compressed (gzip): unpack it first"),
        ("prompts_jsonl", None, "prompts.jsonl: no such file: write one prompt a line; or .csv"),
        ("prompts_jsonl", "\n", "prompts.jsonl: no prompt in it: write one prompt a line"),
        (
            "prompts_jsonl",
            asked(["a"]) + "\n{'prompt': 'b'}\n",
            "line 3: the line is not JSON (Expecting",
        ),
        (
            "prompts_jsonl",
            asked(["a"]) + '{"prompts": "b"}\n',
            "line 2: no 'prompt' in it: write {\"prompt\"",
        ),
        ("prompts_jsonl", '"a"\n', "line 1: 'a' is no object"),
        (
            "prompts_jsonl",
            '{"prompt": " "}\n',
            "line 1: 'prompt' is ' ': write a text that is not empty",
        ),
        ("prompts_jsonl", '{"prompt": 3}\n', "line 1: 'prompt' is 3: write a text"),
        (
            "prompts_jsonl",
            jsonl({"prompt": TURNS[:3]}),
            "line 1: 'prompt' is a conversation that does not end with",
        ),
        (
            "prompts_jsonl",
            jsonl({"prompt": []}),
            "line 1: 'prompt' is a conversation that does not end with",
        ),
        ("prompts_jsonl", jsonl({"prompt": ["a"]}), "line 1: 'prompt' has the turn 'a'"),
        (
            "prompts_jsonl",
            jsonl({"prompt": [{"role": "human", "content": "a"}]}),
            "line 1: 'prompt' has the role 'human'",
        ),
        (
            "prompts_txt",
            "one\n",
            "prompts.txt: prompts stand in prompts.jsonl and prompts.txt: keep one",
        ),
        # beside them
        (
            "demonstrations_jsonl",
            jsonl({"prompt": "a", "reponse": "b"}),
            "demonstrations.jsonl, line 1: no 'response' in it",
        ),
        (
            "demonstrations_jsonl",
            jsonl({"prompt": "a", "response": ""}),
            "line 1: 'response' is '': write a text",
        ),
        (
            "demonstrations_jsonl",
            jsonl({"prompt": "a", "response": ["b"]}),
            "line 1: 'response' is ['b']: write a text",
        ),
        (
            "references_jsonl",
            jsonl({"prompt": "a", "response": "b"}),
            "references.jsonl, line 1: no 'reference' in it",
        ),
        (
            "probes_jsonl",
            jsonl({"prompt": "a", "response": "b", "kind": "quiz"}),
            "probes.jsonl, line 1: 'kind' is 'quiz'",
        ),
        (
            "probes_jsonl",
            jsonl({"prompt": "", "response": "b"}),
            "probes.jsonl, line 1: 'prompt' is ''",
        ),
        (
            "probes_jsonl",
            jsonl({"prompt": TURNS, "response": "b"}),
            "line 1: 'prompt' is a conversation: write a text",
        ),
        # metrics.py
        (
            "metrics_py",
            "def polite(prompt, response):\n    return (1\n",
            "metrics.py, line 2: not Python (",
        ),
        (
            "metrics_py",
            "x = 1\nimport nothing_of_this_name\n",
            "metrics.py, line 2: cannot be run (ModuleNotFoundError",
        ),
        (
            "metrics_py",
            "import sys\nsys.exit('x')\n",
            "metrics.py, line 2: cannot be run (SystemExit: x)",
        ),
        (
            "metrics_py",
            "\ndef polite(response):\n    return 1\n",
            "line 2: polite(response) is not called with two texts: write polite(",
        ),
        (
            "metrics_py",
            "def overall(prompt, response):\n    return 1\n",
            "line 1: overall is the mean of",
        ),
        ("metrics_py", "# caf\u00e9\n".encode("latin-1"), "metrics.py, line 1: not text in UTF-8"),
    ],
)
def test_one_error_with_file_line_and_remedy(make, file, content, says):
    text = refused(make(**{file: content}))
    assert says in text
    assert text.startswith(str(make().parent)) and "Traceback" not in text
    assert " more: python -m coursekit check" not in text


def test_csv_that_is_no_table(make):
    folder = make(prompts_jsonl=None, prompts_csv="prompt,day\nWhat, when?,Monday\n")
    assert "prompts.csv, line 2: 3 cells, and 2 columns have names: put each text" in refused(
        folder
    )
    folder = make(prompts_jsonl=None, prompts_csv="prompt;day\nWhat?;Monday\n")
    assert "line 1: 0 columns named 'prompt' (there are: prompt;day): name one" in refused(folder)
    folder = make(prompts_jsonl=None, prompts_csv='prompt\na\n"b" c\n')
    assert "prompts.csv, line 3: no table (" in refused(folder)


def test_an_empty_folder_and_a_missing_one(tmp_path):
    assert refused(tmp_path) == (
        f"{tmp_path}: a folder without a task's files: correct the path, or write a task there: "
        f"python -m coursekit new {tmp_path}"
    )
    assert f"{tmp_path / 'x'}: no such folder: correct the path" in refused(tmp_path / "x")


def test_of_several_errors_the_first_and_how_many(make):
    text = refused(make(task_toml=TOML + "a = 1\nb = 2\n", rubric_md=None))
    assert "rubric.md: no such file" in text
    assert text.endswith(f"(2 more: python -m coursekit check {make().parent / 'shop'})")


def test_a_prompt_twice_is_read_once(make, profile):
    prompts = jsonl({"prompt": "a", "from": 1}, {"prompt": " a ", "from": 2}, {"prompt": "b"})
    task = read_task(make(task_toml=TOML + ALL_TO_EVALUATION, prompts_jsonl=prompts))
    rows = task.rows("evaluation", 9, profile)
    assert sorted(row["prompt"] for row in rows) == ["a", "b"]
    assert {"prompt": "a", "facts": {"from": 1}} in rows


def test_lines_of_toml():
    text = '# x\na = """\nb = 1\n"""\n\n[t.u]\nb = [\n 1,\n]\n"c d" = 2\nv.w = 3\n'
    places = {("a",): 2, ("t", "u"): 6, ("t", "u", "b"): 7, ("t", "u", "c d"): 10}
    assert {keys: line_of(text, *keys) for keys in places} == places
    assert line_of(text, "t", "u", "v", "w") == 11 and line_of(text, "nothing") is None


def test_the_default_name_is_a_word(tmp_path):
    (tmp_path / "my task: no. 1").mkdir()
    settings = read_settings(TOML, tmp_path / "my task: no. 1" / "task.toml", [])
    assert settings.name == "my_task_no_1"


# Which task is meant.


def test_load_task(make, monkeypatch):
    folder = make()
    monkeypatch.setenv("COURSE_TASK", str(folder))
    task = load_task()
    assert task.title == "Shop" and load_task(folder) is task
    make(task_toml=TOML.replace("Shop", "A market"))
    assert load_task().title == "A market"
    relative = os.path.relpath(folder, ROOT)
    monkeypatch.chdir(folder)
    assert load_task(relative).title == "A market"
    assert "triage" in shipped_tasks() and "skeleton" not in shipped_tasks()


def test_a_task_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("COURSE_TASK", "traige")
    with pytest.raises(ValueError) as error:
        load_task()
    text = str(error.value)
    assert text.startswith("COURSE_TASK is 'traige', neither a shipped task (triage")
    assert f"({ROOT / 'traige'} is not there)" in text and "python -m coursekit new traige" in text
    with pytest.raises(ValueError, match=r"^the task 'skeletons' is neither"):
        load_task("skeletons")
