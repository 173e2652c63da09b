"""A judge that is a large language model: careful with money, secrets, and work already done."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...common.progress import progress
from ...tasks.rubric import Rubric
from .judge import Winner, identity_of
from .pacing import Limiter, as_they_come
from .providers import Provider, Refused, Reply, Request, Transient, Unusable, check_dollars
from .questions import InvalidAnswer, Question, answer_schema, build_prompt, parse_answer
from .store import KeptAnswer, VerdictStore

# Of English prose and JSON, for the likely cost: tokenisers of 2026 cut finer than older ones.
CHARACTERS_A_TOKEN = 2.5
# What providers wrap around a request, the schema in words included, at most.
WRAPPING_TOKENS = 1000
BATCH_SHARE = 0.5  # of the price, through a batch interface
LOOK_AGAIN = 0.2  # seconds, for the answer that another thread or process is waiting for
INVALID_IN_A_ROW = 20  # questions; more say that the judge cannot answer at all


Tokens = tuple[int, int]  # in, out


class JudgeError(RuntimeError):
    """The judge cannot be used at all: key, model, address, or the cost."""


@dataclass(frozen=True)
class Cost:
    """Before the first call: questions to be asked, likely tokens, and dollars (None: unknown).

    dollars: likely, every question answered at once and in few words. most_dollars: an upper bound,
    every question asked as often as the judge may, a token a byte, each answer as long as allowed.
    """

    questions: int
    input_tokens: int
    output_tokens: int
    dollars: float | None
    most_dollars: float | None

    def __str__(self) -> str:
        price = "price unknown"
        if self.dollars is not None:
            price = f"at most ${self.most_dollars:,.2f}, likely ${self.dollars:,.2f}"
        tokens = f"about {self.input_tokens:,} tokens in and {self.output_tokens:,} out"
        return f"{price}, for {self.questions:,} questions ({tokens})"


class LLMJudge:
    """Asks a provider's model, by a written rubric; every verdict is kept at once.

    What cannot be read is asked again (`asks` times in all), then kept as *invalid* with its cause:
    never as a tie, never as a win. Servers that are busy or down are asked again with growing
    pauses, `attempts` times, and as late as they say. A question is asked once, by whichever thread
    or process comes first; the others wait for its answer.

    Before a question is asked, the most that it can cost is set aside in the store. So what was
    spent through one store, by all its judges and ever, stays below `max_dollars`. Where a server
    does not say what a reply cost, or says nonsense, its most is counted.

    Args:
        provider: who is asked. rubric: by what.
        store: where verdicts and payments are kept; in memory if none is given.
        max_dollars: refuse to begin what likely costs more, and stop before it is exceeded.
        concurrency: questions under way at a time. requests_a_minute: at most.
        expected_output: tokens an answer, for the estimate (a thinking model's thoughts included).
        max_tokens: room for an answer.

    Raises ValueError for a cap that is no amount of money, and for counts below one.
    """

    def __init__(
        self,
        provider: Provider,
        rubric: Rubric,
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
        counts = dict(concurrency=concurrency, attempts=attempts, asks=asks, max_tokens=max_tokens)
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}: wanted 1 or more")
        if max_dollars is not None:
            check_dollars("max_dollars", max_dollars)
        self.provider, self.rubric = provider, rubric
        self.store = store or VerdictStore()
        self.name = f"{provider.name}/{provider.model}"
        self.identity = identity_of(self.name, provider.identity, _wording(self.rubric))
        self.max_dollars, self.concurrency = max_dollars, concurrency
        self.attempts, self.asks = attempts, asks
        self.expected_output, self.max_tokens = expected_output, max_tokens
        self.spent = 0.0  # dollars, by this object
        self._limiter = Limiter(requests_a_minute)
        self._lock = threading.Lock()
        self._invalid_in_a_row = 0
        self._stopped = threading.Event()  # Ctrl-C: threads that wait stop waiting

    # The protocol of every judge.

    def compare(self, row: Mapping[str, Any], first: str, second: str) -> Winner:
        """The better of two responses, or `invalid`."""
        return self.ask(Question("pair", _text(row["prompt"]), (first, second))).value or "invalid"

    def announce(self, items: Iterable[tuple[Mapping[str, Any], str, str]]) -> None:
        """Print what comparing these in both orders may cost; JudgeError above the cap."""
        cost = self.estimate(pair_questions(items))
        if cost.questions:
            print(f"{self.name}: {cost}")
        self._refuse_above_cap(cost)

    # What this one can do besides.

    def points(self, row: Mapping[str, Any], response: str) -> dict[str, float] | None:
        """Points by clause of the rubric, 0 to 1; None if the answer was invalid."""
        return self.ask(Question("score", _text(row["prompt"]), (response,))).value

    def rank(self, row: Mapping[str, Any], responses: Sequence[str]) -> list[int] | None:
        """Indices of the responses, best first; None if the answer was invalid."""
        order = self.ask(Question("rank", _text(row["prompt"]), tuple(responses))).value
        return [number - 1 for number in order] if order else None

    def ask(self, question: Question) -> KeptAnswer:
        """The verdict on a question: the kept one, or a new one, which is kept.

        Raises JudgeError where the provider cannot be used, the cap is reached, or everything that
        it answers is invalid.
        """
        request = self._request(question)
        while (kept := self.store.get(request.key)) is None:
            if self._claim(request, self._most_dollars(request)):
                return self._ask_now(question, request)
            if batch := self.store.batch_of(request.key):
                raise JudgeError(
                    f"this question is under way in the batch {batch}: collect it with "
                    "judge.prepare(questions, batch=True)"
                )
            self._pause(LOOK_AGAIN)
        return kept

    def estimate(self, questions: Iterable[Question], *, batch: bool = False) -> Cost:
        """What the questions that have no verdict yet, and are in no batch, will cost."""
        under_way = {key for forms in self._open_batches().values() for key in forms}
        requests = [self._request(question) for question in dict.fromkeys(questions)]
        missing = [
            request
            for request in requests
            if request.key not in under_way and self.store.get(request.key) is None
        ]
        given = sum(self._likely_input(request) for request in missing)
        expected = self.expected_output * len(missing)
        likely = most = None
        if self.provider.price is not None:
            likely = self._dollars(given, expected) * (BATCH_SHARE if batch else 1)
            most = sum(self._most_dollars(request, batch) for request in missing)
        return Cost(len(missing), given, expected, likely, most)

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
        batch interface: half the price, within a day; what is under way is found again, what came
        back without an answer (expired, cancelled, failed) is sent again, `asks` times in all.

        Raises JudgeError before the first call if the likely cost is above what `max_dollars`
        leaves, and later as `ask` does. What was answered by then is kept.
        """
        questions = list(dict.fromkeys(questions))
        cost = self.estimate(questions, batch=batch)
        self._refuse_above_cap(cost)
        missing = [item for item in questions if self.store.get(self._request(item).key) is None]
        if batch:
            self._through_batches(missing, poll_seconds, label)
        elif missing:
            self._side_by_side(missing, label)
        return cost

    def _side_by_side(self, questions: Sequence[Question], label: str | None) -> None:
        with progress(label, len(questions), "questions") as advance:
            for answered in as_they_come(self.ask, questions, self.concurrency, self._stopped):
                advance(len(answered), f"(${self.spent:.2f} so far)")

    def _ask_now(self, question: Question, request: Request) -> KeptAnswer:
        """Ask a question that was claimed, and keep the verdict."""
        paid: list[Tokens] = []
        try:
            verdict = self._answer(question, request, paid)
        except BaseException:
            self._give_up(request, self._dollars(*_sum(paid)))
            raise
        verdict = self._priced(verdict, _sum(paid))
        self.store.put(request.key, self.identity, verdict)
        self._count(verdict.dollars)
        self._stop_when_all_is_invalid(verdict)
        return verdict

    def _answer(self, question: Question, request: Request, paid: list[Tokens]) -> KeptAnswer:
        """Ask until there is an answer that can be read, or no more patience.

        paid: tokens in and out of each request that may be charged, added to as they are sent: at
        their most, until the server says what it was.
        """
        failed, wait, cause = 0, 0.0, ""
        while len(paid) < self.asks and failed < self.attempts:
            self._pause(wait)
            self._pause(self._limiter.turn())
            paid.append(self._most_tokens(request))
            try:
                reply = self.provider.ask(request)
            except Unusable as error:
                paid.pop()
                raise JudgeError(f"{self.name} cannot be used: {error}") from None
            except Refused as error:
                paid.pop()
                return KeptAnswer(None, cause=str(error))
            except Transient as error:
                if not error.billed:
                    paid.pop()
                    failed += 1
                times = failed + len(paid)
                wait = self._limiter.backoff(error, times)
                cause = f"{error}, {times} times" if times > 1 else str(error)
                continue
            paid[-1] = _counted(reply, paid[-1])
            verdict = self._read(question, reply)
            if verdict.valid or reply.problem == "refused":
                return verdict
            wait, cause = 0.0, verdict.cause
        return KeptAnswer(None, cause=cause)

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise JudgeError("stopped; what was answered is kept")

    def _read(self, question: Question, reply: Reply) -> KeptAnswer:
        if reply.problem:
            return KeptAnswer(None, cause=reply.problem)
        try:
            answer = parse_answer(reply.text, question, self.rubric)
        except InvalidAnswer as error:
            return KeptAnswer(None, cause=str(error))
        return KeptAnswer(answer.value, answer.reason)

    def _stop_when_all_is_invalid(self, verdict: KeptAnswer) -> None:
        with self._lock:
            self._invalid_in_a_row = 0 if verdict.valid else self._invalid_in_a_row + 1
            if self._invalid_in_a_row < INVALID_IN_A_ROW:
                return
            self._invalid_in_a_row = 0
        raise JudgeError(
            f"the last {INVALID_IN_A_ROW} questions have no valid answer (the last one: "
            f"{verdict.cause}), so no more are asked. Look whether {self.name} can answer in JSON, "
            "and whether max_tokens leaves it room; then judge.store.forget_invalid(), and call "
            "again"
        )

    # Money.

    def _claim(self, request: Request, dollars: float) -> bool:
        """Claim a question; False while somebody asks it, or what others ask may take the rest.

        Raises JudgeError where it could cost more than is left.
        """
        self._refuse_unknown_price()
        found = self.store.claim(request.key, dollars, self.max_dollars)
        if found == "spent":
            raise JudgeError(
                f"${self.store.spent():,.2f} are spent, the cap is ${self.max_dollars:,.2f}: what "
                f"was answered is kept. The next question may cost up to ${dollars:,.2f}; raise "
                "max_dollars (COURSE_JUDGE_DOLLARS), which is for all that this store ever spends, "
                "to go on"
            )
        return found == "claimed"

    def _give_up(self, request: Request, dollars: float) -> None:
        self.store.release(request.key, self.identity, dollars)
        self._count(dollars)

    def _count(self, dollars: float) -> None:
        with self._lock:
            self.spent += dollars

    def _priced(self, verdict: KeptAnswer, tokens: Tokens, share: float = 1.0) -> KeptAnswer:
        return KeptAnswer(
            *(verdict.value, verdict.reason, verdict.cause, *tokens),
            dollars=share * self._dollars(*tokens),
        )

    def _dollars(self, given: int, returned: int) -> float:
        """What tokens cost; 0 where the price is unknown: only a judge without a cap asks then."""
        a_million_in, a_million_out = self.provider.price or (0.0, 0.0)
        return (given * a_million_in + returned * a_million_out) / 1e6

    def _likely_input(self, request: Request) -> int:
        return round((len(request.system) + len(request.user)) / CHARACTERS_A_TOKEN)

    def _most_tokens(self, request: Request) -> Tokens:
        """An upper bound of the tokens in and out of one request: no token is less than a byte."""
        sent = request.system + request.user + json.dumps(request.schema)
        return len(sent.encode("utf-8", "replace")) + WRAPPING_TOKENS, request.max_tokens

    def _most_dollars(self, request: Request, batch: bool = False) -> float:
        """An upper bound of what a question costs; in a batch it is asked once, at half price."""
        one = self._dollars(*self._most_tokens(request))
        return one * (BATCH_SHARE if batch else self.asks)

    def _refuse_unknown_price(self) -> None:
        if self.max_dollars is not None and self.provider.price is None:
            raise JudgeError(
                f"the price of {self.name} is unknown, so max_dollars cannot be kept: give the "
                "provider price=(dollars a million tokens in, out)"
            )

    def _refuse_above_cap(self, cost: Cost) -> None:
        if self.max_dollars is None or not cost.questions:
            return
        self._refuse_unknown_price()
        spent = self.store.spent()
        if cost.dollars and spent + cost.dollars > self.max_dollars:
            raise JudgeError(
                f"{cost}: with ${spent:,.2f} spent through this store before, that is likely above "
                f"the cap of ${self.max_dollars:,.2f}: nothing was asked. Ask less, take a cheaper "
                "model, use batch=True (half the price), or raise max_dollars "
                "(COURSE_JUDGE_DOLLARS)"
            )

    # Batches.

    def _open_batches(self) -> dict[str, dict[str, Any]]:
        return self.store.open_batches(self.identity)

    def _through_batches(
        self, questions: Sequence[Question], poll_seconds: float, label: str | None
    ) -> None:
        """Collect what is under way, send what is lacking, until all is answered."""
        by_key = {self._request(question).key: question for question in questions}
        failures: dict[str, list[str]] = {key: [] for key in by_key}
        with progress(label, len(by_key), "questions") as advance:
            while True:
                for name, forms in self._open_batches().items():
                    for key, cause in self._collect(name, forms, poll_seconds, advance).items():
                        failures.setdefault(key, []).append(cause)
                lacking = [key for key in by_key if self.store.get(key) is None]
                again = [key for key in lacking if len(failures[key]) < self.asks]
                if not again:
                    break
                if not self._submit([by_key[key] for key in again]):
                    self._pause(poll_seconds)  # somebody else asks these right now
        if lacking:
            causes = ", ".join(sorted({cause for key in lacking for cause in failures[key]}))
            raise JudgeError(
                f"{len(lacking)} of {len(by_key)} questions came back without an answer "
                f"{self.asks} times ({causes}). The others are kept; call again, or without batch"
            )

    def _submit(self, questions: Sequence[Question]) -> bool:
        """Send as many questions as the cap has room for in one batch; False if others ask them."""
        claimed: list[tuple[Request, Question]] = []
        sent = False
        try:
            self._claim_for_batch(questions, claimed)
            if not claimed:
                return False
            requests = [request for request, _ in claimed]
            sent = True
            name = self._patiently(lambda: self.provider.submit(requests), twice=False)
        except BaseException as error:
            charged = sent and getattr(error, "billed", not isinstance(error, JudgeError))
            for request, _ in claimed:
                self._give_up(request, self._most_dollars(request, batch=True) if charged else 0)
            if isinstance(error, Transient):
                doubt = "It may have arrived all the same: look there. " if charged else ""
                raise JudgeError(
                    f"{self.name} did not take a batch: {error}. {doubt}What was answered is kept; "
                    "call again later"
                ) from None
            raise
        forms = {
            request.key: [item.kind, len(item.responses), *self._most_tokens(request)]
            for request, item in claimed
        }
        self.store.add_batch(name, self.identity, forms)
        return True

    def _claim_for_batch(
        self, questions: Sequence[Question], claimed: list[tuple[Request, Question]]
    ) -> None:
        """Claim what nobody else asks, as much as the cap has room for, and add it to `claimed`.

        The rest goes into another batch, when this one has its bill. JudgeError if that is all.
        """
        for question in questions:
            request = self._request(question)
            try:
                if self._claim(request, self._most_dollars(request, batch=True)):
                    claimed.append((request, question))
            except JudgeError:
                if not claimed:
                    raise
                return

    def _collect(
        self, name: str, forms: dict[str, Any], poll_seconds: float, advance: Any
    ) -> dict[str, str]:
        """Wait for a batch and keep its verdicts; returns by key why others are lacking."""
        try:
            while (replies := self._patiently(lambda: self.provider.collect(name))) is None:
                self._pause(poll_seconds)
                advance(0)
        except (Transient, JudgeError) as error:
            raise JudgeError(
                f"the batch {name} cannot be collected: {error}. Its answers are kept there; call "
                f"again. If it is gone for good, judge.store.finish_batch({name!r}, "
                "judge.identity, {}) drops it, and its questions are asked anew"
            ) from None
        verdicts, lacking = {}, {}
        for key, (kind, responses, *most) in forms.items():
            reply = replies.get(key, Transient("the batch came back without it"))
            if isinstance(reply, Transient):
                lacking[key] = str(reply)
            elif isinstance(reply, Refused):
                verdicts[key] = KeptAnswer(None, cause=str(reply))
            else:
                # What was asked is not needed to read an answer, only its form is.
                verdict = self._read(Question(kind, "", ("",) * responses), reply)
                tokens = _counted(reply, tuple(most))
                verdicts[key] = self._priced(verdict, tokens, BATCH_SHARE)
        if self.store.finish_batch(name, self.identity, verdicts):
            self._count(sum(verdict.dollars for verdict in verdicts.values()))
        advance(len(verdicts))
        return lacking

    def _patiently(self, call: Callable[[], Any], twice: bool = True) -> Any:
        """`call()`, again while the server is busy or down; Transient at the end.

        twice: what may have been done is done again.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return call()
            except (Unusable, Refused) as error:
                raise JudgeError(f"{self.name} cannot be used: {error}") from None
            except Transient as error:
                if attempt == self.attempts or (error.billed and not twice):
                    raise
                self._pause(self._limiter.backoff(error, attempt))
                self._pause(self._limiter.turn())
        raise AssertionError("attempts is at least 1")

    def _request(self, question: Question) -> Request:
        system, user = build_prompt(question, self.rubric)
        key = verdict_key(self.identity, question.kind, system, user)
        schema = answer_schema(question, self.rubric)
        return Request(key, system, user, schema, self.max_tokens)


def verdict_key(identity: str, kind: str, system: str, user: str) -> str:
    """Under what the store keeps the verdict of the judge `identity` on what it was asked so."""
    parts = json.dumps([identity, system, user, kind])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _counted(reply: Reply, most: Tokens) -> Tokens:
    """Tokens in and out as the server says, or the most that they can be where that is no count."""
    least = (1, 1 if reply.text else 0)
    said = (reply.input_tokens, reply.output_tokens)
    given, returned = (
        count if type(count) is int and low <= count <= high else high
        for count, low, high in zip(said, least, most, strict=True)
    )
    return given, returned


def _sum(paid: Sequence[Tokens]) -> Tokens:
    return sum(given for given, _ in paid), sum(returned for _, returned in paid)


def pair_questions(items: Iterable[tuple[Mapping[str, Any], str, str]]) -> list[Question]:
    """Both orders of each (row, one response, another); equal texts need no question."""
    return [
        Question("pair", _text(row["prompt"]), order)
        for row, one, other in items
        if one != other
        for order in ((one, other), (other, one))
    ]


def _wording(rubric: Rubric) -> list[Any]:
    """Whatever is asked beside the texts themselves, of every kind of question."""
    blank = [Question(kind, "", ("",)) for kind in ("pair", "score", "rank")]
    return [[build_prompt(item, rubric), answer_schema(item, rubric)] for item in blank]


def _text(prompt: Any) -> str:
    from ...common.prompts import as_text

    return as_text(prompt)
