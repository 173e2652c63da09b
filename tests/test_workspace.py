"""SFT, triples and DPO are used again only if they were made from the same of everything.

Training and sampling are replaced by notes of what was asked for, except in the last test; all
that is written down and compared is the real thing.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jupytext
import pytest
import torch
from conftest import ROOT

from coursekit import training, workspace
from coursekit.common import made_from
from coursekit.common.made_from import fingerprint, write_record
from coursekit.evaluation.judges import FlawedJudge, ProgramJudge
from coursekit.lm import loading as models
from coursekit.lm.identity import model_identity
from coursekit.preferences import load_triples
from coursekit.tasks.triage import TRIAGE
from coursekit.training.rows import rows_fingerprint
from coursekit.training.run import CHECKPOINTS, close_run, is_finished, load_run
from coursekit.workspace import Workspace, three_way

HISTORY = [{"loss": 0.7}, {"eval_rewards/margins": 0.2}]


def save_stub(trainer, tokenizer, folder, made_from, started_from, artifacts):
    """An adapter whose weights say what they were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"base_model_name_or_path": str(started_from)}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "adapter_model.safetensors").write_text(fingerprint(made_from), encoding="utf-8")
    return close_run(trainer, tokenizer, folder, made_from)


class ModelStub(torch.nn.Module):
    """A model whose one weight says what it was loaded from."""

    config = SimpleNamespace(to_dict=dict)

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

    def refuse(*arguments, **options):
        raise AssertionError("made anew")

    for stage in ("sft", "dpo"):
        monkeypatch.setattr(f"coursekit.training.{stage}.run_training", refuse)
    monkeypatch.setattr("coursekit.lm.generation.generate", refuse)
    again = three_way(Workspace(few, seed=3, folder=tmp_path / "seed3"))
    assert again.means.equals(first.means) and again.margin == first.margin
