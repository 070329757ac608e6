"""What the worker knows of the cell that runs now."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import grpc

from rlm_sandbox.v1 import sandbox_pb2 as pb
from sandbox_image.repl.channel import JsonObject
from sandbox_image.repl.process import Usage
from sandbox_image.repl.tape import Tape


@dataclass
class OpenQuery:
    """One call of `llm_query…` in the cell: one or more requests on the wire."""

    query_id: str  # as the REPL process knows it
    answers: list[list[JsonObject] | None]  # one entry for each request
    prompt_counts: list[int]

    @property
    def is_answered(self) -> bool:
        """Whether every request has its answers."""
        return all(part is not None for part in self.answers)


@dataclass
class WaitingRequest:
    """A request that waits for its turn, or is under way."""

    query: OpenQuery
    index: int
    request: pb.LlmQueryRequest
    parts: list[pb.LlmQueryRequest] = field(default_factory=list)  # to be sent before it, in order

    @property
    def next_message(self) -> pb.LlmQueryRequest:
        """What is to be sent next."""
        return self.parts[0] if self.parts else self.request


@dataclass
class RunningCell:
    """The cell that runs now."""

    cell_id: int
    timeout_s: float
    usage: Usage
    tapes: dict[pb.OutputStream.ValueType, Tape]
    sample_s: float
    sample_at_s: float
    started_s: float
    stop_reason: int = pb.STOP_REASON_UNSPECIFIED
    kill_at_s: float | None = None
    query_count: int = 0
    memory_kills_at_start: int = 0
    is_uploading: bool = False  # parts of a child run's context are under way
    waiting: deque[WaitingRequest] = field(default_factory=deque)
    calls: set[grpc.Future[pb.LlmQueryReply]] = field(default_factory=set)

    @classmethod
    def start(
        cls,
        *,
        cell_id: int,
        timeout_s: float,
        sample_s: float,
        output_bytes: int,
        memory_kills: int,
    ) -> RunningCell:
        """Begins a cell whose output keeps `output_bytes` of each stream, half at each end.

        Its usage is looked at after `sample_s` for the first time.
        """
        now_s = time.monotonic()
        head_bytes = output_bytes // 2
        streams = (pb.OUTPUT_STREAM_STDOUT, pb.OUTPUT_STREAM_STDERR)
        return cls(
            cell_id=cell_id,
            timeout_s=timeout_s,
            usage=Usage(started_s=now_s),
            started_s=now_s,
            sample_s=sample_s,
            sample_at_s=now_s + sample_s,
            tapes={
                stream: Tape(head_bytes=head_bytes, tail_bytes=output_bytes - head_bytes)
                for stream in streams
            },
            memory_kills_at_start=memory_kills,
        )

    @property
    def wall_s(self) -> float:
        """Seconds since the cell began."""
        return time.monotonic() - self.started_s

    def keep(self, stream: pb.OutputStream.ValueType, data: bytes) -> bytes:
        """Takes what the cell printed; returns the part to be sent on at once."""
        return self.tapes[stream].write(data)

    def offset_of(self, stream: pb.OutputStream.ValueType) -> int:
        """Returns the position of what is printed next."""
        return self.tapes[stream].seen_bytes
