"""A server on loopback that speaks both providers' protocols and misbehaves on order.

`python tests/judge_server.py` prints its port. It judges by the rubric program where it knows the
alert, and prefers the longer response elsewhere. `POST /control` sets how it behaves (see
`Server`), `GET /control` tells what it was asked.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import random
import re
import select
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "429 with retry-after",
    "429 without",
    "500",
    "529",
    "timeout",
    "cut connection",
    "malformed JSON",
    "truncated JSON",
    "wrong schema",
    "refusal",
    "empty content",
    "whitespace",
)
INPUT_TOKENS_A_CHARACTER, OUTPUT_TOKENS = 1 / 2.5, 200


class Server(ThreadingHTTPServer):
    """How it behaves, by `settings`:

    share: of requests that go wrong; faults: in which ways, by chance; only_first: a question goes
    wrong only when it is asked for the first time. delay: seconds an answer takes. gather: no
    answer before so many requests are under way (or half a minute has passed). stop_after: so many
    answers it gives, then none. answer: what it says to everything. usage: what it says of tokens,
    in place of the truth. padding: megabytes of spaces in a reply. batch: what becomes of every
    request in a batch, in place of every tenth failing. refuse_batches: how many it turns away
    with status 500.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.gathered = threading.Condition(self.lock)
        self.settings = {
            "share": 0.0,
            "faults": list(FAULTS),
            "delay": 0.0,
            "gather": 0,
            "only_first": False,
            "answer": None,
            "usage": "true",
            "padding": 0,
            "stop_after": None,
            "batch": None,
            "refuse_batches": 0,
            "seed": 0,
        }
        self.asked: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        self.keys: set[str] = set()
        self.under_way = self.most_under_way = self.bytes_sent = 0
        self.batches: dict[str, list] = {}
        self.files: dict[str, bytes] = {}
        self.polls: dict[str, int] = {}
        self.truth = None

    def fault_of(self, question: str, time_asked: int) -> str | None:
        settings = self.settings
        if settings["only_first"] and time_asked > 1:
            return None
        rng = random.Random(f"{question}/{time_asked}/{settings['seed']}")
        return rng.choice(settings["faults"]) if rng.random() < settings["share"] else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/control":
            state = self.server
            self.reply(
                200,
                {
                    "asked": state.asked,
                    "answered": state.answered,
                    "keys": sorted(state.keys),
                    "most": state.most_under_way,
                    "batches": len(state.batches),
                    "bytes": state.bytes_sent,
                },
            )
        elif match := re.fullmatch(r"(?:/v1)?/messages/batches/([^/]+)(/results)?", path):
            self.anthropic_batch(match[1], bool(match[2]))
        elif match := re.fullmatch(r"(?:/v1)?/batches/([^/]+)", path):
            self.openai_batch(match[1])
        elif match := re.fullmatch(r"(?:/v1)?/files/([^/]+)/content", path):
            self.raw(200, self.server.files[match[1]], "application/octet-stream")
        else:
            self.reply(404, {"error": {"message": f"no {path}"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/control":
            unknown = set(new := json.loads(body)) - set(self.server.settings)
            assert not unknown, unknown
            self.server.settings |= new
            return self.reply(200, {})
        key = self.headers.get("x-api-key") or self.headers.get("authorization", "")
        with self.server.lock:
            self.server.keys.add(key.removeprefix("Bearer "))
        if "wrong" in key:
            return self.reply(
                401, {"error": {"type": "authentication_error", "message": f"invalid key: {key}"}}
            )
        path = self.path.removeprefix("/v1")
        if path in ("/messages/batches", "/batches") and self.server.settings["refuse_batches"]:
            self.server.settings["refuse_batches"] -= 1
            return self.reply(500, {"error": {"type": "api_error", "message": "not now"}})
        if path == "/messages":
            self.one(json.loads(body), "anthropic")
        elif path == "/chat/completions":
            self.one(json.loads(body), "openai")
        elif path == "/messages/batches":
            name = f"msgbatch_{len(self.server.batches)}"
            self.server.batches[name] = json.loads(body)["requests"]
            self.reply(200, batch_object(name, "in_progress"))
        elif path == "/files":
            name = f"file-{len(self.server.files)}"
            start = body.index(b'{"custom_id"')
            self.server.files[name] = body[start : body.rindex(b"\n--")].strip()
            self.reply(
                200,
                {
                    "id": name,
                    "object": "file",
                    "bytes": 1,
                    "created_at": 1,
                    "filename": "judge.jsonl",
                    "purpose": "batch",
                    "status": "processed",
                },
            )
        elif path == "/batches":
            name = f"batch_{len(self.server.batches)}"
            lines = self.server.files[json.loads(body)["input_file_id"]].decode().splitlines()
            self.server.batches[name] = [json.loads(line) for line in lines if line.strip()]
            self.reply(200, openai_batch_object(name, "validating"))
        else:
            self.reply(404, {"error": {"message": f"no {path}"}})

    def one(self, body: dict, protocol: str) -> None:
        state = self.server
        user = body["messages"][-1]["content"]
        system = body.get("system") or body["messages"][0]["content"]
        question = hashlib.sha256(user.encode()).hexdigest()[:16]
        with state.lock:
            state.asked[question] = state.asked.get(question, 0) + 1
            time_asked = state.asked[question]
            state.under_way += 1
            state.most_under_way = max(state.most_under_way, state.under_way)
            state.gathered.notify_all()
            state.gathered.wait_for(
                lambda: state.most_under_way >= state.settings["gather"], timeout=30
            )
        try:
            time.sleep(state.settings["delay"])
            fault = state.fault_of(question, time_asked)
            stop = state.settings["stop_after"]
            if stop is not None and sum(state.answered.values()) >= stop:
                fault = "timeout"
            if (fault or "").startswith(("timeout", "cut connection", "drip", "429", "5")):
                return self.fail(fault)
            text, stop = answer_to(user, state), ""
            if fault == "truncated JSON":
                text, stop = text[: len(text) // 2], "cut"
            elif fault == "wrong schema":
                text = json.dumps({"verdict": "first"})
            elif fault == "refusal":
                text, stop = "I would rather not.", "refused"
            elif fault == "empty content":
                text = ""
            elif fault == "whitespace":
                text = " \n" * 50_000
            said = json.dumps(message(body, protocol, system + user, text, stop, state))
            said = said.encode() + b" " * int(state.settings["padding"] * 2**20)
            if fault == "malformed JSON":
                self.raw(200, b'{"id": "x", "content": [', "application/json")
            elif fault == "gzip":
                packed = {"content-encoding": "gzip"}
                self.raw(200, gzip.compress(said, 1), "application/json", packed)
            else:
                self.raw(200, said, "application/json")
            if fault is None:
                with state.lock:
                    state.answered[question] = state.answered.get(question, 0) + 1
        finally:
            with state.lock:
                state.under_way -= 1

    def fail(self, fault: str) -> None:
        if fault == "timeout":
            select.select([self.connection], [], [], 60)  # until who asked has hung up
            self.close_connection = True
            return
        if fault.startswith("drip"):
            # A byte every tenth of a second: no single read takes long.
            start = b"HTTP/1.1 200 OK\r\n"
            if fault == "drip in the body":
                start += b"content-length: 400\r\n\r\n"
            self.connection.sendall(start)
            with contextlib.suppress(OSError):
                for _ in range(80):
                    time.sleep(0.1)
                    self.connection.sendall(b"x")
            self.close_connection = True
            return
        if fault == "cut connection":
            # A reset, in the middle of the reply.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{")
            self.connection.close()
            self.close_connection = True
            return
        status = int(fault.split()[0])
        headers = {"retry-after": "0.2"} if fault == "429 with retry-after" else {}
        self.reply(status, {"error": {"type": "overloaded_error", "message": fault}}, headers)

    def anthropic_batch(self, name: str, results: bool) -> None:
        if not results:
            self.server.polls[name] = self.server.polls.get(name, 0) + 1
            ended = self.server.polls[name] > 2
            return self.reply(
                200,
                batch_object(
                    name, "ended" if ended else "in_progress", f"http://{self.headers['host']}"
                ),
            )
        lines = []
        for number, request in enumerate(self.server.batches[name]):
            body = request["params"]
            text = answer_to(body["messages"][-1]["content"], self.server)
            said = message(
                body,
                "anthropic",
                body["system"] + body["messages"][-1]["content"],
                text,
                "",
                self.server,
            )
            result = {"type": "succeeded", "message": said}
            fate = self.server.settings["batch"] or ("expired" if number % 10 == 9 else None)
            if fate:
                result = {"type": fate}
            lines.append(json.dumps({"custom_id": request["custom_id"], "result": result}))
        self.raw(200, "\n".join(lines).encode(), "application/x-jsonl")

    def openai_batch(self, name: str) -> None:
        self.server.polls[name] = self.server.polls.get(name, 0) + 1
        if self.server.polls[name] <= 2:
            return self.reply(200, openai_batch_object(name, "in_progress"))
        lines = []
        for number, request in enumerate(self.server.batches[name]):
            body = request["body"]
            user = body["messages"][-1]["content"]
            text = answer_to(user, self.server)
            system = body["messages"][0]["content"]
            said = message(body, "openai", system + user, text, "", self.server)
            failed = self.server.settings["batch"] or number % 10 == 9
            response = {"status_code": 500 if failed else 200, "body": said}
            lines.append(json.dumps({"custom_id": request["custom_id"], "response": response}))
        self.server.files[f"{name}-out"] = "\n".join(lines).encode()
        self.reply(200, openai_batch_object(name, "completed", f"{name}-out"))

    def reply(self, status: int, body: dict, headers: dict | None = None) -> None:
        self.raw(status, json.dumps(body).encode(), "application/json", headers)

    def raw(self, status: int, body: bytes, kind: str, headers: dict | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {
                "content-type": kind,
                "content-length": str(len(body)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            for start in range(0, len(body), 2**16):
                self.wfile.write(body[start : start + 2**16])
                self.server.bytes_sent += min(2**16, len(body) - start)
        except OSError:  # who asked has gone
            self.close_connection = True


def answer_to(user: str, state: Server) -> str:
    """The judge's JSON for one question, in the form that it asks for."""
    if state.settings["answer"] is not None:
        return state.settings["answer"]
    fenced = re.findall(r'<(prompt|response number="\d+")>(.*?)</', user)
    prompt, *texts = (json.loads(text) for _, text in fenced)
    scores = [score_of(prompt, text, state) for text in texts]
    if "Order the responses" in user:
        order = sorted(range(len(texts)), key=lambda i: -scores[i].overall)
        return json.dumps({"reason": "ordered", "order": [i + 1 for i in order]})
    if "Give the response points" in user:
        points = {
            name: getattr(scores[0], name)
            for name in ("format", "severity", "faithfulness", "usefulness")
        }
        return json.dumps({"reason": "pointwise", "points": points})
    first, second = (score.overall for score in scores)
    winner = "first" if first > second else "second" if second > first else "tie"
    return json.dumps({"reason": f"{first:.2f} to {second:.2f}", "winner": winner})


def score_of(prompt: str, text: str, state: Server):
    from coursekit.tasks.triage import score_report
    from coursekit.tasks.triage.scoring import Scores

    with state.lock:
        if state.truth is None:
            from coursekit.tasks.triage import build_prompt, sample_alerts
            from coursekit.tasks.triage.alerts import FRESH

            pools = {"preferences": 0, "validation": 0, "evaluation": FRESH}
            state.truth = {
                build_prompt(alert): alert
                for pool, seed in pools.items()
                for alert in sample_alerts(pool, 400, seed)
            }
    alert = state.truth.get(prompt)
    return score_report(alert, text) if alert else Scores(*[min(1, len(text) / 1000)] * 4)


def message(body: dict, protocol: str, given: str, text: str, stop: str, state: Server) -> dict:
    tokens = round(len(given) * INPUT_TOKENS_A_CHARACTER)
    usage = {"input": tokens, "output": OUTPUT_TOKENS}
    if state.settings["usage"] != "true":
        usage = state.settings["usage"]
    if protocol == "anthropic":
        reason = {"cut": "max_tokens", "refused": "refusal"}.get(stop, "end_turn")
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage and {f"{name}_tokens": count for name, count in usage.items()},
        }
    reason = {"cut": "length", "refused": "content_filter"}.get(stop, "stop")
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
        ],
        "usage": usage
        and {
            {"input": "prompt_tokens", "output": "completion_tokens"}[name]: count
            for name, count in usage.items()
        },
    }


def batch_object(name: str, status: str, host: str = "") -> dict:
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    return {
        "id": name,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": counts,
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z",
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"{host}/v1/messages/batches/{name}/results" if status == "ended" else None,
    }


def openai_batch_object(name: str, status: str, output: str | None = None) -> dict:
    return {
        "id": name,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "status": status,
        "input_file_id": "file-0",
        "completion_window": "24h",
        "created_at": 1,
        "output_file_id": output,
    }


if __name__ == "__main__":
    server = Server()
    print(server.server_address[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever(poll_interval=0.1)
