"""A stand-in for `vllm serve` on loopback: OpenAI's completions by our own generation, or worse."""

from __future__ import annotations

import copy
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """In a thread of this process, while it is entered with `with`.

    write: a request's body to its texts, each with a finish reason. serves: what `/v1/models` says
    of each model, by name. before: called with the number of each request, from 1; returns the
    fault that it is answered with, or None. gather: no answer before so many are in flight.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, write: Callable[[dict], list[tuple[str, str]]], **serves: dict) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.write, self.serves = write, serves or {"SFT": {"root": "/models/sft"}}
        self.before: Callable[[int], str | None] = lambda number: None
        self.tokens: Callable[[str], int | None] = lambda prompt: None
        self.gather = 0
        self.bodies: list[dict] = []
        self.answered: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.in_flight = self.most_in_flight = 0
        self.changed, self.released = threading.Condition(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Server:
        # A short poll: to end it is waited for that long.
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        cards = [
            # As vLLM has it: a new date, and new permissions, with every reply.
            {"id": name, "object": "model", "created": time.time_ns(), "owned_by": "vllm"}
            | {"permission": [{"id": f"modelperm-{time.time_ns()}"}], **card}
            for name, card in self.server.serves.items()
        ]
        self.reply(200, {"object": "list", "data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        state, key = self.server, self.headers.get("authorization", "").removeprefix("Bearer ")
        with state.changed:
            state.keys.add(key)
            state.bodies.append(body)
            number = len(state.bodies)
            state.in_flight += 1
            state.most_in_flight = max(state.most_in_flight, state.in_flight)
            state.changed.notify_all()
            state.changed.wait_for(lambda: state.most_in_flight >= state.gather, timeout=20)
        try:
            if fault := state.before(number):
                return self.fail(fault, key)
            if body["model"] not in state.serves:
                return self.reply(404, {"error": {"message": f"no model {body['model']}"}})
            self.reply(200, completion(body, state.write(body), state.tokens(body["prompt"])))
            with state.changed:
                state.answered[body["prompt"]] += 1
        finally:
            with state.changed:
                state.in_flight -= 1

    def fail(self, fault: str, key: str) -> None:
        said = {"error": {"message": f"{fault}, with the key {key}"}}
        if fault == "cut":  # a reset, in the middle of the reply
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{")
            self.connection.close()
            self.close_connection = True
        elif fault == "hang":
            self.server.released.wait(20)
            self.close_connection = True
        elif fault == "garbage":
            self.raw(200, b"<html>busy</html>")
        elif fault == "no choices":
            self.reply(200, {"id": "x", "object": "text_completion", "choices": []})
        elif fault == "aborted":
            self.reply(200, completion({"model": "x"}, [("half of", "abort")], None))
        else:
            wait = {"retry-after": "0.05"} if fault == "429" else {}
            self.reply(int(fault), said, wait)

    def reply(self, status: int, body: dict, headers: dict | None = None) -> None:
        self.raw(status, json.dumps(body).encode(), headers)

    def raw(self, status: int, body: bytes, headers: dict | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # who asked has gone
            self.close_connection = True


def completion(body: dict, texts: list[tuple[str, str]], tokens: int | None) -> dict:
    """A reply of OpenAI's completions."""
    choices = [
        {"index": index, "text": text, "finish_reason": reason, "logprobs": None}
        for index, (text, reason) in enumerate(texts)
    ]
    usage = tokens and {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return {
        **{"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]},
        **{"choices": choices[::-1], "usage": usage},  # in another order: the index tells
    }


def echo(body: dict) -> list[tuple[str, str]]:
    """Texts that follow from what was asked, at no cost."""
    return [
        (f"{body['prompt'][-40:]} / {body['temperature']} / {body['seed'] + i}", "stop")
        for i in range(body["n"])
    ]


class Model:
    """A loaded model behind the server: `write` is what it generates, by our own generation."""

    def __init__(self, model, tokenizer) -> None:
        self.model, self.lock = model, threading.Lock()
        self.plain, self.as_it_is = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
        self.plain.chat_template = None
        # The prompt is the text that was sent, and nothing is put before or after it.
        self.as_it_is.chat_template = "{{ messages[0]['content'] }}"

    def write(self, body: dict) -> list[tuple[str, str]]:
        from coursekit.lm.generation import generate_ids

        tokenizer = self.plain if body["add_special_tokens"] else self.as_it_is
        with self.lock:
            rows = generate_ids(
                self.model,
                tokenizer,
                [body["prompt"]] * body["n"],
                max_new_tokens=body["max_tokens"],
                temperature=body["temperature"],
                seed=[body["seed"] + i for i in range(body["n"])],
                label=None,
            )
        (end,) = body["stop_token_ids"]
        return [
            (tokenizer.decode(ids, skip_special_tokens=True), "stop" if end in ids else "length")
            for ids in rows
        ]

    def tokens(self, prompt: str) -> int:
        return len(self.as_it_is(prompt, add_special_tokens=False)["input_ids"])
