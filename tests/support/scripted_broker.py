"""A broker in a test's hand: says what the test says to a real worker in a real process."""

from __future__ import annotations

import hashlib
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.duration_pb2 import Duration

from rlm_sandbox.v1 import sandbox_pb2 as pb
from rlm_sandbox.v1 import sandbox_pb2_grpc

TOKEN = "0123456789abcdef" * 4
_PATIENCE_S = 20.0
_MIB = 2**20

Answer = Callable[[pb.LlmQueryRequest, grpc.ServicerContext], pb.LlmQueryReply]


def echo(request: pb.LlmQueryRequest, _context: grpc.ServicerContext) -> pb.LlmQueryReply:
    """Answers each prompt with itself."""
    return pb.LlmQueryReply(
        answers=[pb.QueryAnswer(text=f"echo: {prompt}") for prompt in request.prompts]
    )


class ScriptedBroker(sandbox_pb2_grpc.SandboxBrokerServicer):
    """Serves one worker, started as a plain process of this host: for trusted cells only."""

    def __init__(
        self,
        directory: Path,
        *,
        answer: Answer = echo,
        policy: pb.LanguagePolicy.ValueType = pb.LANGUAGE_POLICY_GUARDED,
        memory_bytes: int = 1024 * _MIB,
        output_bytes: int = 64 * 1024,
        grace_s: float = 0.5,
        prompt_chars: int = 500_000,
        child_context_bytes: int = 16 * _MIB,
    ) -> None:
        """Prepares to listen in `directory`, whose path must be short (unix(7))."""
        self.directory = directory
        self.answer = answer
        self.limits = pb.Limits(
            output_bytes=output_bytes,
            answer_bytes=2 * _MIB,
            prompt_chars=prompt_chars,
            batch_prompt_count=256,
            open_query_count=16,
            grace=_duration(grace_s),
            memory_bytes=memory_bytes,
            language_policy=policy,
            child_context_bytes=child_context_bytes,
        )
        self.metadata: dict[str, str] = {}
        self.worker_hello = pb.WorkerHello()
        self.heard: list[pb.WorkerMessage] = []
        self._outbox: queue.SimpleQueue[pb.BrokerMessage | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[pb.WorkerMessage | None] = queue.SimpleQueue()
        self._sequence = 0
        self._cell_id = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(40))

    def __enter__(self) -> Self:
        """Listens, starts the worker and exchanges hellos."""
        (self.directory / "token").write_text(TOKEN)
        sandbox_pb2_grpc.add_SandboxBrokerServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.directory / 'broker.sock'}")
        self._server.start()
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "sandbox_image", str(self.directory)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
        self.worker_hello = self.next_message().hello
        self.send(hello=pb.BrokerHello(version=1, limits=self.limits))
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Ends the worker and everything below it."""
        self._outbox.put(None)
        try:
            self.worker.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()
            raise
        finally:
            assert self.worker.stderr is not None
            self.last_words = self.worker.stderr.read().decode()
            self.worker.stderr.close()
            self._server.stop(0).wait()

    def Attach(  # noqa: N802 - the contract's name
        self, requests: Iterator[pb.WorkerMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.BrokerMessage]:
        """Plays the broker's side of the stream from the outbox."""
        self.metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        futures.ThreadPoolExecutor(1).submit(self._hear, requests)
        yield from iter(self._outbox.get, None)

    def LlmQuery(  # noqa: N802 - the contract's name
        self, request: pb.LlmQueryRequest, context: grpc.ServicerContext
    ) -> pb.LlmQueryReply:
        """Answers as the test says."""
        return self.answer(request, context)

    def _hear(self, requests: Iterator[pb.WorkerMessage]) -> None:
        try:
            for message in requests:
                self._inbox.put(message)
        except grpc.RpcError:
            pass
        self._inbox.put(None)

    def next_message(self) -> pb.WorkerMessage:
        """Waits for what the worker says next; fails when it is gone."""
        message = self._inbox.get(timeout=_PATIENCE_S)
        assert message is not None, "the worker ended the stream"
        self.heard.append(message)
        return message

    def wait_for_end(self) -> str:
        """Waits until the worker has ended by itself; returns its last words."""
        self.worker.wait(_PATIENCE_S)
        assert self.worker.stderr is not None
        return os.read(self.worker.stderr.fileno(), 65536).decode()

    def send(self, **payload: object) -> None:
        """Sends one message of the broker."""
        self._sequence += 1
        self._outbox.put(pb.BrokerMessage(sequence=self._sequence, **payload))  # type: ignore[arg-type]  # a test names the field

    def begin_run(self, **tools: str) -> None:
        """Begins a run whose cells may call `tools`, each given with its signature."""
        offered = [
            pb.Tool(name=name, signature=signature, description=f"Does {name}.")
            for name, signature in tools.items()
        ]
        self.send(begin_run=pb.BeginRun(tools=offered))

    def bind(
        self,
        data: bytes,
        *,
        kind: pb.ContextKind.ValueType,
        name: str = "context",
        aliases: Sequence[str] = (),
    ) -> None:
        """Sends a context in pieces of 1 MiB."""
        for offset in range(0, max(len(data), 1), _MIB):
            piece = data[offset : offset + _MIB]
            is_last = offset + len(piece) == len(data)
            self.send(
                context_chunk=pb.ContextChunk(
                    name=name,
                    kind=kind,
                    offset_bytes=offset,
                    total_bytes=len(data),
                    data=piece,
                    sha256=hashlib.sha256(data).digest() if is_last else b"",
                    aliases=() if offset else aliases,
                )
            )

    def bind_file(
        self,
        data: bytes,
        *,
        kind: pb.ContextKind.ValueType,
        name: str = "context",
        aliases: Sequence[str] = (),
    ) -> None:
        """Hands a context over in a file, and removes it once the worker has opened it."""
        place = self.directory / "context"
        place.write_bytes(data)
        self.send(
            context_file=pb.ContextFile(
                name=name,
                kind=kind,
                total_bytes=len(data),
                aliases=aliases,
            )
        )
        assert self.next_message().HasField("context_opened")
        place.unlink()

    def start(self, source: str, *, timeout_s: float = 10.0) -> int:
        """Sends a cell without waiting for its end; returns its id."""
        self._cell_id += 1
        cell = pb.RunCell(cell_id=self._cell_id, source=source, timeout=_duration(timeout_s))
        self.send(run_cell=cell)
        return self._cell_id

    def stop(self, reason: pb.StopReason.ValueType = pb.STOP_REASON_TIMEOUT) -> None:
        """Stops the running cell."""
        self.send(stop_cell=pb.StopCell(cell_id=self._cell_id, reason=reason))

    def finish(self) -> tuple[pb.CellResult, bytes, bytes]:
        """Waits for the cell's end; returns its result and what was forwarded of its output."""
        printed = {pb.OUTPUT_STREAM_STDOUT: b"", pb.OUTPUT_STREAM_STDERR: b""}
        while True:
            message = self.next_message()
            if message.HasField("cell_output"):
                printed[message.cell_output.stream] += message.cell_output.data
                continue
            return (
                message.cell_result,
                printed[pb.OUTPUT_STREAM_STDOUT],
                printed[pb.OUTPUT_STREAM_STDERR],
            )

    def run(self, source: str) -> tuple[pb.CellResult, bytes, bytes]:
        """Runs a cell to its end."""
        self.start(source)
        return self.finish()


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
