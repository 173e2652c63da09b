"""A judge that is a large language model: careful with money, secrets, and work already done."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from ..progress import progress
from .judge import Winner, identity_of
from .providers import Provider, Refused, Reply, Request, Transient, Unusable
from .questions import (
    InvalidAnswer,
    Question,
    answer_schema,
    build_prompt,
    parse_answer,
)
from .store import Verdict, VerdictStore
from .written_rubric import WrittenRubric, load_rubric

CHARACTERS_A_TOKEN = 3.5  # of English prose and JSON, cautiously
LONGEST_WAIT = 60.0  # seconds; a server that asks for more is asked again then


class JudgeError(RuntimeError):
    """The judge cannot be used at all: key, model, address, or the cost."""


@dataclass(frozen=True)
class Cost:
    """Before the first call: questions to be asked, tokens, and dollars (None: price unknown)."""

    questions: int
    input_tokens: int
    output_tokens: int
    dollars: float | None

    def __str__(self) -> str:
        tokens = f"{self.input_tokens:,} tokens in, about {self.output_tokens:,} out"
        price = "price unknown" if self.dollars is None else f"about ${self.dollars:,.2f}"
        return f"{self.questions:,} questions, {tokens}: {price}"


class LLMJudge:
    """Asks a provider's model, by a written rubric; every verdict is kept at once.

    What cannot be read is asked again (`asks` times in all), then kept as *invalid* with its cause:
    never as a tie, never as a win. Servers that are busy or down are asked again with growing
    pauses, `attempts` times, and as late as they say.

    Args:
        provider: who is asked. rubric: the course's own if none is given.
        store: where verdicts are kept; in memory if none is given.
        max_dollars: refuse to begin what is estimated above, and stop when it is spent.
        concurrency: questions under way at a time. requests_a_minute: at most.
        expected_output: tokens an answer, for the estimate (a thinking model's thoughts included).
        max_tokens: room for an answer.
    """

    def __init__(
        self,
        provider: Provider,
        rubric: WrittenRubric | None = None,
        store: VerdictStore | None = None,
        *,
        max_dollars: float | None = None,
        concurrency: int = 8,
        requests_a_minute: float | None = None,
        attempts: int = 6,
        asks: int = 2,
        expected_output: int = 200,
        max_tokens: int = 2000,
    ) -> None:
        self.provider, self.rubric = provider, rubric or load_rubric()
        self.store = store or VerdictStore()
        self.name = f"{provider.name}/{provider.model}"
        self.identity = identity_of(self.name, provider.identity, _wording(self.rubric))
        self.max_dollars, self.concurrency = max_dollars, concurrency
        self.attempts, self.asks = attempts, asks
        self.expected_output, self.max_tokens = expected_output, max_tokens
        self.spent = 0.0  # dollars, by this object
        self._limiter = _Limiter(requests_a_minute)
        self._lock = threading.Lock()
        self._stopped = threading.Event()  # Ctrl-C: threads that wait stop waiting

    # The protocol of every judge.

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        """The better of two responses, or `invalid`."""
        return self.ask(Question("pair", _text(row["prompt"]), (first, second))).value or "invalid"

    def announce(self, items: Iterable[tuple[Mapping[str, Any], str, str]]) -> None:
        """Print what comparing these in both orders costs at most; JudgeError above the cap."""
        cost = self.estimate(pair_questions(items))
        if cost.questions:
            print(f"{self.name}: at most {cost}")
        self._refuse_above_cap(cost)

    # What this one can do besides.

    def points(self, row: Mapping[str, Any], response: str) -> dict[str, float] | None:
        """Points by clause of the rubric, 0 to 1; None if the answer was invalid."""
        return self.ask(Question("score", _text(row["prompt"]), (response,))).value

    def rank(self, row: Mapping[str, Any], responses: Sequence[str]) -> list[int] | None:
        """Indices of the responses, best first; None if the answer was invalid."""
        order = self.ask(Question("rank", _text(row["prompt"]), tuple(responses))).value
        return [number - 1 for number in order] if order else None

    def ask(self, question: Question) -> Verdict:
        """The verdict on a question: the kept one, or a new one, which is kept."""
        request = self._request(question)
        return self.store.get(request.key) or self._ask_now(question, request)

    def estimate(self, questions: Iterable[Question]) -> Cost:
        """What the questions that have no verdict yet will cost."""
        requests = [self._request(question) for question in dict.fromkeys(questions)]
        missing = [request for request in requests if self.store.get(request.key) is None]
        given = sum(self._input_tokens(request) for request in missing)
        expected = self.expected_output * len(missing)
        return Cost(len(missing), given, expected, self._dollars(given, expected))

    def prepare(
        self,
        questions: Iterable[Question],
        *,
        batch: bool = False,
        poll_seconds: float = 30.0,
        label: str | None = "judging",
    ) -> Cost:
        """Get verdicts on many questions, as many at a time as the judge may; returns the estimate.

        Stopped and called again, it goes on where it was. With `batch`, through the provider's
        batch interface: half the price, within a day; what is under way is found again.

        Raises JudgeError before the first call if the estimate is above `max_dollars`, and where
        the provider cannot be used at all.
        """
        questions = list(dict.fromkeys(questions))
        cost = self.estimate(questions)
        if batch and cost.dollars is not None:
            cost = Cost(cost.questions, cost.input_tokens, cost.output_tokens, cost.dollars / 2)
        self._refuse_above_cap(cost)
        missing = [item for item in questions if self.store.get(self._request(item).key) is None]
        if batch:
            self._through_batch(missing, poll_seconds, label)
        elif missing:
            self._side_by_side(missing, label)
        return cost

    def _side_by_side(self, questions: Sequence[Question], label: str | None) -> None:
        waiting_list = iter(questions)
        pool = ThreadPoolExecutor(self.concurrency)
        under_way: set[Future] = set()
        try:
            with progress(label, len(questions), "questions") as advance:
                while True:
                    # Only as many as are asked at once: Ctrl-C waits for these, and no more.
                    while len(under_way) < self.concurrency:
                        question = next(waiting_list, None)
                        if question is None:
                            break
                        under_way.add(pool.submit(self.ask, question))
                    if not under_way:
                        return
                    done, under_way = wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    advance(len(done), f"(${self.spent:.2f} so far)")
        except BaseException:
            self._stopped.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self._stopped.clear()

    def _ask_now(self, question: Question, request: Request) -> Verdict:
        """Ask until there is an answer that can be read, or no more patience; keep the verdict."""
        given = returned = 0
        cause = ""
        for _ in range(self.asks):
            try:
                reply = self._patiently(request)
            except Refused as error:
                cause = str(error)
                break
            except Transient as error:
                cause = f"{error}, {self.attempts} times"
                break
            given, returned = given + reply.input_tokens, returned + reply.output_tokens
            verdict = self._read(question, reply)
            if verdict.valid:
                return self._keep(request, verdict, given, returned)
            cause = verdict.cause
            if reply.problem == "refused":
                break
        return self._keep(request, Verdict(None, cause=cause), given, returned)

    def _patiently(self, request: Request) -> Reply:
        """One reply, however often the server has to be asked. Raises Transient at the end."""
        for attempt in range(self.attempts):
            self._stop_when_spent()
            self._pause(self._limiter.turn())
            try:
                return self.provider.ask(request)
            except Unusable as error:
                raise JudgeError(f"{self.name} cannot be used: {error}") from None
            except Transient as error:
                if attempt + 1 == self.attempts:
                    raise
                if error.wait is not None:
                    # What one call was told holds for all: they share the server's limit.
                    self._limiter.pause(min(error.wait, LONGEST_WAIT))
                else:
                    self._pause(min(0.5 * 2**attempt, 30.0) * random.uniform(0.5, 1.0))
        raise AssertionError("attempts is at least 1")

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise JudgeError("stopped; what was answered is kept")

    def _read(self, question: Question, reply: Reply) -> Verdict:
        if reply.problem:
            return Verdict(None, cause=reply.problem)
        try:
            answer = parse_answer(reply.text, question, self.rubric)
        except InvalidAnswer as error:
            return Verdict(None, cause=str(error))
        return Verdict(answer.value, answer.reason)

    def _keep(
        self, request: Request, verdict: Verdict, given: int, returned: int, share: float = 1.0
    ) -> Verdict:
        dollars = share * (self._dollars(given, returned) or 0.0)
        kept = Verdict(verdict.value, verdict.reason, verdict.cause, given, returned, dollars)
        with self._lock:
            self.spent += dollars
        self.store.put(request.key, self.name, kept)
        return kept

    # Batches.

    def _through_batch(
        self, questions: Sequence[Question], poll_seconds: float, label: str | None
    ) -> None:
        by_key = {self._request(question).key: question for question in questions}
        under_way = self.store.open_batches(self.name)
        asked = {key for keys in under_way.values() for key in keys}
        new = [self._request(item) for key, item in by_key.items() if key not in asked]
        try:
            if new:
                name = self.provider.submit(new)
                self.store.add_batch(name, self.name, [request.key for request in new])
                under_way[name] = [request.key for request in new]
            with progress(label, len(by_key), "questions") as advance:
                for name, keys in under_way.items():
                    while (replies := self.provider.collect(name)) is None:
                        time.sleep(poll_seconds)
                        advance(0)
                    for key in keys:
                        if key in by_key:
                            self._keep_from_batch(by_key[key], replies.get(key, "no reply"))
                            advance()
                    self.store.close_batch(name)
        except Unusable as error:
            raise JudgeError(f"{self.name} cannot be used: {error}") from None

    def _keep_from_batch(self, question: Question, reply: Reply | str) -> None:
        request = self._request(question)
        if isinstance(reply, str):
            self._keep(request, Verdict(None, cause=reply), 0, 0)
        else:
            verdict = self._read(question, reply)
            self._keep(request, verdict, reply.input_tokens, reply.output_tokens, share=0.5)

    # Small matters.

    def _request(self, question: Question) -> Request:
        system, user = build_prompt(question, self.rubric)
        parts = json.dumps([self.identity, system, user, question.kind])
        key = hashlib.sha256(parts.encode()).hexdigest()[:32]
        schema = answer_schema(question, self.rubric)
        return Request(key, system, user, schema, self.max_tokens)

    def _input_tokens(self, request: Request) -> int:
        return round((len(request.system) + len(request.user)) / CHARACTERS_A_TOKEN)

    def _dollars(self, given: int, returned: int) -> float | None:
        if self.provider.price is None:
            return None
        a_million_in, a_million_out = self.provider.price
        return (given * a_million_in + returned * a_million_out) / 1e6

    def _refuse_above_cap(self, cost: Cost) -> None:
        if self.max_dollars is None:
            return
        if cost.dollars is None and cost.questions:
            raise JudgeError(
                f"the price of {self.name} is unknown, so max_dollars cannot be kept: give the "
                "provider price=(dollars a million tokens in, out)"
            )
        if cost.questions and self.spent + cost.dollars > self.max_dollars:
            raise JudgeError(
                f"{cost}, above the cap of ${self.max_dollars:,.2f}: nothing was asked. Ask less, "
                "take a cheaper model, use batch=True (half the price), or raise max_dollars"
            )

    def _stop_when_spent(self) -> None:
        if self.max_dollars is not None and self.spent >= self.max_dollars:
            raise JudgeError(
                f"${self.spent:,.2f} are spent, the cap is ${self.max_dollars:,.2f}: what was "
                "answered is kept; raise max_dollars to go on"
            )


class _Limiter:
    """Lets calls pass at an even pace, and none during a pause that the server asked for."""

    def __init__(self, a_minute: float | None) -> None:
        self._gap = 60.0 / a_minute if a_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def turn(self) -> float:
        """Seconds to wait for one's turn."""
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._gap
        return turn - time.monotonic()

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def pair_questions(items: Iterable[tuple[Mapping[str, Any], str, str]]) -> list[Question]:
    """Both orders of each (row, one response, another); equal texts need no question."""
    return [
        Question("pair", _text(row["prompt"]), order)
        for row, one, other in items
        if one != other
        for order in ((one, other), (other, one))
    ]


def _wording(rubric: WrittenRubric) -> list[Any]:
    """Whatever is asked beside the texts themselves, of every kind of question."""
    blank = [Question(kind, "", ("",)) for kind in ("pair", "score", "rank")]
    return [[build_prompt(item, rubric), answer_schema(item, rubric)] for item in blank]


def _text(prompt: Any) -> str:
    from ..logprobs import as_text

    return as_text(prompt)
