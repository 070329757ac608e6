"""A real HTTP server that plays a provider's endpoint, with every fault a provider has.

Without it the OpenAI SDK could only be tested against a patched SDK. It speaks
`/v1/chat/completions` and `/v1/responses`, streamed or not, and `/v1/models`; which model a request
names decides whether the root's or the sub-model's replies answer it. It is one file and needs the
standard library only, so that it also runs alone in a container:

    python model_server.py --script FILE --port 8000 --host 0.0.0.0

where FILE is a script as `--model scripted:FILE` takes it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import socket
import struct
import sys
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ROOT_MODEL = "root-model"
SUB_MODEL = "sub-model"


#: How a stream breaks: ended in good order, closed in mid-body, reset, or nothing more is said.
Break = Literal["end", "close", "reset", "silence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server does with one request."""

    text: str | None = ""  # None leaves the content null
    reasoning: str = ""  # sent as `reasoning_content` where not empty
    finish_reason: str = "stop"
    usage: Mapping[str, object] | None = field(  # None leaves it out
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    )
    status: int = 200
    body: bytes | None = None  # sent as it is instead of a completion
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0  # until the first byte is sent, unless the client leaves before
    drip_s: float = 0.0  # between one byte of the body and the next
    promised_extra_bytes: int = 0  # how many more Content-Length promises than are sent
    resets: bool = False  # the connection, instead of an answer
    pieces: Sequence[str] | None = None  # of the text, where it is streamed; else its two halves
    piece_delay_s: float = 0.0  # before each event of a stream
    stream_body: bytes | None = None  # a stream, sent as it is
    breaks_after: int | None = None  # events of a stream that are sent before it breaks
    breaks_by: Break = "close"


def failure(
    status: int,
    message: str = "it broke",
    *,
    code: str | None = None,
    type_name: str = "server_error",
    parameter: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Returns an error in OpenAI's format."""
    error = {"message": message, "type": type_name, "param": parameter, "code": code}
    return Answer(status=status, body=json.dumps({"error": error}).encode(), headers=headers or {})


def raw_json(body: object) -> Answer:
    """Returns JSON that need not be a completion."""
    return Answer(body=json.dumps(body).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request as it came; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat it sends."""
        return list(self.body.get("messages", self.body.get("input", [])))

    @property
    def prompt(self) -> str:
        """The text of its last user message."""
        texts = [one["content"] for one in self.messages if one["role"] == "user"]
        return texts[-1] if texts else ""


RootReplies = Sequence[str | Answer] | Callable[[list[dict[str, str]]], str | Answer]
SubReplies = Callable[[str], str | Answer]


class ModelServer:
    """Serves on a loopback port while its context is open.

    Attributes:
        requests: Every chat request, in order of arrival.
        next_answers: Taken first, whichever model is asked: what a test wants to happen next.
        open_request_count: Chat requests being answered now.
        peak_open_request_count: The most there were at once.
        disconnect_count: Clients that left while the server was still answering.
        clients: The address of each connection that a request came by.
    """

    def __init__(
        self,
        *,
        root: RootReplies = (),  # in order, or a function of the messages
        sub: SubReplies = lambda prompt: prompt,
        root_model: str = ROOT_MODEL,
        sub_model: str = SUB_MODEL,
        delay_s: float = 0.0,  # of each reply that does not state its own
        unknown_parameters: Sequence[str] = (),  # refused, as an endpoint does that has none such
        host: str = "127.0.0.1",
        port: int = 0,  # a free one
    ) -> None:
        """Binds the port; serves nothing yet."""
        self.requests: list[ReceivedRequest] = []
        self.next_answers: deque[Answer] = deque()
        self.open_request_count = 0
        self.peak_open_request_count = 0
        self.disconnect_count = 0
        self.clients: set[object] = set()
        self._root = root
        self._sub = sub
        self.root_model = root_model
        self.sub_model = sub_model
        self._delay_s = delay_s
        self._unknown_parameters = tuple(unknown_parameters)
        self._used_root_count = 0
        self._changed = threading.Condition()
        self._http = _Http((host, port), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        """Starts to serve."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops, and waits for the requests being answered."""
        self._http.shutdown()
        self._thread.join()
        self._http.hang_up()
        self._http.server_close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._http.server_address[1])

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def root_requests(self) -> list[ReceivedRequest]:
        """The requests to the root model."""
        return [one for one in self.requests if one.body.get("model") == self.root_model]

    @property
    def sub_requests(self) -> list[ReceivedRequest]:
        """The requests to the sub-model."""
        return [one for one in self.requests if one.body.get("model") == self.sub_model]

    def wait_until(self, condition: Callable[[], bool], *, timeout_s: float = 5.0) -> bool:
        """Waits until `condition` holds, seen whenever a request comes, ends or is left."""
        with self._changed:
            return self._changed.wait_for(condition, timeout=timeout_s)

    @contextlib.contextmanager
    def answering(self, request: ReceivedRequest) -> Iterator[Answer]:
        """Counts a request as open and yields what to do with it."""
        with self._changed:
            self.requests.append(request)
            self.open_request_count += 1
            peak = max(self.peak_open_request_count, self.open_request_count)
            self.peak_open_request_count = peak
            answer = self._answer(request)
            self._changed.notify_all()
        try:
            yield answer
        finally:
            with self._changed:
                self.open_request_count -= 1
                self._changed.notify_all()

    def count_disconnect(self) -> None:
        """Notes that a client left before its answer."""
        with self._changed:
            self.disconnect_count += 1
            self._changed.notify_all()

    def _answer(self, request: ReceivedRequest) -> Answer:
        for unknown in self._unknown_parameters:
            if unknown in request.body:
                message = f"Unknown parameter: '{unknown}'."
                return failure(400, message, code="unknown_parameter", parameter=unknown)
        if self.next_answers:
            return self.next_answers.popleft()
        name = request.body.get("model")
        reply: str | Answer
        if name == self.root_model:
            reply = self._root_reply(request)
        elif name == self.sub_model:
            reply = self._sub(request.prompt)
        else:
            return failure(404, f"The model `{name}` does not exist", code="model_not_found")
        return reply if isinstance(reply, Answer) else Answer(text=reply, delay_s=self._delay_s)

    def _root_reply(self, request: ReceivedRequest) -> str | Answer:
        if callable(self._root):
            return self._root(request.messages)
        if self._used_root_count >= len(self._root):
            return failure(400, f"the server's {len(self._root)} root replies are used")
        self._used_root_count += 1
        return self._root[self._used_root_count - 1]


class _Http(ThreadingHTTPServer):
    """The listening socket; `server_close` waits for the threads, so none outlives its test."""

    daemon_threads = False
    request_queue_size = 128  # a batch of queries connects at once
    owner: ModelServer

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        super().__init__(address, handler)
        self.connections: set[socket.socket] = set()
        self.resetting: set[object] = set()

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 -- the base class's type is private
        """Closes a connection; one that is to be reset without a word before."""
        if request in self.resetting:
            self.resetting.discard(request)
            request.close()
        else:
            super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends every connection, so that no thread waits for a client's next request."""
        for connection in tuple(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keeps quiet about clients that left; shows anything else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # typeshed names the socket's type privately


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms
    server: _Http

    def setup(self) -> None:
        """Lets the server end the connection."""
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        """Forgets the connection."""
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        """Answers `/v1/models`."""
        if self.path != "/v1/models":
            self._send(failure(404, f"no {self.path} here"))
            return
        names = self.server.owner.root_model, self.server.owner.sub_model
        models = [{"id": name, "object": "model"} for name in names]
        self._send(raw_json({"object": "list", "data": models}))

    def do_POST(self) -> None:
        """Answers `/v1/chat/completions` and `/v1/responses`."""
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path not in {CHAT, RESPONSES}:
            self._send(Answer(status=404, body=b'{"detail": "Not Found"}'))
            return
        request = ReceivedRequest(
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=json.loads(sent),
        )
        self.server.owner.clients.add(self.client_address)
        with self.server.owner.answering(request) as answer:
            if answer.delay_s and self._client_left_within(answer.delay_s):
                self._client_left()
            elif answer.resets:
                self._reset()
            elif answer.body is None and request.body.get("stream"):
                self._stream(request, answer)
            else:
                self._send(answer, request)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
        """Keeps quiet: requests are recorded, not printed."""

    def _client_left_within(self, delay_s: float) -> bool:
        readable, _, _ = select.select([self.connection], [], [], delay_s)
        # Clients here do not pipeline: whatever is readable is the end of the stream.
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _client_left(self) -> None:
        self.server.owner.count_disconnect()
        self.close_connection = True

    def _reset(self) -> None:
        # Lingering for no time makes close(2) send a reset (socket(7)).
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.server.resetting.add(self.connection)
        self.close_connection = True

    def _send(self, answer: Answer, request: ReceivedRequest | None = None) -> None:
        body = answer.body
        if body is None and request is not None:
            make = _completion if request.path == CHAT else _response
            body = json.dumps(make(answer, str(request.body.get("model")))).encode()
        body = body or b""
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body) + answer.promised_extra_bytes))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.drip_s:
            self._drip(body, answer.drip_s)
        else:
            self.wfile.write(body)
        if answer.promised_extra_bytes:
            self.close_connection = True

    def _drip(self, body: bytes, drip_s: float) -> None:
        for position in range(len(body)):
            self.wfile.write(body[position : position + 1])
            if self._client_left_within(drip_s):
                self._client_left()
                return

    def _stream(self, request: ReceivedRequest, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [answer.stream_body] if answer.stream_body else _events(request, answer)
        try:
            for event in events[: answer.breaks_after]:
                if answer.piece_delay_s and self._client_left_within(answer.piece_delay_s):
                    self._client_left()
                    return
                self._chunk(event)
            if answer.breaks_after is None:
                self._chunk(b"")
            else:
                self._break_off(answer.breaks_by)
        except ConnectionError:
            self._client_left()

    def _break_off(self, way: Break) -> None:
        self.close_connection = way != "end"
        match way:
            case "end":
                self._chunk(b"")
            case "reset":
                self._reset()
            case "silence":
                if self._client_left_within(30.0):
                    self._client_left()
            case "close":
                pass

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def _events(request: ReceivedRequest, answer: Answer) -> list[bytes]:
    """Returns a stream as its events, each as it is sent."""
    text = answer.text or ""
    half = len(text) // 2
    pieces = answer.pieces or [piece for piece in (text[:half], text[half:]) if piece]
    model = str(request.body.get("model"))
    if request.path == RESPONSES:
        return _response_events(answer, pieces, model)
    options = request.body.get("stream_options") or {}
    return _chat_events(answer, pieces, model, with_usage=bool(options.get("include_usage")))


def _chat_events(
    answer: Answer, pieces: Sequence[str], model: str, *, with_usage: bool
) -> list[bytes]:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}
    deltas: list[dict[str, object]] = [{"role": "assistant", "content": one} for one in pieces]
    if answer.reasoning:
        deltas.insert(0, {"role": "assistant", "reasoning_content": answer.reasoning})
    choices: list[dict[str, object]] = [
        {"index": 0, "delta": delta, "finish_reason": None} for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": answer.finish_reason})
    chunks: list[dict[str, object]] = [base | {"choices": [choice]} for choice in choices]
    if with_usage and answer.usage is not None:
        chunks.append(base | {"choices": [], "usage": dict(answer.usage)})
    return [*(_event(chunk) for chunk in chunks), b"data: [DONE]\n\n"]


def _response_events(answer: Answer, pieces: Sequence[str], model: str) -> list[bytes]:
    whole = replace(answer, text="".join(pieces)) if answer.text is not None else answer
    response = _response(whole, model)
    events: list[dict[str, object]] = [
        {"type": "response.created", "response": response | {"status": "in_progress", "output": []}}
    ]
    if answer.reasoning:
        kind = "response.reasoning_summary_text.delta"
        events.append({"type": kind, "item_id": "rs_1", "delta": answer.reasoning})
    events += [
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": piece}
        for piece in pieces
    ]
    events.append({"type": f"response.{response['status']}", "response": response})
    numbered = [event | {"sequence_number": number} for number, event in enumerate(events)]
    return [_event(event, name=str(event["type"])) for event in numbered]


def _event(data: Mapping[str, object], *, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _completion(answer: Answer, model: str) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    completion: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
    }
    if answer.usage is not None:
        completion["usage"] = dict(answer.usage)
    return completion


_STATUSES = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _response(answer: Answer, model: str) -> dict[str, object]:
    reason = _STATUSES.get(answer.finish_reason)
    output: list[dict[str, object]] = []
    if answer.reasoning:
        output.append({"type": "reasoning", "id": "rs_1", "summary": []})
    if answer.text is not None:
        part = {"type": "output_text", "text": answer.text, "annotations": []}
        output.append(
            {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]},
        )
    response: dict[str, object] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": model,
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
    }
    if answer.usage is not None:
        usage = answer.usage
        response["usage"] = {
            "input_tokens": usage.get("prompt_tokens"),
            "input_tokens_details": usage.get("prompt_tokens_details"),
            "output_tokens": usage.get("completion_tokens"),
            "output_tokens_details": usage.get("completion_tokens_details"),
            "total_tokens": usage.get("total_tokens"),
        }
    return response


def _from_script(path: Path) -> tuple[list[str | Answer], SubReplies]:
    """Returns the replies of a script; its own reader is in the product, which is not here."""
    script = tomllib.loads(path.read_text(encoding="utf-8"))
    root: list[str | Answer] = [
        Answer(text=table["text"], delay_s=table.get("delay_s", 0.0))
        for table in script.get("root", [])
    ]
    matching = [table for table in script.get("sub", []) if "contains" in table]
    in_order = deque(table for table in script.get("sub", []) if "contains" not in table)

    def reply(prompt: str) -> str | Answer:
        table = next((one for one in matching if one["contains"] in prompt), None)
        if table is None and in_order:
            table = in_order.popleft()
        if table is not None:
            return Answer(text=table["text"], delay_s=table.get("delay_s", 0.0))
        if script.get("sub_otherwise") == "echo":
            return prompt
        return failure(400, "the script has no reply for this prompt")

    return root, reply


def main() -> None:
    """Serves a script until it is interrupted."""
    parser = argparse.ArgumentParser(description="Plays a provider's endpoint by script.")
    parser.add_argument("--script", type=Path, required=True, help="a script as TOML")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    arguments = parser.parse_args()
    root, sub = _from_script(arguments.script)
    with ModelServer(root=root, sub=sub, host=arguments.host, port=arguments.port) as server:
        print(f"listening on {server.base_url}", flush=True)  # noqa: T201 -- its only output
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
