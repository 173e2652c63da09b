"""Sampling through a server: what is asked, what is kept, and what a bad server costs."""

import _thread
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from completion_server import Model, Server, echo
from conftest import ROOT

pytest.importorskip("openai")

from coursekit.common.journal import read_journal
from coursekit.evaluation.endpoint import Ask, Endpoint, EndpointError, respond, written_out
from coursekit.evaluation.judges import ProgramJudge
from coursekit.evaluation.judges.pacing import Limiter
from coursekit.evaluation.responses import answer, kept_answers
from coursekit.lm.generation import generate
from coursekit.lm.logprobs import encode_prompt
from coursekit.preferences import make_triples, ranked_samples, sample_candidates
from coursekit.tasks.triage import TRIAGE
from coursekit.workspace import Workspace

SECRET = "sk-never-to-be-seen-0123456789"


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """No pause between two tries, and no key of whoever runs the tests."""
    monkeypatch.setattr(Limiter, "backoff", lambda self, error, tries: 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture()
def small(profile, tmp_path):
    return replace(profile, artifacts=tmp_path, max_new_tokens=12)


@pytest.fixture()
def server():
    with Server(echo) as running:
        yield running


@pytest.fixture()
def true_server(model, tokenizer):
    """It generates by the shipped model, and counts tokens as that reads them."""
    behind = Model(model, tokenizer)
    with Server(behind.write) as running:
        running.tokens = behind.tokens
        yield running


def at(server, small, **options):
    return Endpoint(server.url, "SFT", small.base_model, **options)


def numbered(n):
    return [Ask(f"Say number {i}.", 0.7, seed=i) for i in range(n)]


def kept(folder):
    return [row for path in folder.glob("*.jsonl") for row in read_journal(path)]


# What is asked.


def test_greedy_answers_through_a_server_are_those_of_the_model_here(small, true_server):
    rows = TRIAGE.rows("evaluation", 12, small)
    models = {"here": small.base_model, "there": at(true_server, small, concurrency=4)}
    answers = answer(models, rows, small, temperature=0.0)
    assert answers["there"] == answers["here"]
    assert len(set(answers["here"])) > 6
    assert sum(true_server.answered.values()) == 12
    true_server.answered.clear()
    read = kept_answers({"it": small.base_model}, rows, small, temperature=0.0)["it"]
    assert read == answers["here"] and not true_server.answered  # whoever answered, it is kept


def test_what_a_server_answered_is_read_without_it(small, true_server):
    rows = TRIAGE.rows("evaluation", 4, small)
    found = answer({"SFT": at(true_server, small)}, rows, small)["SFT"]
    true_server.answered.clear()
    kept = kept_answers({"SFT": small.base_model}, rows + rows[:1], small)["SFT"]
    assert kept == [*found, None] and not true_server.answered


def test_a_prompt_without_a_template_is_asked_alike(small, model, tokenizer, true_server):
    import copy

    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    true_server.tokens = lambda prompt: len(plain(prompt)["input_ids"])
    prompts = [row["prompt"] for row in TRIAGE.rows("evaluation", 4, small)]
    found = respond(at(true_server, small), [Ask(prompt) for prompt in prompts], plain, small)
    wanted = generate(model, plain, prompts, max_new_tokens=12, label=None)
    assert [text for (text,) in found] == wanted
    assert all(body["add_special_tokens"] for body in true_server.bodies)


@pytest.mark.parametrize("template", [True, False])
def test_what_is_sent_has_the_tokens_that_the_model_is_asked_with(tokenizer, template):
    import copy

    own = copy.deepcopy(tokenizer)
    own.chat_template = tokenizer.chat_template if template else None
    turns = [{"role": "user", "content": "One."}, {"role": "assistant", "content": "Two."}]
    for prompt in ("disk full", "disk full\n", [*turns, {"role": "user", "content": "Three?"}]):
        text, special = written_out(own, prompt)
        assert own(text, add_special_tokens=special)["input_ids"] == encode_prompt(own, prompt)


def test_the_request_says_everything_that_decides_the_responses(small, server, tokenizer):
    respond(at(server, small), [Ask("Why?", 0.9, seed=7, n=3)], tokenizer, small)
    (body,) = server.bodies
    assert body.pop("prompt") == written_out(tokenizer, "Why?")[0]
    assert body == {
        "model": "SFT",
        "max_tokens": 12,
        "temperature": 0.9,
        "top_p": 1.0,
        "seed": 7,
        "n": 3,
        "add_special_tokens": False,
        "stop_token_ids": [tokenizer.eos_token_id],
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }


def test_a_server_that_reads_the_prompt_otherwise_is_refused(small, server, tokenizer):
    right = len(encode_prompt(tokenizer, "Why?"))
    for tokens in (right + 1, right + 40):  # a second BOS; a template around ours
        server.tokens = lambda prompt, tokens=tokens: tokens
        with pytest.raises(EndpointError, match=f"as {tokens} tokens, .* as {right}: .*template"):
            respond(at(server, small), [Ask("Why?")], tokenizer, small)
    server.tokens = lambda prompt: right
    assert respond(at(server, small), [Ask("Why?")], tokenizer, small)


def test_as_many_are_in_flight_as_asked_for_and_no_more(small, server, tokenizer):
    server.gather = 24  # nothing is answered before
    found = respond(at(server, small, concurrency=24), numbered(60), tokenizer, small)
    assert server.most_in_flight == 24
    assert [text.split(" / ")[-1] for (text,) in found] == [str(i) for i in range(60)]


# What is kept.


def stopped_after(server, n, stop):
    """Call `stop` with the request that follows `n` answers."""

    def before(number):
        if number > n:
            while sum(server.answered.values()) < n:
                time.sleep(0.01)
            stop()
            return "hang"

    return before


def test_ctrl_c_loses_nothing_that_came(small, server, tokenizer, tmp_path):
    endpoint, asks = at(server, small, concurrency=2), numbered(30)
    server.before = stopped_after(server, 11, _thread.interrupt_main)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        respond(endpoint, asks, tokenizer, small, tmp_path)
    assert time.monotonic() - start < 10  # those that hang are not waited for
    came = {row["ask"] for row in kept(tmp_path)}
    assert 10 <= len(came) <= 11
    server.before, asked = lambda number: None, len(server.bodies)
    found = respond(endpoint, asks, tokenizer, small, tmp_path)
    assert len(server.bodies) - asked == 30 - len(came)
    assert found == respond(endpoint, asks, tokenizer, small)  # as if it had not been stopped


def test_a_killed_process_loses_nothing_that_came(small, server, tokenizer, tmp_path):
    code = f"""
from dataclasses import replace
from coursekit.common.profile import load_profile
from coursekit.evaluation.endpoint import Ask, Endpoint, respond
from coursekit.lm.loading import load_tokenizer
profile = replace(load_profile("tiny"), max_new_tokens=12)
asks = [Ask(f"Say number {{i}}.", 0.7, seed=i) for i in range(30)]
endpoint = Endpoint({server.url!r}, "SFT", profile.base_model, concurrency=1)
respond(endpoint, asks, load_tokenizer(profile.base_model, profile), profile, {str(tmp_path)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    server.before = stopped_after(server, 7, process.kill)
    assert process.wait(60) == -signal.SIGKILL
    assert len(kept(tmp_path)) == 7
    server.before, asked = lambda number: None, len(server.bodies)
    found = respond(at(server, small), numbered(30), tokenizer, small, tmp_path)
    assert len(server.bodies) - asked == 23
    assert found == respond(at(server, small), numbered(30), tokenizer, small)


def test_a_server_that_dies_and_comes_back_elsewhere(small, tokenizer, tmp_path):
    asks = numbered(20)
    with Server(echo) as first:
        first.before = lambda number: "cut" if number > 8 else None
        with pytest.raises(EndpointError, match=r"failed 6 times.*connection.*kept.*call again"):
            respond(at(first, small, concurrency=2), asks, tokenizer, small, tmp_path)
    came = len(kept(tmp_path))
    assert came == 8
    with pytest.raises(EndpointError, match="failed 6 times, at last with: the connection failed"):
        respond(at(first, small), asks, tokenizer, small, tmp_path)  # nobody listens there
    with Server(echo) as second:
        found = respond(at(second, small), asks, tokenizer, small, tmp_path)
        assert len(second.bodies) == 12
    # Finished, it needs no server, and no record says at which port one was.
    assert respond(at(second, small), asks, tokenizer, small, tmp_path) == found
    ports = [f":{one.server_address[1]}" for one in (first, second)]
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir() if path.suffix != ""]
    assert texts and not [port for port in ports for text in texts if port in text]


def test_without_a_server_and_a_note_of_it_that_is_said(small, tokenizer):
    with Server(echo) as gone:
        pass
    with pytest.raises(EndpointError, match=r"does not say which models.*vllm serve"):
        respond(at(gone, small), numbered(1), tokenizer, small)


def test_another_model_under_the_name_is_another(small, server, tokenizer, tmp_path):
    endpoint = at(server, small)
    first = endpoint.identity(small)
    assert first["served"] == {
        **{"id": "SFT", "object": "model", "owned_by": "vllm", "root": "/models/sft"}
    }
    assert endpoint.identity(small) == first  # dates and permissions apart
    respond(endpoint, numbered(3), tokenizer, small, tmp_path)
    server.serves["SFT"] = {"root": "/models/sft-2"}
    respond(endpoint, numbered(3), tokenizer, small, tmp_path)
    assert len(server.bodies) == 6
    with pytest.raises(EndpointError, match=r"serves SFT, not 'DPO'.*--served-model-name DPO"):
        Endpoint(server.url, "DPO", small.base_model).identity(small)


def test_the_record_says_which_model_and_how_each_response_ended(
    small, true_server, tokenizer, tmp_path, capsys
):
    respond(at(true_server, small), [Ask("Disk full.", 1.0, n=4)], tokenizer, small, tmp_path)
    (record,) = tmp_path.glob("*.made_from.json")
    said = json.loads(record.read_text(encoding="utf-8"))
    assert said["model"]["served"]["root"] == "/models/sft" and said["max_new_tokens"] == 12
    ends = [row["finish_reason"] for row in kept(tmp_path)]
    assert len(ends) == 4 and set(ends) <= {"stop", "length"} and "length" in ends
    assert f"SFT: {ends.count('length')} of 4 responses were cut at 12 tokens" in (
        capsys.readouterr().out
    )


# A bad server.


@pytest.mark.parametrize(
    "fault", ["429", "500", "503", "cut", "hang", "garbage", "no choices", "aborted"]
)
def test_what_passes_is_asked_again(small, server, tokenizer, fault):
    server.before = lambda number: fault if number in (2, 3) else None
    endpoint = at(server, small, concurrency=2, timeout=0.5)
    found = respond(endpoint, numbered(6), tokenizer, small)
    assert len(server.bodies) == 8
    server.before = lambda number: None
    assert found == respond(endpoint, numbered(6), tokenizer, small)


@pytest.mark.parametrize(
    "fault, said",
    [
        ("429", "failed 3 times, at last with: status 429"),
        ("hang", "failed 3 times, at last with: no answer in time"),
        ("garbage", "failed 3 times, at last with: a reply that cannot be read"),
        ("aborted", "failed 3 times, at last with: a reply that has not 1 whole responses"),
        ("400", "does not answer '.*Say number 3.*': status 400"),
        ("401", "does not answer .*: status 401"),
    ],
)
def test_what_does_not_pass_is_told_and_the_rest_kept(
    small, server, tokenizer, tmp_path, monkeypatch, fault, said
):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server.before = lambda number: (
        fault if "number 3." in server.bodies[number - 1]["prompt"] else None
    )
    endpoint = at(server, small, concurrency=1, timeout=0.3, attempts=3)
    with pytest.raises(EndpointError, match=said) as caught:
        respond(endpoint, numbered(6), tokenizer, small, tmp_path)
    assert len(kept(tmp_path)) == 3
    assert server.keys == {SECRET}  # it was sent, and is told to nobody
    everything = [repr(caught.value), str(caught.value.__cause__), repr(endpoint)]
    everything += [path.read_text(encoding="utf-8") for path in tmp_path.glob("*.json*")]
    assert not [text for text in everything if SECRET in text or SECRET[:12] in text]


def test_a_server_of_ones_own_wants_no_key(small, server, tokenizer):
    respond(at(server, small), numbered(1), tokenizer, small)
    assert server.keys == {"not-needed"}


# Who uses it.


def test_triples_through_a_server(small, true_server, tokenizer, model, tmp_path):
    rows, judge = TRIAGE.rows("preferences", 9, small), ProgramJudge(TRIAGE)
    small = replace(small, max_new_tokens=48)
    design = ranked_samples(3, temperature=1.0)
    made = make_triples(
        at(true_server, small), tokenizer, rows, small, judge, design, folder=tmp_path
    )
    assert [body["n"] for body in true_server.bodies] == [3] * 9
    assert len({body["seed"] for body in true_server.bodies}) == 9
    here = make_triples(model, tokenizer, rows, small, judge, design)
    assert made[0] and made[0][0].keys() == here[0][0].keys()
    candidates = read_journal(tmp_path / "candidates.jsonl")
    texts = {one["response"] for row in candidates for one in row["candidates"]}
    assert len(texts) > 20  # samples, not one text again and again
    again = make_triples(
        at(true_server, small), tokenizer, rows, small, judge, design, folder=tmp_path
    )
    assert again == made and len(true_server.bodies) == 9


def test_candidates_go_on_where_they_were(small, server, tokenizer, tmp_path):
    rows = TRIAGE.rows("preferences", 66, small)  # more than a chunk
    sample = lambda path: sample_candidates(  # noqa: E731
        at(server, small, concurrency=2), tokenizer, rows, small, seed=1, path=path
    )
    server.before = stopped_after(server, 101, _thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "candidates.jsonl")
    came = len(kept(tmp_path / "responses")) // 2  # two samples a request
    assert came >= 100
    server.before, asked = lambda number: None, len(server.bodies)
    found = sample(tmp_path / "candidates.jsonl")
    assert len(server.bodies) - asked == 132 - came
    assert found == sample(None)
    # Two temperatures, two samples of each, every one under a seed that is its own.
    assert [one["temperature"] for one in found[0]["candidates"]] == [0.7, 0.7, 1.0, 1.0]
    assert len({one["response"] for row in found for one in row["candidates"]}) == 264


def test_one_setting_sends_a_workspace_to_the_server(small, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_SAMPLER", server.url)
    workspace = Workspace(replace(small, preference_prompts=5), TRIAGE, ProgramJudge(TRIAGE))
    assert not workspace.is_the_courses_own
    workspace.use_sft(small.base_model)
    _, pairs = workspace.pairs()
    assert len(server.bodies) == 10 and pairs
    rows = workspace.rows("evaluation", 3)
    answers = workspace.answers({"base": small.base_model, "SFT": small.base_model}, rows)
    assert len(server.bodies) == 13  # those of SFT; the server has no model called base
    assert all(" / 0.7 / " in text for text in answers["SFT"])
    assert not any(" / 0.7 / " in text for text in answers["base"])
    assert (
        "base: generated here, as the server that COURSE_SAMPLER names" in capsys.readouterr().out
    )
    record = json.loads(
        (workspace.folder / "candidates.made_from.json").read_text(encoding="utf-8")
    )
    assert record["model"]["served"]["id"] == "SFT"
