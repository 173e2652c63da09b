"""LLM judges against a real server on loopback: both protocols, every fault, kills, keys."""

import json
import pickle
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import traceback
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import judge_server
import pytest
from conftest import ROOT

from coursekit.evaluation.judges import FlawedJudge, ProgramJudge
from coursekit.tasks.triage import TRIAGE

pytest.importorskip("anthropic")
pytest.importorskip("openai")

from coursekit.evaluation.judges import both_orders, build_prompt, compare_judges, load_judge
from coursekit.evaluation.judges.keys import Key, find_key
from coursekit.evaluation.judges.llm_judge import JudgeError, LLMJudge, pair_questions
from coursekit.evaluation.judges.providers import AnthropicProvider, OpenAIProvider, Transient
from coursekit.evaluation.judges.questions import Question
from coursekit.evaluation.judges.store import KeptAnswer, VerdictStore
from coursekit.tasks.rubric import load_rubric

SECRET = "sk-ant-" + "never-to-be-seen-0123456789"


def asking(provider, rubric=None, store=None, **options):
    """A judge by the course's rubric, if by no other."""
    return LLMJudge(provider, rubric or load_rubric(TRIAGE.rubric), store, **options)


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


def provider(server, protocol, timeout=30.0, key=SECRET, **options):
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
    judge = asking(provider(server, protocol))
    row, truth = triples[0], ProgramJudge(TRIAGE)
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
    asking(provider(server, protocol), store=VerdictStore(path)).prepare(questions)
    assert sum(server.state()["asked"].values()) == 20
    again = asking(provider(server, protocol), store=VerdictStore(path))
    assert again.estimate(questions).questions == 0
    again.prepare(questions)
    assert again.ask(questions[3]).valid and again.spent == 0
    assert sum(server.state()["asked"].values()) == 20


def test_another_rubric_or_model_is_another_question(server, tmp_path):
    path = tmp_path / "mine.md"
    path.write_text("# Mine\n\nAbout.\n\n## brief\n\nShort is good.\n", encoding="utf-8")
    store = VerdictStore()
    (question,) = numbered(1)
    asking(provider(server, "anthropic"), store=store).prepare([question])
    other = asking(provider(server, "anthropic"), load_rubric(path), store)
    assert other.estimate([question]).questions == 1
    cheaper = asking(provider(server, "anthropic", model="claude-haiku-5-5"), store=store)
    assert cheaper.estimate([question]).questions == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_server_is_another_judge(server, protocol, tmp_path):
    """The same name of a model at another address: asked anew, with another identity."""
    other = Running()
    try:
        store, (question,) = VerdictStore(tmp_path / "verdicts.sqlite"), numbered(1)
        judges = [asking(provider(at, protocol), store=store) for at in (server, other)]
        for judge in judges:
            judge.ask(question)
        assert sum(other.state()["asked"].values()) == 1
        assert judges[0].identity != judges[1].identity
        assert judges[0].identity == asking(provider(server, protocol)).identity
        assert judges[0].identity.startswith(judges[0].name)
    finally:
        other.process.kill()


# Answers that may come in time on every machine; one that never comes is a test of its own.
FAULTS = [fault for fault in judge_server.FAULTS if fault != "timeout"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hundreds_of_comparisons_with_a_fifth_of_faults(server, protocol, tmp_path):
    """None is lost, none asked again once answered, not even after a kill; the cost is as said."""
    server.set(share=0.2, faults=FAULTS, stop_after=100)
    path, questions = tmp_path / "verdicts.sqlite", numbered(400)
    script = f"""
import sys
sys.path.insert(0, "tests")
from test_llm_judge import VerdictStore, asking, numbered, provider
class At: url = {server.url!r}
judge = asking(provider(At, {protocol!r}), store=VerdictStore({str(path)!r}), concurrency=16)
judge.prepare(numbered({len(questions)}), label=None)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while sum(server.state()["answered"].values()) < 100:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.set(stop_after=None)
    store = VerdictStore(path)
    before = store.counts()
    assert before["valid"] >= 80
    kept = server.state()["answered"]

    judge = asking(provider(server, protocol), store=store, concurrency=16)
    estimate = judge.prepare(questions, label=None)
    assert estimate.questions == len(questions) - sum(before.values())
    counts = store.counts()
    assert counts["valid"] + counts["invalid"] == len(questions)
    assert all(store.causes())  # each invalid one says why
    assert counts["invalid"] < 0.1 * len(questions)
    # Answered, and kept: not asked again. At most what was under way when it was killed is.
    answered = server.state()["answered"]
    assert sum(answered[key] > 1 for key in answered) <= 16
    assert set(kept) <= set(answered)
    verdicts = [judge.ask(question) for question in questions]
    for question, verdict in zip(questions, verdicts, strict=True):
        first, second = map(len, question.responses)
        expected = "tie" if first == second else "first" if first > second else "second"
        assert verdict.value in (expected, None)
    # Verdicts at what they cost, and what was under way when it was killed at its most.
    charged = sum(verdict.dollars for verdict in verdicts)
    anew = asking(provider(server, protocol))
    most = [anew.estimate([question]).most_dollars for question in questions]
    assert charged - 1e-9 <= store.spent() <= charged + 16 * max(most)
    assert charged < sum(most)


def test_sixteen_questions_are_under_way_at_a_time(server):
    server.set(gather=16)  # the server answers when it has them all
    judge = asking(provider(server, "anthropic", timeout=60), concurrency=16)
    judge.prepare(numbered(64), label=None)
    assert server.state()["most"] == 16
    assert judge.store.counts() == {"valid": 64, "invalid": 0}


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
    server.set(share=1.0, faults=[fault])
    timeout = 0.3 if fault == "timeout" else 30
    judge = asking(provider(server, protocol, timeout=timeout), attempts=2)
    (question,) = numbered(1)
    verdict = judge.ask(question)
    assert not verdict.valid and verdict.value is None
    assert cause in verdict.cause
    assert judge.store.counts() == {"valid": 0, "invalid": 1}
    asked = sum(server.state()["asked"].values())
    assert asked <= 2
    judge.ask(question)
    assert sum(server.state()["asked"].values()) == asked  # kept, not asked for ever
    server.set(share=0.0)
    again = asking(provider(server, protocol), store=judge.store)
    assert judge.store.forget_invalid() == 1 and again.ask(question).valid


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_byte_now_and_then_is_no_answer_in_time(server, protocol, where):
    """Every single read is quick: the deadline is for the whole."""
    server.set(share=1.0, faults=[f"drip in the {where}"])
    judge = asking(provider(server, protocol, timeout=1.0), asks=1)
    assert "no answer in time" in judge.ask(*numbered(1)).cause


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault, cause", [(None, "more than"), ("gzip", "compressed with gzip")])
def test_no_reply_is_read_without_end(server, protocol, fault, cause):
    """Whatever is in it: 40 MB, plain, or folded into some kilobytes."""
    server.set(share=1.0 if fault else 0.0, faults=[fault], padding=40)
    verdict = asking(provider(server, protocol), asks=1).ask(*numbered(1))
    assert not verdict.valid and cause in verdict.cause
    assert server.state()["bytes"] < 20 * 2**20


def test_reasoning_before_the_answer_is_not_read(server):
    server.set(answer='<think>\nThe {first}?\n</think>\n{"reason": "x", "winner": "second"}')
    verdict = asking(provider(server, "openai"), asks=1).ask(*numbered(1))
    assert (verdict.value, verdict.reason) == ("second", "x")


def test_a_judge_that_never_answers_as_asked_is_asked_no_more(server):
    server.set(answer="I like both.")
    judge = asking(provider(server, "anthropic"), concurrency=4)
    with pytest.raises(JudgeError, match=r"last 20 questions have no valid answer .*not JSON"):
        judge.prepare(numbered(200), label=None)
    assert sum(server.state()["asked"].values()) <= 2 * (20 + 4)
    server.set(answer=None)
    judge.store.forget_invalid()
    judge.prepare(numbered(200), label=None)
    assert judge.store.counts() == {"valid": 200, "invalid": 0}


def test_an_invalid_verdict_is_neither_a_tie_nor_a_win(server, triples):
    from coursekit.evaluation import win_rate
    from coursekit.preferences import to_triples

    server.set(answer="I like both.")
    judge = asking(provider(server, "anthropic"), asks=1)
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
    judge = asking(provider(server, "anthropic"), concurrency=4)
    start = time.perf_counter()
    judge.prepare(numbered(8), label=None)
    assert judge.store.counts() == {"valid": 8, "invalid": 0}
    assert time.perf_counter() - start >= 0.2


def test_no_more_a_minute_than_allowed(server):
    judge = asking(provider(server, "openai"), concurrency=8, requests_a_minute=600)
    start = time.perf_counter()
    judge.prepare(numbered(11), label=None)
    assert time.perf_counter() - start >= 0.95  # ten gaps of a tenth of a second
    assert server.state()["most"] <= 8


# Money.


def test_above_the_cap_nothing_is_asked(server):
    judge = asking(provider(server, "anthropic"), max_dollars=0.01)
    with pytest.raises(JudgeError, match=r"100 questions .* the cap of \$0.01: nothing was asked"):
        judge.prepare(numbered(100))
    assert not server.state()["asked"]
    unknown = asking(provider(server, "anthropic", model="someone-elses"), max_dollars=1)
    for ask in (unknown.prepare, lambda questions: unknown.ask(*questions)):
        with pytest.raises(JudgeError, match="price of anthropic/someone-elses is unknown"):
            ask(numbered(1))


def test_what_is_spent_stops_it_and_is_kept(server):
    judge = asking(provider(server, "anthropic"), max_dollars=0.15, expected_output=1)
    with pytest.raises(
        JudgeError, match=r"are spent, the cap is \$0.15: what was answered is kept"
    ):
        judge.prepare(numbered(18), label=None)
    assert 0 < judge.store.counts()["valid"] < 18


def test_the_likely_cost_is_close_and_the_most_is_never_exceeded(server):
    judge = asking(provider(server, "anthropic"))
    estimate = judge.prepare(numbered(50), label=None)
    assert judge.spent == pytest.approx(estimate.dollars, rel=0.1)
    assert re.fullmatch(
        r"at most \$\d+\.\d\d, likely \$0\.\d\d, for 50 questions \(about [\d,]+ tokens in and "
        r"10,000 out\)",
        str(estimate),
    )
    # A model that is told to say little, cuts every character into tokens, and has to be asked
    # again for all: the most that a server may charge.
    sent = len("".join(build_prompt(numbered(1)[0], judge.rubric)))
    server.set(usage={"input": sent, "output": 2000}, answer="no JSON")
    worst = asking(provider(server, "anthropic"))
    most = worst.estimate(numbered(10)).most_dollars
    worst.prepare(numbered(10), label=None)
    assert sum(server.state()["asked"].values()) == 50 + 2 * 10
    assert 0.9 * most < worst.spent <= most


def test_a_text_that_cuts_into_many_tokens_stays_below_the_most(server):
    """Bytes, not characters: a rare character may be a token for each of its bytes."""
    judge = asking(provider(server, "anthropic"), asks=1)
    texts = [Question("pair", "?", (sign * 1000, "b")) for sign in "a\u4e00\U0001f600"]
    dollars = [judge.estimate([text]).most_dollars for text in texts]
    for one, other, more in zip(dollars, dollars[1:], (2, 1), strict=False):
        assert other - one == pytest.approx(more * 1000 * 4e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"input": None, "output": None},
        {"input": -(10**12), "output": -(10**12)},
        {"input": float("nan"), "output": float("nan")},
        {"input": 10**15, "output": 1e300},
        {"input": "many", "output": [3]},
        {"input": 0, "output": 0},
    ],
)
def test_a_count_of_tokens_that_is_none_is_taken_for_the_most(server, protocol, usage):
    server.set(usage=usage)
    judge = asking(provider(server, protocol), asks=1)
    most = judge.estimate(numbered(1)).most_dollars
    verdict = judge.ask(*numbered(1))
    assert verdict.valid
    assert verdict.dollars == judge.spent == judge.store.spent() == pytest.approx(most)


def test_what_is_under_way_counts_before_it_is_paid(server):
    """Sixteen at a time, each dear: the cap holds all the same."""
    server.set(usage={"input": 900, "output": 2000}, delay=0.05)
    judge = asking(
        provider(server, "anthropic"), max_dollars=0.5, concurrency=16, expected_output=1
    )
    with pytest.raises(JudgeError, match="are spent, the cap is"):
        judge.prepare(numbered(64), label=None)
    charged = sum(server.state()["answered"].values()) * (900 * 4 + 2000 * 20) / 1e6
    assert 0.3 < charged <= 0.5
    assert judge.store.spent() == judge.spent == pytest.approx(charged)


def test_the_cap_holds_for_all_that_share_a_store(server, tmp_path):
    server.set(usage={"input": 900, "output": 2000})
    path, cap = tmp_path / "verdicts.sqlite", 0.5
    for session in range(3):
        judge = asking(
            provider(server, "anthropic"), store=VerdictStore(path), max_dollars=cap,
            expected_output=1,
        )  # fmt: skip
        with pytest.raises(JudgeError, match=r"the cap (is|of) \$0.50"):
            judge.prepare(numbered(100)[20 * session : 20 * session + 20], label=None)
    assert 0.3 < VerdictStore(path).spent() <= cap
    VerdictStore(path).forget_invalid()
    assert VerdictStore(path).spent() > 0.3  # what was paid is paid
    free = asking(
        provider(server, "openai", price=(0.0, 0.0)), store=VerdictStore(path), max_dollars=0.1
    )
    assert free.ask(*numbered(1)).valid  # what costs nothing needs no room


def test_one_question_is_asked_once_from_eight_threads(server):
    server.set(delay=0.2)
    judge = asking(provider(server, "anthropic"))
    (question,) = numbered(1)
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(judge.ask, [question] * 8))
    assert sum(server.state()["asked"].values()) == 1
    assert len(set(verdicts)) == 1 and verdicts[0].valid


def test_one_question_is_asked_once_from_two_notebooks(server, tmp_path):
    server.set(delay=0.1)
    script = f"""
import sys
sys.path.insert(0, "tests")
from test_llm_judge import VerdictStore, asking, numbered, provider
class At: url = {server.url!r}
judge = asking(provider(At, "anthropic"), store=VerdictStore({str(tmp_path / "v.sqlite")!r}))
print(flush=True)
input()
judge.prepare(numbered(16), label=None)
"""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    notebooks = [subprocess.Popen([sys.executable, "-c", script], **pipes) for _ in range(2)]
    for notebook in notebooks:
        notebook.stdout.readline()
    for notebook in notebooks:
        notebook.stdin.write(b"\n")
        notebook.stdin.flush()
    assert [notebook.wait(timeout=60) for notebook in notebooks] == [0, 0]
    assert sum(server.state()["asked"].values()) == 16
    assert VerdictStore(tmp_path / "v.sqlite").counts() == {"valid": 16, "invalid": 0}


def test_who_was_killed_while_asking_has_paid_and_holds_nothing_up(tmp_path, monkeypatch):
    path = tmp_path / "verdicts.sqlite"
    script = "import sys; from coursekit.evaluation.judges.store import VerdictStore as V; "
    script += "assert V(sys.argv[1]).claim('key', 0.5) == 'claimed'"
    subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=True)
    store = VerdictStore(path)
    assert store.claim("other", 0.5, cap=0.9) == "spent"
    assert store.claim("key", 0.5, cap=1.0) == "claimed" and store.spent() == 0.5
    # Another machine's process cannot be looked at: it has an hour.
    monkeypatch.setattr("coursekit.evaluation.judges.store._me", lambda: "elsewhere/1/1")
    assert store.claim("theirs", 0.0) == "claimed"
    monkeypatch.undo()
    assert store.claim("theirs", 0.0) == "taken"
    monkeypatch.setattr("coursekit.evaluation.judges.store.FOREIGN_CLAIM", 0.0)
    assert store.claim("theirs", 0.0) == "claimed"


def test_a_thread_that_was_interrupted_while_asking_may_ask_again(tmp_path):
    """Ctrl-C came between claiming a question and asking it: nobody waits for that claim."""
    store = VerdictStore(tmp_path / "verdicts.sqlite")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(store.claim, "theirs", 0.5).result() == "claimed"
        assert store.claim("mine", 0.5) == "claimed"
        assert store.claim("theirs", 0.5) == "taken" and store.claim("mine", 0.5) == "claimed"
    assert store.spent() == 0.5


def test_who_finds_no_room_waits_for_what_others_have_under_way(tmp_path):
    store = VerdictStore(tmp_path / "verdicts.sqlite")
    assert store.claim("one", 0.6, cap=1.0) == "claimed"
    assert store.claim("two", 0.6, cap=1.0) == "taken"
    store.put("one", "judge", KeptAnswer("first", dollars=0.1))
    assert store.claim("two", 0.6, cap=1.0) == "claimed"
    store.release("two", "judge", 0.5)  # given up, and perhaps charged
    assert store.claim("two", 0.6, cap=1.0) == "spent"
    assert store.spent() == pytest.approx(0.6)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -1.0])
def test_amounts_that_are_none_are_told(server, amount):
    with pytest.raises(ValueError, match=rf"max_dollars is {amount}: wanted dollars, 0 or more"):
        asking(provider(server, "anthropic"), max_dollars=amount)
    for price in ((amount, 1.0), (1.0, amount)):
        with pytest.raises(ValueError, match=rf"price of a million tokens is {amount}: wanted"):
            provider(server, "openai", price=price)


@pytest.mark.parametrize("name", ["concurrency", "attempts", "asks", "max_tokens"])
def test_counts_below_one_are_told(server, name):
    with pytest.raises(ValueError, match=f"{name} is 0: wanted 1 or more"):
        asking(provider(server, "anthropic"), **{name: 0})


# The store.


def test_a_full_disk_loses_no_verdict(tmp_path):
    path = tmp_path / "verdicts.sqlite"
    store = VerdictStore(path)
    assert store.claim("key", 0.1) == "claimed"
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    verdict = KeptAnswer("first", "because " * 4000, dollars=0.1)
    with pytest.raises(OSError, match=r"disk is full.*Make room .* Leave the file: .* is paid"):
        store.put("key", "judge", verdict)
    assert store.get("key") == verdict
    with pytest.raises(OSError, match="disk is full"):
        store.claim("next", 0.1)  # so nothing more is asked for
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert store.claim("next", 0.1) == "claimed"
    assert VerdictStore(path).get("key") == verdict and VerdictStore(path).spent() == 0.1


def test_where_nothing_can_be_written_nobody_is_told_to_throw_verdicts_away(tmp_path, monkeypatch):
    path = tmp_path / "verdicts.sqlite"
    VerdictStore(path).put("key", "judge", KeptAnswer("first"))
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **options: connect(f"file:{path}?mode=ro", uri=True)
    )
    with pytest.raises(OSError, match=r"readonly database.* COURSE_ARTIFACTS\. Leave the file"):
        VerdictStore(path).claim("other", 0.0)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written .*COURSE_ARTIFACTS"):
        VerdictStore(tmp_path / "file" / "verdicts.sqlite")


def test_what_is_no_store_of_verdicts_is_told(tmp_path):
    (tmp_path / "text.sqlite").write_text("no database " * 200, encoding="utf-8")
    with pytest.raises(ValueError, match=r"text.sqlite is no store of verdicts, or a damaged one"):
        VerdictStore(tmp_path / "text.sqlite")
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE verdicts (key, value)")
    with pytest.raises(ValueError, match=r"other.sqlite .* table verdicts has the columns key, v"):
        VerdictStore(tmp_path / "other.sqlite")
    store = VerdictStore(tmp_path / "damaged.sqlite")
    store.put("key", "judge", KeptAnswer("first"))
    store._connection.execute("UPDATE verdicts SET value = 'fir'")
    with pytest.raises(ValueError, match=r"damaged.sqlite: the verdict key is damaged .* 'fir'"):
        store.get("key")


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
def test_the_store_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "verdicts.sqlite"
    path.touch(0o644)
    store = VerdictStore(path)
    store.put("key", "judge", KeptAnswer("first"))
    assert len(files := list(tmp_path.iterdir())) == 3  # and SQLite's two beside it
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


# Batches.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_costs_half_and_is_found_again(server, protocol, tmp_path, monkeypatch):
    path, questions = tmp_path / "verdicts.sqlite", numbered(40)
    judge = asking(provider(server, protocol), store=VerdictStore(path))
    single, half = (judge.estimate(questions, batch=batch) for batch in (False, True))
    assert half.dollars == pytest.approx(single.dollars / 2)
    assert half.most_dollars == pytest.approx(single.most_dollars / 4)  # nor is it asked twice
    monkeypatch.setattr(
        judge.provider, "collect", lambda name: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        judge.prepare(questions, batch=True, label=None)
    assert judge.store.spent() == pytest.approx(half.most_dollars)  # set aside until it is billed

    again = asking(provider(server, protocol), store=VerdictStore(path))
    assert again.estimate(questions).questions == 0
    with pytest.raises(JudgeError, match=r"under way in the batch \w+: collect it"):
        again.ask(questions[0])
    again.prepare(questions[:10], batch=True, poll_seconds=0.01, label=None)
    assert server.state()["batches"] == 2  # the second for what the first had left unanswered
    assert again.store.counts() == {"valid": 37, "invalid": 0}  # paid for, so kept: not only ten
    again.prepare(questions, batch=True, poll_seconds=0.01, label=None)
    # Every tenth came to nothing the first time.
    assert again.store.counts() == {"valid": 40, "invalid": 0}
    assert again.spent == pytest.approx(half.dollars, rel=0.1)
    assert again.store.spent() == pytest.approx(again.spent)  # Python and SQLite round sums apart
    assert not server.state()["asked"]  # nothing one by one
    assert not again.store.open_batches(again.identity)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_that_fails_leaves_no_verdict(server, protocol):
    server.set(batch="expired")
    judge = asking(provider(server, protocol))
    with pytest.raises(JudgeError, match=r"5 of 5 questions came back without an answer 2 times"):
        judge.prepare(numbered(5), batch=True, poll_seconds=0.01, label=None)
    assert judge.store.counts() == {"valid": 0, "invalid": 0} and judge.store.spent() == 0
    assert server.state()["batches"] == 2
    server.set(batch=None)
    judge.prepare(numbered(5), batch=True, poll_seconds=0.01, label=None)
    assert judge.store.counts() == {"valid": 5, "invalid": 0}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_is_handed_over_with_patience(server, protocol, monkeypatch):
    monkeypatch.setattr("coursekit.evaluation.judges.pacing.random.uniform", lambda low, high: 0.01)
    server.set(refuse_batches=2)
    judge = asking(provider(server, protocol), attempts=3)
    judge.prepare(numbered(5), batch=True, poll_seconds=0.01, label=None)
    assert judge.store.counts() == {"valid": 5, "invalid": 0}
    server.set(refuse_batches=3)
    with pytest.raises(JudgeError, match=r"did not take a batch: status 500\. What was answered"):
        judge.prepare(numbered(9), batch=True, poll_seconds=0.01, label=None)
    judge.prepare(numbered(9), batch=True, poll_seconds=0.01, label=None)
    assert judge.store.counts() == {"valid": 9, "invalid": 0}


def test_a_batch_that_may_have_arrived_is_not_sent_twice(server, monkeypatch):
    judge = asking(provider(server, "anthropic"))
    sent = []

    def lost(requests):
        sent.append(requests)
        raise Transient("no answer in time", billed=True)

    monkeypatch.setattr(judge.provider, "submit", lost)
    most = judge.estimate(numbered(5), batch=True).most_dollars
    with pytest.raises(JudgeError, match="may have arrived all the same: look there"):
        judge.prepare(numbered(5), batch=True, label=None)
    assert len(sent) == 1 and judge.store.spent() == pytest.approx(most)


def test_batches_are_as_large_as_the_cap_has_room_for(server):
    judge = asking(provider(server, "anthropic"), max_dollars=0.3)
    judge.prepare(numbered(30), batch=True, poll_seconds=0.01, label=None)
    assert judge.store.counts() == {"valid": 30, "invalid": 0}
    assert server.state()["batches"] > 2 and judge.store.spent() <= 0.3


# Keys.


def everything_of(error):
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_key_is_nowhere(server, protocol, tmp_path, capsys, caplog):
    caplog.set_level("DEBUG")  # the SDKs' own loggers included
    wrong = SECRET + "-wrong"
    path = tmp_path / "verdicts.sqlite"
    judge = asking(provider(server, protocol, key=wrong), store=VerdictStore(path))
    with pytest.raises(JudgeError, match="cannot be used: status 401") as caught:
        judge.prepare(numbered(3))
    server.set(share=0.5, faults=FAULTS)
    good = asking(provider(server, protocol), store=VerdictStore(path), attempts=2)
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


def test_an_sdk_of_another_time_is_told_before_anything_is_asked(monkeypatch):
    """Colab has one: its HTTP client is not the one that our limits are made for."""
    monkeypatch.setattr("openai.DefaultHttpxClient", object)
    with pytest.raises(ImportError, match=r"openai [\d.]+ is older .* --upgrade openai, then"):
        OpenAIProvider("local", key=Key(SECRET, "x"), base_url="http://127.0.0.1:1/v1")


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
    monkeypatch.setattr("coursekit.evaluation.judges.keys.getpass", lambda prompt: SECRET)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert find_key("SOME_API_KEY").reveal() == SECRET


# The setting, the table.


def test_one_setting_chooses_the_judge(server, profile, monkeypatch, tmp_path, triples):
    here = replace(profile, artifacts=tmp_path)
    monkeypatch.delenv("COURSE_JUDGE", raising=False)
    assert isinstance(load_judge(TRIAGE, here), ProgramJudge)
    monkeypatch.setenv("COURSE_JUDGE", "openai:local")
    monkeypatch.setenv("COURSE_JUDGE_URL", f"{server.url}/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = load_judge(TRIAGE, here)
    assert judge.compare(triples[0], triples[0]["chosen"], "?") == "first"
    assert (tmp_path / "verdicts.sqlite").is_file()
    monkeypatch.setenv("COURSE_JUDGE", "anthropic")
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("COURSE_JUDGE_URL", server.url)
    assert load_judge(TRIAGE, here).name == "anthropic/claude-opus-5-5"
    assert load_judge(TRIAGE, here).max_dollars == 5
    assert load_judge(TRIAGE, here).provider.price == (
        4.0,
        20.0,
    )  # a proxy's bill is the provider's
    monkeypatch.setenv("COURSE_JUDGE", "openai:someone-elses")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("COURSE_JUDGE_URL")
    with pytest.raises(ValueError, match="price of someone-elses is not known here"):
        load_judge(TRIAGE, here)
    monkeypatch.setenv("COURSE_JUDGE_PRICE", "2.5,10")
    assert load_judge(TRIAGE, here).provider.price == (2.5, 10)
    monkeypatch.setenv("COURSE_JUDGE_PRICE", "cheap")
    with pytest.raises(ValueError, match="COURSE_JUDGE_PRICE is 'cheap'"):
        load_judge(TRIAGE, here)
    monkeypatch.setenv("COURSE_JUDGE", "oracle")
    monkeypatch.delenv("COURSE_JUDGE_PRICE")
    with pytest.raises(ValueError, match="COURSE_JUDGE is 'oracle'"):
        load_judge(TRIAGE, here)


@pytest.mark.parametrize(
    "url, free",
    [
        ("http://localhost:11434/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.7/v1", True),
        ("http://ollama:11434/v1", True),
        ("http://box.local/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://openrouter.ai/api/v1", False),
        ("https://8.8.8.8/v1", False),
    ],
)
def test_only_a_server_of_ones_own_costs_nothing(profile, monkeypatch, tmp_path, url, free):
    here = replace(profile, artifacts=tmp_path)
    monkeypatch.setenv("COURSE_JUDGE", "openai:some-model")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("COURSE_JUDGE_URL", url)
    monkeypatch.delenv("COURSE_JUDGE_PRICE", raising=False)
    if free:
        assert load_judge(TRIAGE, here).provider.price == (0, 0)
    else:
        with pytest.raises(ValueError, match=r"price of some-model is not known .*\(0,0 if it is"):
            load_judge(TRIAGE, here)
        monkeypatch.setenv("COURSE_JUDGE_PRICE", "0,0")
        assert load_judge(TRIAGE, here).provider.price == (0, 0)


@pytest.mark.parametrize(
    "name, values",
    [
        ("COURSE_JUDGE_DOLLARS", ["abc", "nan", "inf", "-1", "1,2", "5 dollars"]),
        ("COURSE_JUDGE_PRICE", ["cheap", "nan,1", "1,-1", "1", "1,2,3", "inf,inf"]),
        ("COURSE_JUDGE_URL", ["localhost:8000/v1", "/v1", "http://", "http://[::1/v1"]),
    ],
)
def test_a_setting_that_makes_no_sense_is_told(profile, monkeypatch, tmp_path, name, values):
    monkeypatch.setenv("COURSE_JUDGE", "anthropic")
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    for value in values:
        monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r}: wanted ")):
            load_judge(TRIAGE, replace(profile, artifacts=tmp_path))


def test_a_judge_beside_the_truth(server, triples):
    server.set(share=0.1, faults=["wrong schema"], seed=1)
    items = [(row, row["chosen"], row["rejected"]) for row in triples]
    judge = asking(provider(server, "openai"), asks=1)
    table = compare_judges(
        items,
        [judge, FlawedJudge(ProgramJudge(TRIAGE), "errs", error_rate=0.3)],
        ProgramJudge(TRIAGE),
    )
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
            "facts": row["facts"],
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
        for judge in (ProgramJudge(TRIAGE), asking(provider(server, "anthropic")))
    ]
    assert made[0] == made[1] and len(made[0]) == len(triples)


def test_questions_of_both_orders():
    row = {"prompt": "?"}
    assert pair_questions([(row, "a", "b"), (row, "c", "c")]) == [
        Question("pair", "?", ("a", "b")),
        Question("pair", "?", ("b", "a")),
    ]
