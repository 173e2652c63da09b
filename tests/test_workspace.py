"""SFT, triples and DPO are used again only if they were made from the same of everything.

Training and sampling are replaced by notes of what was asked for, except in the last test; all
that is written down and compared is the real thing.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from types import SimpleNamespace

import jupytext
import pytest
import torch
from conftest import ROOT

import coursekit
from coursekit import training, workspace
from coursekit.common import made_from
from coursekit.common.made_from import differences, fingerprint, write_record
from coursekit.common.profile import load_profile
from coursekit.evaluation import responses
from coursekit.evaluation.judges import FlawedJudge, ProgramJudge
from coursekit.lm import loading as models
from coursekit.lm.identity import model_identity
from coursekit.lm.shared import load_shared
from coursekit.preferences import load_triples, pairs
from coursekit.tasks import load_task
from coursekit.tasks.folder import split_of
from coursekit.tasks.settings import SHARES
from coursekit.tasks.triage import TRIAGE
from coursekit.training.rows import rows_fingerprint
from coursekit.training.run import CHECKPOINTS, close_run, is_finished, load_run, name_base
from coursekit.workspace import Workspace, three_way

HISTORY = [{"loss": 0.7}, {"eval_rewards/margins": 0.2}]


def save_stub(trainer, tokenizer, folder, made_from, started_from, artifacts):
    """An adapter whose weights say what they were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    name_base(folder, started_from, artifacts)
    (folder / "adapter_model.safetensors").write_text(fingerprint(made_from), encoding="utf-8")
    return close_run(trainer, tokenizer, folder, made_from)


class ModelStub(torch.nn.Module):
    """A model whose one weight says what it was loaded from."""

    config = SimpleNamespace(to_json_string=lambda use_diff: "{}")

    def __init__(self, source, profile, **options):
        super().__init__()
        self.identity = model_identity(source, profile)
        weights = torch.tensor(list(self.identity.encode()), dtype=torch.float32)
        self.w = torch.nn.Parameter(weights)


@pytest.fixture()
def made(monkeypatch, triples):
    """What was trained and sampled, by name, in order."""
    seen = []

    def run(trainer, label, profile, folder, made_from):
        seen.append(folder.name)
        write_record(folder / CHECKPOINTS, made_from)

    def generate(model, tokenizer, prompts, **options):
        seen.append("candidates")
        texts = {row["prompt"]: (row["chosen"], row["rejected"]) for row in triples}
        return [texts[prompt][number % 2] for number, prompt in enumerate(prompts)]

    trainer = SimpleNamespace(state=SimpleNamespace(log_history=HISTORY))
    for name, stub in {
        "sft._sft_trainer": lambda *arguments: trainer,
        "dpo.dpo_trainer": lambda **parts: trainer,
        "dpo.policy_and_reference": lambda *arguments: (None, None, None),
        "dpo.pair_logps": lambda *arguments: None,
        "dpo.assert_reference": lambda *arguments: None,
        "dpo.check_rows_fit": lambda *arguments: None,
        "dpo.load_model": ModelStub,
        "sft.run_training": run,
        "dpo.run_training": run,
        "sft.save_run": save_stub,
        "dpo.save_run": save_stub,
    }.items():
        monkeypatch.setattr(f"coursekit.training.{name}", stub)
    monkeypatch.setattr(models, "load_model", ModelStub)
    monkeypatch.setattr("coursekit.lm.generation.generate", generate)
    monkeypatch.delenv("COURSE_JUDGE", raising=False)
    return seen


@pytest.fixture()
def small(quick, tmp_path):
    return replace(quick, artifacts=tmp_path, demonstrations=8, preference_prompts=8)


@pytest.fixture()
def runs(small):
    return small.artifacts / "triage" / small.name


def test_a_second_time_nothing_is_made(made, small, runs, capsys, monkeypatch):
    Workspace(small).dpo()
    assert made == ["sft", "candidates", "dpo"]
    Workspace(small).dpo()
    assert "finished before" not in capsys.readouterr().out  # a moment ago, here
    monkeypatch.setattr("coursekit.training.run._known", set())  # as in another process
    files = {path: path.stat().st_mtime_ns for path in (runs / "dpo").iterdir()}
    assert Workspace(small).dpo() == runs / "dpo" and len(made) == 3
    assert "dpo: finished before, from the same; not made anew" in capsys.readouterr().out
    Workspace(small).dpo()
    assert not capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (runs / "dpo").iterdir()} == files
    assert Workspace(small).pairs()[0] == load_triples(runs / "triples.jsonl")


HOLD = """
import sys
from coursekit.common.made_from import only_here
with only_here(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("name", ["sft", "candidates.jsonl", "pairs.jsonl", "dpo"])
def test_what_another_process_makes_is_waited_for(name, made, small, runs, monkeypatch, capsys):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(runs / name)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"

    def who(holder):
        """Asked for only when there is somebody to wait for, who ends now."""
        other.communicate("go on\n")
        return holder.read_text(encoding="utf-8") if holder.is_file() else f"process {other.pid}"

    monkeypatch.setattr(made_from, "_who", who)
    Workspace(small).dpo()
    assert f"{name}: process {other.pid}" in capsys.readouterr().out
    assert made == ["sft", "candidates", "dpo"]


def other_base(profile):
    base = shutil.copytree(profile.base_model, profile.artifacts / "base")
    (base / "config.json").write_text(
        (base / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    return replace(profile, base_model=str(base))


CHANGES = {
    "seed": (lambda profile: profile, 1, "seed was 0, now 1"),
    "base": (other_base, 0, "base was "),
    "settings": (
        lambda profile: replace(profile, sft=replace(profile.sft, learning_rate=1e-4)),
        0,
        "settings.learning_rate was 0.002, now 0.0001",
    ),
    "demonstrations": (lambda profile: replace(profile, demonstrations=9), 0, "n was 8, now 9"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_sft_model_of_something_else_is_set_aside(what, made, small, runs, capsys):
    change, seed, said = CHANGES[what]
    before = load_run(Workspace(small).sft())
    run = load_run(Workspace(change(small), seed=seed).sft())
    assert made == ["sft", "sft"] and run.folder == before.folder
    assert said in capsys.readouterr().out
    assert run.made_from != before.made_from
    assert load_run(runs / "sft-old1").made_from == before.made_from


def test_the_record_says_what_a_card_needs(made, small, runs):
    sft, dpo = load_run(Workspace(small).sft()), load_run(Workspace(small).dpo())
    assert sft.made_from["settings"]["learning_rate"] == small.sft.learning_rate
    assert sft.made_from["base"] == model_identity(small.base_model, small)
    assert dpo.made_from["sft"] == model_identity(sft.folder, small)
    assert dpo.made_from["settings"]["beta"] == small.dpo.beta
    assert {"torch", "trl"} <= set(dpo.made_from["versions"])
    assert dpo.made_from["seed"] == 0 and dpo.history == HISTORY
    train, _ = training_and_validation(small)
    assert dpo.made_from["rows"] == rows_fingerprint(train)


def training_and_validation(profile):
    from coursekit.preferences import split_by_prompt

    return split_by_prompt(Workspace(profile).pairs()[0])


def test_another_beta_makes_dpo_anew_and_nothing_else(made, small, runs, capsys):
    Workspace(small).dpo()
    Workspace(replace(small, dpo=replace(small.dpo, beta=0.3))).dpo()
    assert made == ["sft", "candidates", "dpo", "dpo"]
    assert "settings.beta was 0.1, now 0.3" in capsys.readouterr().out
    assert load_run(runs / "dpo").made_from["settings"]["beta"] == 0.3


def test_a_retrained_sft_gets_triples_and_dpo_of_its_own(made, small, runs):
    """And the old adapter stays on the SFT model that it was trained on."""
    Workspace(small).dpo()
    before = model_identity(runs / "sft", small)
    other = replace(small, sft=replace(small.sft, epochs=2))
    Workspace(other).sft()
    follows = models.adapter_config(runs / "dpo")["base_model_name_or_path"]
    assert model_identity(follows, small) == before
    Workspace(other).dpo()
    assert made == ["sft", "candidates", "dpo", "sft", "candidates", "dpo"]
    assert load_run(runs / "dpo").made_from["sft"] == model_identity(runs / "sft", small) != before
    assert load_run(runs / "dpo-old1").made_from["sft"] == before


def test_back_to_the_first_sft_its_dpo_is_used_and_needs_nothing_that_was_set_aside(
    made, small, runs
):
    Workspace(small).dpo()
    Workspace(small, seed=1).sft()
    Workspace(small).dpo()  # the first again, made anew
    assert made == ["sft", "candidates", "dpo", "sft", "sft"]
    for path in runs.glob("*-old*"):
        shutil.rmtree(path)
    follows = models.adapter_config(runs / "dpo")["base_model_name_or_path"]
    assert model_identity(follows, small) == load_run(runs / "dpo").made_from["sft"]


@pytest.mark.parametrize("weights", [None, "other"])
def test_without_its_weights_a_run_is_made_anew(weights, made, small, runs, capsys):
    path = Workspace(small).sft() / "adapter_model.safetensors"
    path.write_text(weights, encoding="utf-8") if weights else path.unlink()
    Workspace(small).sft()
    assert made == ["sft", "sft"]
    assert "adapter_model.safetensors" in capsys.readouterr().out


def test_killed_while_it_is_made_anew_a_run_is_not_finished(made, small, runs, monkeypatch):
    Workspace(small).dpo()
    other = replace(small, dpo=replace(small.dpo, beta=0.3))

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("coursekit.training.dpo.run_training", killed)
        Workspace(other).dpo()
    assert not is_finished(runs / "dpo") and is_finished(runs / "dpo-old1")
    Workspace(other).dpo()
    assert made == ["sft", "candidates", "dpo", "dpo"]


def test_the_judge_of_the_environment_chooses(made, small, runs, monkeypatch, capsys):
    Workspace(small).pairs()
    turned = FlawedJudge(ProgramJudge(TRIAGE), "careless", error_rate=0.5)
    monkeypatch.setattr(workspace, "load_judge", lambda task, profile: turned)
    triples = Workspace(small).pairs()[0]
    assert {row["judge"] for row in triples} == {"careless"} and made == ["sft", "candidates"]
    assert "judge was" in capsys.readouterr().out
    assert (
        load_triples(runs / "triples-old1.jsonl") != triples == load_triples(runs / "triples.jsonl")
    )


def test_edited_triples_are_kept_under_another_name(made, small, runs):
    triples = Workspace(small).pairs()[0]
    path = runs / "triples.jsonl"
    edited = path.read_text(encoding="utf-8").replace("critical", "low")
    path.write_text(edited + edited, encoding="utf-8")
    assert Workspace(small).pairs()[0] == triples
    assert (runs / "triples-old1.jsonl").read_text(encoding="utf-8") == edited + edited


# What session B used is what session C evaluates.


def cell(notebook, containing):
    cells = jupytext.read(ROOT / "notebooks" / f"{notebook}.py").cells
    (source,) = [
        item.source for item in cells if item.cell_type == "code" and containing in item.source
    ]
    return source


def session_b(profile, my_sft):
    source = cell("B_preferences_and_training", "my_sft = None")
    workspace = Workspace(profile)
    names = {
        "profile": profile,
        "workspace": workspace,
        "runs": workspace.folder,
        "demonstrations": [{"prompt": "a", "response": "b"}],
        "train_sft": training.train_sft,
        "load_tokenizer": models.load_tokenizer,
    }
    exec(source.replace("my_sft = None", f"my_sft = {my_sft!r}"), names)
    return names["sft_folder"]


def session_c(profile):
    names = {"workspace": Workspace(profile)}
    exec(cell("C_three_way_eval", "models = workspace.models()"), names)
    return names["models"]


def test_your_own_sft_is_evaluated_in_session_c(made, small, runs, tmp_path, capsys):
    brought = training.train_sft(
        small.base_model, [{"prompt": "a", "response": "mine"}], tmp_path / "mine", small
    ).folder
    assert session_b(small, str(brought)) == str(brought) and made == ["mine"]
    found = session_c(small)
    assert found["SFT"] == str(brought) and made == ["mine", "candidates", "dpo"]
    assert load_run(found["SFT+DPO"]).made_from["sft"] == model_identity(brought, small)
    assert f"the model that you brought, {brought}\n" in capsys.readouterr().out

    session_b(small, None)  # the course's own again
    assert session_c(small)["SFT"] == runs / "sft"
    assert load_run(runs / "dpo").made_from["sft"] == model_identity(runs / "sft", small)


def test_a_brought_sft_that_is_gone_or_changed_is_told(made, small, runs, tmp_path, capsys):
    brought = shutil.copytree(small.base_model, tmp_path / "mine")
    Workspace(small).use_sft(brought)
    (brought / "config.json").write_text(
        (brought / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    Workspace(small).sft()
    assert "it has changed since" in capsys.readouterr().out
    shutil.rmtree(brought)
    with pytest.raises(FileNotFoundError, match="brought is gone: put it back, or delete"):
        Workspace(small).sft()
    (runs / "brought_sft.json").write_text('{"sft": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"damaged .* section 2 again"):
        Workspace(small).sft()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        Workspace(small).use_sft(tmp_path / "nothing")


# Twelve changes and more: what each makes anew. All that is not named is used again.

LLM = {"COURSE_JUDGE": "openai:one", "COURSE_JUDGE_URL": "http://localhost:9/v1"}
METRICS = '''
def right(prompt, response):
    """How many of its digits are even."""
    return sum(sign in "02468ace" for sign in response) / len(response)


def begins_small(prompt, response):
    return float(response[0] in "01234567")
'''
WORDS = [f"Say something of number {number}." for number in range(60)]
GIVEN = [f"Say something of letter {letter}." for letter in "abcdefgh"]


def asked_in(split):
    """A prompt that nobody has yet, of that split."""
    candidates = (f"Say something of colour {number}." for number in count())
    return next(prompt for prompt in candidates if split_of(prompt, SHARES) == split)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_task(folder):
    folder.mkdir()
    files = {
        "task.toml": 'title = "T"\ndescription = "It says things."\ntruth = ["right"]\n',
        "prompts.jsonl": lines({"prompt": prompt} for prompt in WORDS),
        "demonstrations.jsonl": lines({"prompt": one, "response": "02468"} for one in GIVEN),
        "rubric.md": "# Sayings\n\nWhat is good.\n\n## even\n\nEven digits.\n",
        "metrics.py": METRICS,
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture()
def stages(made, monkeypatch):
    """What was made anew: stages by name, whose answers, and for how many prompts."""

    def generate(model, tokenizer, prompts, *, temperature, seed, max_new_tokens, label, **rest):
        if label:
            made.append("candidates")

        def text(number, prompt):
            own = [one[number] if isinstance(one, list) else one for one in (temperature, seed)]
            place = number if label else 0  # answers do not depend on the others of their batch
            return fingerprint(model.identity, prompt, max_new_tokens, place, own)

        return [text(number, prompt) for number, prompt in enumerate(prompts)]

    def generated(name, source, missing, *rest):
        made.append(f"{len(missing)} answers of {name}")
        return answered(name, source, missing, *rest)

    def judged(*arguments):
        made.append("pairs")
        return judge_one(*arguments)

    def compare(judge, row, first, second):
        one, other = (fingerprint(judge.identity, text) for text in (first, second))
        return "first" if one < other else "second"

    answered, judge_one = responses._generated, pairs._judged
    monkeypatch.setattr("coursekit.lm.generation.generate", generate)
    monkeypatch.setattr(responses, "_generated", generated)
    monkeypatch.setattr(pairs, "_judged", judged)
    monkeypatch.setattr("coursekit.evaluation.judges.llm_judge.LLMJudge.compare", compare)
    return made


@pytest.fixture()
def mine(stages, small, tmp_path, monkeypatch):
    """A profile with a base model of its own, and as task a folder: everything can be changed."""
    base = shutil.copytree(small.base_model, tmp_path / "base")
    monkeypatch.setenv("COURSE_TASK", str(write_task(tmp_path / "sayings")))
    sizes = {"preference_prompts": 99, "evaluation_prompts": 99}
    return replace(small, artifacts=tmp_path / "runs", base_model=str(base), **sizes)


def make_all(profile, seed=0):
    """Every stage; the record of an evaluation of it."""
    here = Workspace(profile, seed=seed)
    models, rows = here.models(), here.rows("evaluation")
    here.answers(models, rows)
    return here.evaluated(models, rows)


def sft_settings(profile):
    return replace(profile, sft=replace(profile.sft, learning_rate=1e-4))


def edit(name, old, new):
    """A change of a file of the task."""

    def change(profile):
        path = profile.artifacts.parent / "sayings" / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def prompt_added(split):
    line = lines([{"prompt": asked_in(split)}])
    return edit("prompts.jsonl", "", line)


def weights_replaced(profile):
    path = Path(profile.base_model) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def sft_given(profile):
    given = shutil.copytree(profile.base_model, profile.artifacts / "given")
    weights_replaced(replace(profile, base_model=str(given)))
    Workspace(profile).use_sft(given)


def changed(**fields):
    return lambda profile: replace(profile, **fields)


TRIPLES = {"pairs", "dpo", "answers of SFT+DPO", "evaluation"}
SAMPLES = TRIPLES | {"candidates"}
ANSWERS = {f"answers of {name}" for name in ("base", "SFT", "SFT+DPO")}
SFT = SAMPLES | {"sft", "answers of SFT"}
ALL = SFT | ANSWERS
# name: (the change, what it makes anew, what is said of it; the settings that were there before)
MADE_ANEW = {
    "another judge": (LLM, TRIPLES, 'judge was "program:'),
    "another LLM as judge": (
        {**LLM, "COURSE_JUDGE": "openai:two"},
        TRIPLES,
        'judge was "openai/one:',
        LLM,
    ),
    "the rubric, where no program reads it": (edit("rubric.md", "Even", "Odd"), set(), ""),
    "the rubric, which an LLM reads": (
        edit("rubric.md", "Even", "Odd"),
        TRIPLES,
        'judge was "openai/one:',
        LLM,
    ),
    "a prompt to prefer on": (prompt_added("preferences"), SAMPLES, 'rows was "'),
    "a prompt to evaluate on": (prompt_added("evaluation"), ANSWERS | {"evaluation"}, ""),
    "a prompt to validate on": (prompt_added("validation"), set(), ""),
    "a demonstration": (edit("demonstrations.jsonl", "02468", "13579"), SFT, 'rows was "'),
    "the description": (edit("task.toml", "It says", "It tells"), set(), ""),
    "what a metric of truth does": (edit("metrics.py", "02468ace", "0"), TRIPLES, "judge was"),
    "what another metric does": (
        edit("metrics.py", "01234567", "0"),
        {"pairs", "evaluation"},
        "scorer was",
    ),
    "a comment in the metrics": (edit("metrics.py", "return", "# why\n    return"), set(), ""),
    "beta": (
        lambda profile: replace(profile, dpo=replace(profile.dpo, beta=0.3)),
        {"dpo", "answers of SFT+DPO", "evaluation"},
        "settings.beta was 0.1, now 0.3",
    ),
    "SFT's learning rate": (sft_settings, SFT, "settings.learning_rate was 0.002, now 0.0001"),
    "the seed": (1, ALL, "seed was 0, now 1"),
    "an SFT model of yours": (sft_given, SFT - {"sft"}, 'sft was "'),
    "other weights of the base": (weights_replaced, ALL, 'base was "'),
    "max_new_tokens": (changed(max_new_tokens=50), SAMPLES | ANSWERS, "_tokens was 96, now 50"),
    "temperatures": (changed(temperatures=(0.5, 1.0)), SAMPLES, "design.sources was"),
    "fewer preference prompts": (changed(preference_prompts=5), SAMPLES, 'rows was "'),
    "fewer demonstrations": (changed(demonstrations=5), SFT, "n was 8, now 5"),
    "fewer evaluation prompts": (changed(evaluation_prompts=5), {"evaluation"}, ""),
    "the machine": (changed(threads=1, generation_batch=2), set(), ""),
}


@pytest.mark.parametrize("what", MADE_ANEW)
def test_what_a_change_makes_anew(what, stages, mine, monkeypatch, capsys):
    change, expected, said, *before = MADE_ANEW[what]
    for name, value in dict(*before).items():
        monkeypatch.setenv(name, value)
    evaluated = make_all(mine)
    stages.clear(), capsys.readouterr()
    assert make_all(mine) == evaluated and not stages

    profile, seed = mine, 0
    if isinstance(change, dict):
        for name, value in change.items():
            monkeypatch.setenv(name, value)
    elif isinstance(change, int):
        seed = change
    else:
        profile = change(mine) or mine
    differ = differences(evaluated, make_all(profile, seed))
    anew = {stage.lstrip("0123456789 ") for stage in stages} | ({"evaluation"} if differ else set())
    assert anew == expected
    out = capsys.readouterr().out
    assert said in out
    # What was there is kept, and nothing else was touched.
    runs = mine.artifacts / "sayings" / mine.name
    aside = {path.name.split("-old")[0] for path in runs.glob("*-old1*")} - {"triples"}
    assert aside == expected & {"sft", "candidates", "pairs", "dpo"}
    assert all(f"kept as {name}-old1" in out for name in aside)


def test_of_a_prompt_more_only_its_own_answers_are_made(stages, mine):
    make_all(mine)
    stages.clear()
    prompt_added("evaluation")(mine)
    make_all(mine)
    assert stages == ["1 answers of base", "1 answers of SFT", "1 answers of SFT+DPO"]


def test_two_tasks_and_two_models_do_not_mix(stages, mine, tmp_path, monkeypatch, capsys):
    """Stage by stage in turn; in another turn everything is there."""
    shutil.copytree(mine.base_model, tmp_path / "other" / "base")  # of the same name
    tasks = str(tmp_path / "sayings"), str(write_task(tmp_path / "riddles"))

    def workspaces():
        for task, model in product(tasks, ("base", "other/base")):
            monkeypatch.setenv("COURSE_TASK", task)
            monkeypatch.setenv("COURSE_MODEL", str(tmp_path / model))
            named = load_profile("tiny")
            names = {"name": named.name, "base_model": named.base_model}
            yield Workspace(replace(mine, **names, preference_prompts=8, evaluation_prompts=4))

    def stage(name, order=list):
        for here in order(list(workspaces())):
            if name == "answers":
                here.answers(here.models(), here.rows("evaluation"))
            else:
                getattr(here, name)()

    for name in ("sft", "pairs", "dpo", "answers"):
        stage(name)
    assert len({here.folder for here in workspaces()}) == 4
    assert sorted(stages.count(name) for name in ("sft", "candidates", "dpo")) == [4, 4, 4]
    stages.clear(), capsys.readouterr()
    for name in ("answers", "dpo", "pairs", "sft"):
        stage(name, reversed)
    assert not stages and "made anew" not in capsys.readouterr().out
    assert not list(mine.artifacts.rglob("*-old*"))


def test_records_say_where_they_belong(mine):
    """In notes, which are for people: a task that is called or described otherwise is the same."""
    make_all(mine)
    runs = mine.artifacts / "sayings" / mine.name
    records = [*runs.rglob("made_from.json"), *runs.rglob("*.made_from.json")]
    assert len(records) == 7  # SFT, DPO, candidates, pairs, three models' answers
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        notes = record["notes"]
        assert notes["task"] == "sayings" and notes["profile"] == mine.name
        assert notes["base model"] == mine.base_model
        assert notes["base model's identity"] == model_identity(mine.base_model, mine)
        assert notes["coursekit"] == coursekit.__version__


def test_session_a_and_session_b_keep_an_sft_model_each(made, small, runs):
    quick = Workspace(small).quick_sft(4)
    full = Workspace(small).sft()
    assert Workspace(small).quick_sft(4) == quick == runs / "sft_quick" != full
    assert made == ["sft_quick", "sft"]


def test_which_sft_it_is_from_now_on_is_said(made, small, tmp_path, capsys):
    brought = shutil.copytree(small.base_model, tmp_path / "mine")
    Workspace(small).use_sft(brought)
    assert f"from now on the model that you bring, {brought}" in capsys.readouterr().out
    assert Workspace(small).present()["SFT"] == str(brought)
    for said in ("from now on the workspace's own again", ""):
        Workspace(small).use_sft(None)
        assert said in capsys.readouterr().out
    assert Workspace(small).present()["SFT"] == Workspace(small).folder / "sft"


def test_a_workspace_costs_nothing(tmp_path):
    code = "import sys\nfrom coursekit.workspace import Workspace\nhere = Workspace()\n"
    code += "print(here.folder, here.is_the_courses_own, 'torch' in sys.modules)"
    variables = {**os.environ, "COURSE_ARTIFACTS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == f"{tmp_path / 'runs' / 'triage' / 'tiny'} True False"
    assert not (tmp_path / "runs").exists()


def test_a_task_of_yours_that_is_called_as_the_courses_is_not_the_courses_own(mine, tmp_path):
    folder = write_task(tmp_path / "triage")
    assert not Workspace(load_profile("tiny"), load_task(folder)).is_the_courses_own


# Models that are only read.


def test_a_model_in_use_is_loaded_once(profile, tmp_path):
    base = shutil.copytree(profile.base_model, tmp_path / "base")
    model = load_shared(base, profile)
    assert load_shared(profile.base_model, profile) is model  # the same contents
    assert not model.training and not any(one.requires_grad for one in model.parameters())
    other = replace(profile, dtype="bfloat16")
    assert load_shared(base, other) is not model
    assert models.load_model(base, profile) is not model  # which trainers call
    (base / "config.json").write_text(
        (base / "config.json").read_text(encoding="utf-8") + " ", encoding="utf-8"
    )
    assert load_shared(base, profile) is not model


def with_gradients(model):
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model.parameters()


SPOILT = {
    "trained": lambda model: torch.optim.SGD(with_gradients(model), lr=1.0).step(),
    "written to": lambda model: torch.nn.init.zeros_(next(model.parameters())),
    "to be trained": lambda model: model.requires_grad_(True),
    "in training mode": lambda model: model.train(),
    "moved": lambda model: model.to(torch.float64),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_model_that_was_changed_is_nobody_elses(how, profile):
    model = load_shared(profile.base_model, profile)
    SPOILT[how](model)
    again = load_shared(profile.base_model, profile)
    assert again is not model and load_shared(profile.base_model, profile) is again


# Finished runs.


DAMAGE = {
    "cut in a line": lambda text: text[:-4],
    "cut at a line": lambda text: text.splitlines(keepends=True)[0],
    "empty": lambda text: "",
    "edited": lambda text: text.replace("0.7", "0.1"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_history_is_told_and_the_run_made_anew(how, made, small, runs, capsys):
    folder = Workspace(small).sft()
    path = folder / "history.jsonl"
    path.write_text(DAMAGE[how](path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=r"history.jsonl is damaged .* train it again"):
        load_run(folder)
    assert load_run(Workspace(small).sft()).history == HISTORY and made == ["sft", "sft"]
    assert "is damaged" in capsys.readouterr().out and (runs / "sft-old1").is_dir()


def test_a_run_without_a_record_is_set_aside(made, small, runs):
    folder = Workspace(small).sft()
    (folder / "made_from.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished run"):
        load_run(folder)
    Workspace(small).sft()
    assert made == ["sft", "sft"] and (runs / "sft-old1" / "history.jsonl").is_file()


def test_a_run_that_never_began_leaves_nothing_to_set_aside(made, small, runs):
    (runs / "sft" / CHECKPOINTS).mkdir(parents=True)  # what a trainer makes at once
    Workspace(small).sft()
    assert made == ["sft"] and not (runs / "sft-old1").exists()


def test_a_model_that_somebody_has_put_there_is_not_written_over(made, small, runs, capsys):
    shutil.copytree(small.base_model, runs / "sft")
    Workspace(small).sft()
    assert made == ["sft"] and (runs / "sft-old1" / "config.json").is_file()
    assert "nothing says what it was made from" in capsys.readouterr().out


def test_a_watched_run_serves_who_does_not_watch_but_not_the_reverse(made, small, runs, triples):
    from coursekit.training import Monitor

    watcher = Monitor([row["prompt"] for row in triples[:2]], triples[:2])
    watcher.attach = lambda *arguments: None
    sft = Workspace(small).sft()
    train = lambda monitor=None: training.train_dpo(  # noqa: E731
        sft, triples, runs / "dpo", small, monitor=monitor
    )
    train(), train(watcher), train(watcher), train()
    assert made == ["sft", "dpo", "dpo"]
    watcher.times = 9
    train(watcher)
    assert made == ["sft", "dpo", "dpo", "dpo"]


def test_the_real_thing_on_a_few_rows(quick, tmp_path, monkeypatch):
    """Everything for a seed of its own; a second time nothing is trained or sampled."""
    loaded = []

    def load(source, profile):
        loaded.append(Path(source).name)
        return models.load_model(source, profile)

    monkeypatch.setattr("coursekit.lm.shared.loading", SimpleNamespace(load_model=load))
    few = replace(
        quick,
        artifacts=tmp_path,
        demonstrations=64,
        preference_prompts=10,
        evaluation_prompts=4,
        dpo=replace(quick.dpo, epochs=1),
    )
    first = three_way(Workspace(few, seed=3, folder=tmp_path / "seed3"))
    assert sorted(first.means.index) == ["SFT", "SFT+DPO", "base"]
    assert first.kl.low <= first.kl.value <= first.kl.high
    assert 0 <= first.wins.estimate.value <= 1 and 0 <= first.copied <= 1
    # To sample candidates from; and after training each once, for answers and distance alike.
    assert loaded[0] == "sft" and sorted(loaded[1:]) in (["dpo", "sft", "tiny"], ["dpo", "tiny"])

    def refuse(*arguments, **options):
        raise AssertionError("made anew")

    for stage in ("sft", "dpo"):
        monkeypatch.setattr(f"coursekit.training.{stage}.run_training", refuse)
    monkeypatch.setattr("coursekit.lm.generation.generate", refuse)
    again = three_way(Workspace(few, seed=3, folder=tmp_path / "seed3"))
    assert again.means.equals(first.means) and again.margin == first.margin


def test_rows_are_as_many_as_the_profile_says_or_as_are_asked_for(small):
    workspace = Workspace(small)
    assert len(workspace.rows("preferences")) == small.preference_prompts
    assert len(workspace.rows("validation", 3)) == 3 and workspace.rows("preferences", 0) == []
    with pytest.raises(ValueError, match="how many rows of 'validation': give a number"):
        workspace.rows("validation")
    with pytest.raises(ValueError, match="unknown split 'test'"):
        workspace.rows("test", 3)
