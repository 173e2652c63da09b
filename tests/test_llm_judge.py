"""LLM judges against a real server on loopback: both protocols, every fault, kills, keys."""

import json
import pickle
import signal
import subprocess
import sys
import time
import traceback
import urllib.request

import pytest
from conftest import ROOT

pytest.importorskip("anthropic")
pytest.importorskip("openai")

from coursekit.judging import RubricJudge, both_orders, compare_judges
from coursekit.judging.keys import Key, find_key
from coursekit.judging.llm_judge import JudgeError, LLMJudge, pair_questions
from coursekit.judging.providers import AnthropicProvider, OpenAIProvider
from coursekit.judging.questions import Question
from coursekit.judging.store import VerdictStore

SECRET = "sk-ant-" + "never-to-be-seen-0123456789"


class Running:
    """The server in a process of its own."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "tests/judge_server.py"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def set(self, **settings):
        data = json.dumps(settings).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/control", data)).read()

    def state(self):
        return json.load(urllib.request.urlopen(f"{self.url}/control"))


@pytest.fixture()
def server():
    running = Running()
    yield running
    running.process.kill()
    running.process.wait()


def provider(server, protocol, timeout=1.0, key=SECRET, **options):
    if protocol == "anthropic":
        options = {"model": "claude-opus-5-5", "base_url": server.url} | options
        return AnthropicProvider(key=Key(key, "ANTHROPIC_API_KEY"), timeout=timeout, **options)
    options = {"price": (4.0, 20.0), "base_url": f"{server.url}/v1"} | options
    return OpenAIProvider("local", key=Key(key, "OPENAI_API_KEY"), timeout=timeout, **options)


def numbered(n, length=300):
    """Questions that differ, about texts of which the longer wins."""
    return [
        Question("pair", f"Say number {i}.", ("a" * (length + i % 7), "b" * (length + 3)))
        for i in range(n)
    ]


PROTOCOLS = ["anthropic", "openai"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_kind_of_question(server, protocol, triples):
    judge = LLMJudge(provider(server, protocol))
    row, truth = triples[0], RubricJudge()
    good, bad = row["chosen"], row["rejected"]
    assert judge.compare(row, good, bad) == "first" and judge.compare(row, bad, good) == "second"
    assert judge.compare(row, good, good + " ") in ("first", "second", "tie")
    points = judge.points(row, bad)
    assert sum(points.values()) / len(points) == pytest.approx(truth.score(row, bad))
    assert judge.rank(row, [bad, good, "?"]) == [1, 0, 2]
    assert judge.name.startswith(protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_answered_is_never_asked_again(server, protocol, tmp_path):
    path = tmp_path / "verdicts.sqlite"
    questions = numbered(20)
    LLMJudge(provider(server, protocol), store=VerdictStore(path)).prepare(questions)
    assert sum(server.state()["asked"].values()) == 20
    again = LLMJudge(provider(server, protocol), store=VerdictStore(path))
    assert again.estimate(questions).questions == 0
    again.prepare(questions)
    assert again.ask(questions[3]).valid and again.spent == 0
    assert sum(server.state()["asked"].values()) == 20


def test_another_rubric_or_model_is_another_question(server, tmp_path):
    from coursekit.judging.written_rubric import load_rubric

    path = tmp_path / "mine.md"
    path.write_text("# Mine\n\nAbout.\n\n## brief\n\nShort is good.\n", encoding="utf-8")
    store = VerdictStore()
    (question,) = numbered(1)
    LLMJudge(provider(server, "anthropic"), store=store).prepare([question])
    other = LLMJudge(provider(server, "anthropic"), load_rubric(path), store)
    assert other.estimate([question]).questions == 1
    cheaper = LLMJudge(provider(server, "anthropic", model="claude-haiku-5-5"), store=store)
    assert cheaper.estimate([question]).questions == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_thousand_comparisons_with_a_fifth_of_faults(server, protocol, tmp_path):
    """None is lost, none asked again once answered, not even after a kill; the cost is as said."""
    server.set(share=0.2, timeout=1.5)
    path, questions = tmp_path / "verdicts.sqlite", 1000
    script = f"""
import sys
sys.path.insert(0, "tests")
from test_llm_judge import LLMJudge, VerdictStore, numbered, provider
class At: url = {server.url!r}
judge = LLMJudge(provider(At, {protocol!r}), store=VerdictStore({str(path)!r}), concurrency=16)
judge.prepare(numbered({questions}), label=None)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while sum(server.state()["answered"].values()) < 300:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = VerdictStore(path)
    before = store.counts()
    assert before["valid"] >= 250
    kept = server.state()["answered"]

    judge = LLMJudge(provider(server, protocol), store=store, concurrency=16)
    estimate = judge.prepare(numbered(questions), label=None)
    assert estimate.questions == questions - sum(before.values())
    counts = store.counts()
    assert counts["valid"] + counts["invalid"] == questions
    assert all(store.causes())  # each invalid one says why
    assert counts["invalid"] < 0.1 * questions
    # Answered, and kept: not asked again. At most what was under way when it was killed is.
    answered = server.state()["answered"]
    assert sum(answered[key] > 1 for key in answered) <= 16
    assert set(kept) <= set(answered)
    verdicts = [judge.ask(question) for question in numbered(questions)]
    right = {
        f"{q.responses}": len(q.responses[0]) > len(q.responses[1]) for q in numbered(questions)
    }
    for question, verdict in zip(numbered(questions), verdicts, strict=True):
        if verdict.valid:
            same = len(question.responses[0]) == len(question.responses[1])
            expected = "tie" if same else "first" if right[f"{question.responses}"] else "second"
            assert verdict.value == expected
    charged = sum(verdict.dollars for verdict in verdicts)
    whole = LLMJudge(provider(server, protocol)).estimate(numbered(questions)).dollars
    assert charged == pytest.approx(whole, rel=0.1)


def test_sixteen_at_a_time_are_twelve_times_as_fast(server):
    server.set(delay=0.1)
    seconds = {}
    for at_a_time, n in ((1, 20), (16, 320)):
        judge = LLMJudge(provider(server, "anthropic", timeout=10), concurrency=at_a_time)
        judge.prepare(numbered(8), label=None)  # connections are open
        start = time.perf_counter()
        judge.prepare(numbered(8 + n)[8:], label=None)
        seconds[at_a_time] = (time.perf_counter() - start) / n
    assert seconds[1] / seconds[16] >= 12


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "fault, cause",
    [
        ("malformed JSON", "cannot be read"),
        ("truncated JSON", "cut"),
        ("wrong schema", "keys"),
        ("refusal", "refused"),
        ("empty content", "empty answer"),
        ("whitespace", "empty answer"),
        ("500", "status 500, 2 times"),
        ("429 with retry-after", "status 429, 2 times"),
        ("cut connection", ", 2 times"),
        ("timeout", "no answer in time, 2 times"),
    ],
)
def test_what_never_comes_right_is_invalid_with_its_cause(server, protocol, fault, cause):
    server.set(share=1.0, faults=[fault], timeout=1.0)
    judge = LLMJudge(provider(server, protocol, timeout=0.5), attempts=2)
    (question,) = numbered(1)
    verdict = judge.ask(question)
    assert not verdict.valid and verdict.value is None
    assert cause in verdict.cause
    assert judge.store.counts() == {"valid": 0, "invalid": 1}
    asked = sum(server.state()["asked"].values())
    assert asked <= 4
    judge.ask(question)
    assert sum(server.state()["asked"].values()) == asked  # kept, not asked for ever
    server.set(share=0.0)
    assert judge.store.forget_invalid() == 1 and judge.ask(question).valid


def test_an_invalid_verdict_is_neither_a_tie_nor_a_win(server, triples):
    from coursekit.evaluation import win_rate
    from coursekit.preferences import to_triples

    server.set(answer="I like both.")
    judge = LLMJudge(provider(server, "anthropic"), asks=1)
    row = triples[0]
    verdict = both_orders(judge, row, row["chosen"], row["rejected"])
    assert verdict.winner == "invalid" and verdict.answers == ("invalid", "invalid")
    pair = {
        "prompt": "?",
        "first": {"response": "a"},
        "second": {"response": "b"},
        "winner": "invalid",
    }
    assert to_triples([pair]) == []
    server.set(answer=None)
    good, bad = [r["chosen"] for r in triples], [r["rejected"] for r in triples]
    result = win_rate(triples, good, bad, judge)
    assert result.missing == 1 and result.wins == len(triples) - 1
    assert result.points[0] is None and "1 missing" in str(result)


def test_a_server_that_asks_to_wait_is_given_the_time(server):
    server.set(share=1.0, faults=["429 with retry-after"], only_first=True)
    judge = LLMJudge(provider(server, "anthropic"), concurrency=4)
    start = time.perf_counter()
    judge.prepare(numbered(8), label=None)
    assert judge.store.counts() == {"valid": 8, "invalid": 0}
    assert time.perf_counter() - start >= 0.2


def test_no_more_a_minute_than_allowed(server):
    judge = LLMJudge(provider(server, "openai"), concurrency=8, requests_a_minute=600)
    start = time.perf_counter()
    judge.prepare(numbered(11), label=None)
    assert time.perf_counter() - start >= 0.95  # ten gaps of a tenth of a second
    assert server.state()["most"] <= 8


# Money.


def test_above_the_cap_nothing_is_asked(server):
    judge = LLMJudge(provider(server, "anthropic"), max_dollars=0.01)
    with pytest.raises(JudgeError, match=r"100 questions, .* above the cap of \$0.01: nothing was"):
        judge.prepare(numbered(100))
    assert not server.state()["asked"]
    unknown = LLMJudge(provider(server, "anthropic", model="someone-elses"), max_dollars=1)
    with pytest.raises(JudgeError, match="price of anthropic/someone-elses is unknown"):
        unknown.prepare(numbered(1))


def test_what_is_spent_stops_it_and_is_kept(server):
    judge = LLMJudge(provider(server, "anthropic"), max_dollars=0.06, expected_output=1)
    with pytest.raises(
        JudgeError, match=r"are spent, the cap is \$0.06: what was answered is kept"
    ):
        judge.prepare(numbered(18), label=None)
    assert 0 < judge.store.counts()["valid"] < 18


def test_the_estimate_is_close_and_in_words(server):
    judge = LLMJudge(provider(server, "anthropic"))
    estimate = judge.prepare(numbered(50), label=None)
    assert judge.spent == pytest.approx(estimate.dollars, rel=0.1)
    assert str(estimate).startswith("50 questions, ") and "about $0." in str(estimate)


# Batches.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_costs_half_and_is_found_again(server, protocol, tmp_path, monkeypatch):
    path, questions = tmp_path / "verdicts.sqlite", numbered(40)
    judge = LLMJudge(provider(server, protocol), store=VerdictStore(path))
    monkeypatch.setattr(
        judge.provider, "collect", lambda name: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        judge.prepare(questions, batch=True, label=None)

    again = LLMJudge(provider(server, protocol), store=VerdictStore(path))
    monkeypatch.setattr(
        again.provider,
        "submit",
        lambda requests: pytest.fail("what is under way is not sent again"),
    )
    estimate = again.prepare(questions, batch=True, poll_seconds=0.05, label=None)
    assert again.store.counts() == {"valid": 36, "invalid": 4}  # every tenth came to nothing
    assert all("the batch says" in cause for cause in again.store.causes())
    single = LLMJudge(provider(server, protocol)).estimate(questions).dollars
    assert estimate.dollars == pytest.approx(single / 2)
    assert again.spent == pytest.approx(0.9 * single / 2, rel=0.1)
    assert not server.state()["asked"]  # nothing one by one
    assert not again.store.open_batches(again.name)


# Keys.


def everything_of(error):
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_key_is_nowhere(server, protocol, tmp_path, capsys, caplog):
    caplog.set_level("DEBUG")  # the SDKs' own loggers included
    wrong = SECRET + "-wrong"
    path = tmp_path / "verdicts.sqlite"
    judge = LLMJudge(provider(server, protocol, key=wrong), store=VerdictStore(path))
    with pytest.raises(JudgeError, match="cannot be used: status 401") as caught:
        judge.prepare(numbered(3))
    server.set(share=0.5)
    good = LLMJudge(provider(server, protocol), store=VerdictStore(path), attempts=2)
    good.prepare(numbered(6))
    said = capsys.readouterr()
    where = {
        "exception": everything_of(caught.value),
        "output": said.out + said.err,
        "log": caplog.text,
        "judge": repr(good) + str(vars(good)) + repr(good.provider) + str(vars(good.provider)),
        "store": b"".join(file.read_bytes() for file in tmp_path.iterdir()).decode("latin-1"),
    }
    for name, text in where.items():
        assert SECRET not in text and SECRET[:14] not in text, name
    assert SECRET in server.state()["keys"]  # it did reach who needs it


def test_a_key_does_not_show_itself_and_is_not_saved():
    key = Key(SECRET, "SOME_API_KEY")
    assert SECRET not in f"{key!r} {key}" and "SOME_API_KEY" in repr(key)
    assert SECRET not in key.scrub(f"bad key {SECRET}, beginning {SECRET[:12]}...{SECRET[-8:]}")
    with pytest.raises(TypeError, match="not to be saved"):
        pickle.dumps(key)


def test_where_a_key_comes_from(monkeypatch):
    import types

    monkeypatch.setenv("SOME_API_KEY", f" {SECRET}\n")
    assert find_key("SOME_API_KEY").reveal() == SECRET
    monkeypatch.delenv("SOME_API_KEY")
    with pytest.raises(ValueError, match="no SOME_API_KEY: set it in the environment"):
        find_key("SOME_API_KEY", ask=False)
    colab = types.ModuleType("google.colab")
    colab.userdata = types.SimpleNamespace(get={"SOME_API_KEY": SECRET}.get)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert find_key("SOME_API_KEY").reveal() == SECRET
    monkeypatch.delitem(sys.modules, "google.colab")
    monkeypatch.setattr("coursekit.judging.keys.getpass", lambda prompt: SECRET)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert find_key("SOME_API_KEY").reveal() == SECRET


# The setting, the table.


def test_one_setting_chooses_the_judge(server, profile, monkeypatch, tmp_path, triples):
    from dataclasses import replace

    from coursekit.judging import load_judge

    here = replace(profile, artifacts=tmp_path)
    monkeypatch.delenv("COURSE_JUDGE", raising=False)
    assert isinstance(load_judge(here), RubricJudge)
    monkeypatch.setenv("COURSE_JUDGE", "openai:local")
    monkeypatch.setenv("COURSE_JUDGE_URL", f"{server.url}/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = load_judge(here)
    assert judge.compare(triples[0], triples[0]["chosen"], "?") == "first"
    assert (tmp_path / "verdicts.sqlite").is_file()
    monkeypatch.setenv("COURSE_JUDGE", "anthropic")
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("COURSE_JUDGE_URL", server.url)
    assert load_judge(here).name == "anthropic/claude-opus-5-5"
    assert load_judge(here).max_dollars == 5
    monkeypatch.setenv("COURSE_JUDGE", "openai:someone-elses")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("COURSE_JUDGE_URL")
    with pytest.raises(ValueError, match="price of someone-elses is not known here"):
        load_judge(here)
    monkeypatch.setenv("COURSE_JUDGE_PRICE", "2.5,10")
    assert load_judge(here).provider.price == (2.5, 10)
    monkeypatch.setenv("COURSE_JUDGE_PRICE", "cheap")
    with pytest.raises(ValueError, match="COURSE_JUDGE_PRICE is 'cheap'"):
        load_judge(here)
    monkeypatch.setenv("COURSE_JUDGE", "oracle")
    monkeypatch.delenv("COURSE_JUDGE_PRICE")
    with pytest.raises(ValueError, match="COURSE_JUDGE is 'oracle'"):
        load_judge(here)


def test_a_judge_beside_the_truth(server, triples):
    server.set(share=0.1, faults=["wrong schema"], seed=1)
    items = [(row, row["chosen"], row["rejected"]) for row in triples]
    judge = LLMJudge(provider(server, "openai"), asks=1)
    table = compare_judges(items, [judge, RubricJudge("errs", error_rate=0.3)], RubricJudge())
    mine = table.loc["openai/local"]
    assert mine["wrong, of those kept"] == 0 and mine["flipped"] == 0
    assert 0 < mine["invalid"] < 1 and mine["kept"] == pytest.approx(1 - mine["invalid"])


def test_triples_are_made_with_an_llm_judge_as_with_the_rubric(server, triples):
    """The same verdicts make the same triples, asked one by one or side by side."""
    from coursekit.preferences import judge_pairs, to_triples
    from coursekit.preferences.sampling import Design, Source

    candidates = [
        {
            "prompt": row["prompt"],
            "alert": row["alert"],
            "candidates": [
                {"response": row[side], "source": side, "temperature": 1.0}
                for side in ("chosen", "rejected")
            ],
        }
        for row in triples
    ]
    design = Design("test", (Source("chosen", 1.0), Source("rejected", 1.0)))
    columns = ("prompt", "chosen", "rejected")
    made = [
        [
            [row[name] for name in columns]
            for row in to_triples(judge_pairs(candidates, judge, design))
        ]
        for judge in (RubricJudge(), LLMJudge(provider(server, "anthropic")))
    ]
    assert made[0] == made[1] and len(made[0]) == len(triples)


def test_questions_of_both_orders():
    row = {"prompt": "?"}
    assert pair_questions([(row, "a", "b"), (row, "c", "c")]) == [
        Question("pair", "?", ("a", "b")),
        Question("pair", "?", ("b", "a")),
    ]
