"""The open queries of the running cell: out to the broker, answers back to the REPL process.

Without it the worker's own state machine would have gRPC's futures and threads in it.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Final

import grpc

from rlm_sandbox.v1 import sandbox_pb2 as pb
from rlm_sandbox.v1.sandbox_pb2_grpc import SandboxBrokerStub
from sandbox_image import wire
from sandbox_image.repl.channel import FrameKind, JsonObject
from sandbox_image.repl.process import ReplProcess
from sandbox_image.running_cell import OpenQuery, RunningCell, WaitingRequest

#: How a query ends that is open, or comes, when its cell is stopped or has ended.
_OVER: Final = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.FAILED_PRECONDITION})


class QueryCalls:
    """Sends what cells ask for, a bounded number at a time.

    Belongs to the worker's deciding thread; gRPC's threads only put ended calls into a queue.
    """

    def __init__(
        self,
        *,
        stub: SandboxBrokerStub,
        metadata: tuple[tuple[str, str], ...],
        repl: ReplProcess,
        wake: Callable[[], None],
    ) -> None:
        """Prepares to call.

        Args:
            stub: The broker.
            metadata: Goes with every call.
            repl: Asks, and is answered.
            wake: Called, from any thread, when `take_answers` has something to do.
        """
        self._stub = stub
        self._metadata = metadata
        self._repl = repl
        self._wake = wake
        self._ended: queue.SimpleQueue[
            tuple[RunningCell, WaitingRequest, grpc.Future[pb.LlmQueryReply]]
        ] = queue.SimpleQueue()
        self._query_count = 0
        self._open_count = 1

    def configure(self, limits: pb.Limits) -> None:
        """Takes the limits in force."""
        self._open_count = limits.open_query_count

    def send(self, cell: RunningCell | None, claim: JsonObject) -> None:
        """Sends one query of the running cell, or answers it at once where none runs.

        Raises:
            BadFrameError: The claim is not of the form the REPL process uses.
        """
        repl_id = str(claim.get("query_id"))
        if cell is None or claim.get("cell_id") != cell.cell_id:
            # From a thread that outlived its cell: nobody may ask outside a cell.
            reply = wire.failed_answer("cancelled", "no cell is running")
            count = len(claim["prompts"]) if isinstance(claim.get("prompts"), list) else 0
            self._repl.send(FrameKind.REPLY, {"query_id": repl_id, "answers": [reply] * count})
            return
        self._query_count += 1
        requests = wire.query_requests(
            claim, query_id=f"q{self._query_count}", cell_id=cell.cell_id
        )
        query = OpenQuery(
            query_id=repl_id,
            answers=[None] * len(requests),
            prompt_counts=[request.prompt_count for request in requests],
        )
        if claim.get("kind") != "tool":
            cell.query_count += sum(query.prompt_counts)
        for index, request in enumerate(requests):
            if request.message.ByteSize() > wire.MAX_MESSAGE_BYTES:
                # To send it would be an attack on the broker, and the end of the sandbox.
                answer = wire.failed_answer(
                    "too_large", "the prompt does not fit a message of 4 MiB"
                )
                query.answers[index] = [answer] * request.prompt_count
            else:
                cell.waiting.append(
                    WaitingRequest(
                        query=query, number=index, request=request.message, parts=request.parts
                    )
                )
        self._reply_if_answered(query)
        self._start_calls(cell)

    def _start_calls(self, cell: RunningCell) -> None:
        while cell.waiting and len(cell.calls) < self._open_count:
            if cell.waiting[0].parts and cell.is_uploading:
                return  # the broker holds the parts of one context at a time
            waiting = cell.waiting.popleft()
            cell.is_uploading |= bool(waiting.parts)
            self._call(cell, waiting)

    def _call(self, cell: RunningCell, waiting: WaitingRequest) -> None:
        call = self._stub.LlmQuery.future(waiting.next_message, metadata=self._metadata)
        cell.calls.add(call)
        call.add_done_callback(lambda done: self._put_answer(cell, waiting, done))

    def _put_answer(
        self, cell: RunningCell, waiting: WaitingRequest, call: grpc.Future[pb.LlmQueryReply]
    ) -> None:
        """Hands an ended call to the deciding thread. Runs in a thread of gRPC."""
        self._ended.put((cell, waiting, call))
        self._wake()

    def take_answers(self, running: RunningCell | None) -> None:
        """Hands the REPL process the answers that have come, but for those of other cells."""
        while True:
            try:
                cell, waiting, call = self._ended.get_nowait()
            except queue.Empty:
                return
            cell.calls.discard(call)
            if cell is not running:
                # A late answer must not reach the next cell.
                continue
            if cell.stop_reason == pb.STOP_REASON_UNSPECIFIED and _was_cancelled(call):
                # The order to stop was sent before, on a stream of its own, and is not here yet: a
                # cell that heard of this first would end by itself, as one that nobody stopped.
                cell.cancelled.append((waiting, call))
                continue
            if waiting.parts and _was_taken(call):
                del waiting.parts[0]
                self._call(cell, waiting)
                cell.is_uploading = bool(waiting.parts)
                self._start_calls(cell)
                continue
            self._settle(cell, waiting, call)

    def settle_cancelled(self, cell: RunningCell) -> None:
        """Hands on what was held back until the order to stop the cell had come."""
        held, cell.cancelled = cell.cancelled, []
        for waiting, call in held:
            self._settle(cell, waiting, call)

    def _settle(
        self, cell: RunningCell, waiting: WaitingRequest, call: grpc.Future[pb.LlmQueryReply]
    ) -> None:
        cell.is_uploading &= not waiting.parts
        query = waiting.query
        query.answers[waiting.number] = _answers_of(call, query.prompt_counts[waiting.number])
        self._reply_if_answered(query)
        self._start_calls(cell)

    def _reply_if_answered(self, query: OpenQuery) -> None:
        if query.is_answered:
            answers = [answer for part in query.answers for answer in part or ()]
            self._repl.send(FrameKind.REPLY, {"query_id": query.query_id, "answers": answers})


def _was_taken(call: grpc.Future[pb.LlmQueryReply]) -> bool:
    """Says whether a part of a context has arrived."""
    return not call.cancelled() and call.exception() is None


def _was_cancelled(call: grpc.Future[pb.LlmQueryReply]) -> bool:
    """Says whether the broker wanted no answer any more, or took no query any more."""
    return not call.cancelled() and _code_of(call.exception()) in _OVER


def _code_of(error: BaseException | None) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.RpcError) else None


def _answers_of(call: grpc.Future[pb.LlmQueryReply], prompt_count: int) -> list[JsonObject]:
    """Returns what the REPL process is told of one ended call, whatever its end."""
    try:
        answers = wire.answers(call.result())
    except grpc.FutureCancelledError:
        reason, message = "cancelled", "the query was cancelled"
    except grpc.RpcError as error:
        reason = "cancelled" if error.code() in _OVER else "model_failed"
        message = f"the query could not be answered ({error.code().name.lower()})"
    else:
        if len(answers) == prompt_count:
            return answers
        reason, message = "model_failed", "the query was answered in part only"
    return [wire.failed_answer(reason, message)] * prompt_count
