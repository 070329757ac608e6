"""What the worker knows of the cell that runs now."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

import grpc

from rlm_sandbox.v1 import sandbox_pb2 as pb
from sandbox_image.repl.channel import JsonObject
from sandbox_image.repl.process import Usage
from sandbox_image.repl.tape import Tape


class OpenQuery(NamedTuple):
    """One call of `llm_query…` in the cell: one or more requests on the wire."""

    query_id: str  # as the REPL process knows it
    answers: list[list[JsonObject] | None]  # one entry for each request
    prompt_counts: list[int]

    @property
    def is_answered(self) -> bool:
        """Whether every request has its answers."""
        return all(part is not None for part in self.answers)


class WaitingRequest(NamedTuple):
    """A request that waits for its turn, or is under way."""

    query: OpenQuery
    number: int  # of the request in its query, from 0
    request: pb.LlmQueryRequest
    parts: list[pb.LlmQueryRequest]  # to be sent before it, in order

    @property
    def next_message(self) -> pb.LlmQueryRequest:
        """What is to be sent next."""
        return self.parts[0] if self.parts else self.request


class RunningCell:
    """The cell that runs now.

    Attributes:
        cell_id: Its number.
        timeout_s: What it may take, for the message that it took more.
        usage: What it used, as far as it was looked at.
        sample_s: From one look to the next.
        sample_at_s: When the next look is due, by the monotonic clock.
        stop_reason: Why the broker wants it stopped, if it does.
        kill_at_s: When it is killed if the interrupt has not ended it, by the same clock.
        query_count: Prompts that it has sent.
        memory_kills_at_start: What the kernel had killed for memory before it.
        is_uploading: Whether parts of a child run's context are under way.
        waiting: Requests for which there is no room yet.
        calls: Those that are under way.
        cancelled: Those that the broker has ended before its order to stop the cell was here.
        tapes: What it printed, of each stream.
    """

    def __init__(
        self,
        *,
        cell_id: int,
        timeout_s: float,
        sample_s: float,
        output_bytes: int,
        memory_kills: int,
    ) -> None:
        """Begins a cell whose output keeps `output_bytes` of each stream, half at each end.

        Its usage is looked at after `sample_s` for the first time.
        """
        self.cell_id = cell_id
        self.timeout_s = timeout_s
        self.usage = Usage()
        self.sample_s = sample_s
        self._started_s = time.monotonic()
        self.sample_at_s = self._started_s + sample_s
        self.stop_reason: int = pb.STOP_REASON_UNSPECIFIED
        self.kill_at_s: float | None = None
        self.query_count = 0
        self.memory_kills_at_start = memory_kills
        self.is_uploading = False
        self.waiting: deque[WaitingRequest] = deque()
        self.calls: set[grpc.Future[pb.LlmQueryReply]] = set()
        self.cancelled: list[tuple[WaitingRequest, grpc.Future[pb.LlmQueryReply]]] = []
        head_bytes = output_bytes // 2
        self.tapes: dict[pb.OutputStream.ValueType, Tape] = {
            stream: Tape(head_bytes=head_bytes, tail_bytes=output_bytes - head_bytes)
            for stream in (pb.OUTPUT_STREAM_STDOUT, pb.OUTPUT_STREAM_STDERR)
        }

    @property
    def wall_s(self) -> float:
        """Seconds since the cell began."""
        return time.monotonic() - self._started_s

    def keep(self, stream: pb.OutputStream.ValueType, data: bytes) -> bytes:
        """Takes what the cell printed; returns the part to be sent on at once."""
        return self.tapes[stream].write(data)

    def offset_of(self, stream: pb.OutputStream.ValueType) -> int:
        """Returns the position of what is printed next."""
        return self.tapes[stream].seen_bytes
