"""Holds the stream: cells to the REPL process, its output and queries to the broker.

Without it the process that runs untrusted code would hold the channel itself. One thread decides
everything here; gRPC's threads only put what arrives into a queue. What comes from the REPL process
is treated as hostile, what comes from the broker is obeyed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import selectors
import signal
import threading
import time
from pathlib import Path

import grpc

from rlm_sandbox.v1 import sandbox_pb2 as pb
from rlm_sandbox.v1.sandbox_pb2_grpc import SandboxBrokerStub
from sandbox_image import endings, wire
from sandbox_image.memory_gauge import MemoryGauge
from sandbox_image.query_calls import QueryCalls
from sandbox_image.repl.channel import BadFrameError, ChannelClosedError, FrameKind, JsonObject
from sandbox_image.repl.process import ReplProcess, reap
from sandbox_image.repl.returned_memory import return_memory
from sandbox_image.running_cell import RunningCell
from sandbox_image.walls import FoundWalls

_TOKEN_KEY = "rlm-session-token"  # noqa: S105 - the name of the entry, not its value
#: How often a running cell's memory is looked at; and how often once there is not much left.
_SAMPLE_S = 0.1
_SHORT_SAMPLE_S = 0.02
#: From which share of the sandbox's memory on it is looked at so often; and from which on the
#: checkpoint is given up, if it is what holds so much. A cell that writes to all it has takes up to
#: 2 GB a second, a fifth of a GiB between two looks.
_LITTLE_LEFT = 0.4
_TOO_LITTLE_LEFT = 0.75
_WORTH_GIVING_UP = 0.1
#: Messages of the broker that wait; with 1 MiB pieces of context this bounds the worker's memory.
_INBOX_SIZE = 8
#: More than this towards the REPL process, and the broker has to wait.
_PENDING_BYTES = 4 * 2**20
#: Output read in one go before anything else gets its turn.
_DRAIN_READS = 16


class SessionLostError(Exception):
    """The REPL process and every spare are gone, or the broker broke off; the worker has to end."""


class Worker:
    """One sandbox's life, from hello to the end of the stream."""

    def __init__(  # noqa: PLR0913 - all by keyword; a type to group them would have no other use
        self,
        *,
        channel: grpc.Channel,
        token: str,
        repl: ReplProcess,
        walls: FoundWalls,
        image_release: str,
        context_path: Path,
        may_map: bool,
    ) -> None:
        """Prepares to serve; `run` does.

        Args:
            channel: To the broker.
            token: Opens the stream.
            repl: Runs the cells.
            walls: What stands around both.
            image_release: Of this image.
            context_path: Where a context lies that is a file.
            may_map: Whether to map it takes none of the sandbox's memory. A kernel that is the
                sandbox's own, as gVisor's, keeps what is mapped a second time.
        """
        self._context_path = context_path
        self._may_map = may_map
        self._stub = SandboxBrokerStub(channel)
        self._metadata = ((_TOKEN_KEY, token),)
        self._repl = repl
        self._calls = QueryCalls(
            stub=self._stub, metadata=self._metadata, repl=repl, wake=self._wake
        )
        self._hello = wire.hello(walls, image_release=image_release)
        self._limits = pb.Limits()
        self._gauge = MemoryGauge(limit_bytes=0)
        self._outbox: queue.SimpleQueue[pb.WorkerMessage | None] = queue.SimpleQueue()
        self._sequence = 0
        self._inbox: queue.Queue[pb.BrokerMessage | str] = queue.Queue(_INBOX_SIZE)
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._cell: RunningCell | None = None
        self._last_report: JsonObject = {}
        self._was_lost_idle = False
        self._is_binding = False
        self._begin_run: JsonObject | None = None
        self._memory_kills = 0
        self._digest = hashlib.sha256()
        self._is_over = False

    def run(self) -> None:
        """Serves until the broker ends the stream.

        Raises:
            SessionLostError: Nothing is left that could run a cell, or the stream broke.
        """
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        for descriptor in (self._repl.stdout, self._repl.stderr):
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._selector.register(self._repl.connection, selectors.EVENT_READ)
        self._say(hello=self._hello)
        threading.Thread(target=self._listen, daemon=True).start()
        while not self._is_over:
            self._step()

    def _listen(self) -> None:
        """Puts what the broker sends into the inbox. Runs in a thread of its own."""
        reason = "the broker ended the stream"
        try:
            for message in self._stub.Attach(iter(self._outbox.get, None), metadata=self._metadata):
                self._inbox.put(message)
                self._wake()
        except grpc.RpcError as error:
            reason = f"the stream broke: {error.code().name}: {error.details()}"
        self._inbox.put(reason)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _step(self) -> None:
        """Waits for the next thing to happen and deals with it."""
        self._watch_for_room()
        for key, events in self._selector.select(self._patience_s()):
            if key.fileobj == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            elif key.fileobj is self._repl.connection:
                if events & selectors.EVENT_WRITE:
                    self._repl.flush()
                if events & selectors.EVENT_READ:
                    self._hear_repl()
            elif isinstance(key.fileobj, int):
                self._forward_output(key.fileobj)
        ended = reap()
        if self._repl.pid in ended:
            self._mourn(ended[self._repl.pid])
        self._calls.take_answers(self._cell)
        while not self._is_over and self._repl.pending_bytes < _PENDING_BYTES:
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                break
            self._obey(item)
        self._keep_time()

    def _watch_for_room(self) -> None:
        wanted = selectors.EVENT_READ
        if self._repl.pending_bytes:
            wanted |= selectors.EVENT_WRITE
        if self._selector.get_key(self._repl.connection).events != wanted:
            self._selector.modify(self._repl.connection, wanted)

    def _patience_s(self) -> float | None:
        if self._cell is None:
            return None
        if self._cell.kill_at_s is not None:
            return max(min(self._cell.kill_at_s - time.monotonic(), self._cell.sample_s), 0)
        return self._cell.sample_s

    def _keep_time(self) -> None:
        cell = self._cell
        if cell is None:
            return
        now_s = time.monotonic()
        if now_s >= cell.sample_at_s:
            self._repl.sample(cell.usage)
            used_share = self._make_room(cell)
            cell.sample_s = _SHORT_SAMPLE_S if used_share > _LITTLE_LEFT else _SAMPLE_S
            cell.sample_at_s = now_s + cell.sample_s
        if cell.kill_at_s is not None and now_s >= cell.kill_at_s:
            self._repl.kill()
            self._replace_repl(endings.timed_out(cell.timeout_s))

    def _make_room(self, cell: RunningCell) -> float:
        """Gives the checkpoint up where the cell needs the memory; returns the share in use.

        What it shares with the live process costs nothing until the cell writes there: then it is
        held twice. The base stays in any case: its contexts are never written to. And all that is
        there stays once the kernel has ended the cell, for then it is what takes over.
        """
        used_share = self._gauge.used_share
        if used_share <= _TOO_LITTLE_LEFT:
            return used_share
        own_bytes = self._repl.anonymous_bytes()
        if own_bytes is None:
            return used_share
        needed_share, others_share = self._gauge.needed_share(but_for_bytes=own_bytes)
        if needed_share <= _TOO_LITTLE_LEFT or others_share <= _WORTH_GIVING_UP:
            return used_share
        # Asked for last: a kill before it would have falsified what was read above.
        if endings.memory_kill_count() == cell.memory_kills_at_start:
            self._repl.drop_checkpoint()
        return used_share

    def _obey(self, item: pb.BrokerMessage | str) -> None:
        if isinstance(item, str):
            raise SessionLostError(item)
        match item.WhichOneof("payload"):
            case "hello":
                self._limits = item.hello.limits
                self._gauge = MemoryGauge(limit_bytes=self._limits.memory_bytes)
                self._calls.configure(self._limits)
                self._repl.send(FrameKind.CONFIGURE, wire.limits_for_repl(self._limits))
            case "context_chunk":
                self._pass_on_context(item.context_chunk)
            case "context_file":
                self._hand_over_context(item.context_file)
            case "begin_run":
                self._begin_run = wire.tools_for_repl(item.begin_run)
                self._repl.send(FrameKind.BEGIN_RUN, self._begin_run)
                # Should the next cell be rolled back, its answer is not the one of the run before.
                self._last_report = {**self._last_report, "content": ""}
            case "run_cell":
                self._run_cell(item.run_cell)
            case "stop_cell":
                self._stop_cell(item.stop_cell)
            case "shutdown":
                self._is_over = True
            case other:
                raise SessionLostError(f"the broker sent {other}, which this worker does not know")

    def _pass_on_context(self, chunk: pb.ContextChunk) -> None:
        if chunk.offset_bytes == 0:
            self._is_binding = True
            self._digest = hashlib.sha256()
            kind = wire.context_kind(chunk.kind)
            names = [chunk.name, *chunk.aliases]
            self._repl.send(FrameKind.CONTEXT_START, {"names": names, "kind": kind})
        self._digest.update(chunk.data)
        self._repl.send(FrameKind.CONTEXT_DATA, chunk.data)
        if chunk.offset_bytes + len(chunk.data) == chunk.total_bytes:
            if self._digest.digest() != chunk.sha256:
                raise SessionLostError(f"the context {chunk.name!r} arrived with another digest")
            self._repl.send(FrameKind.CONTEXT_END, {})

    def _hand_over_context(self, file: pb.ContextFile) -> None:
        kind, names = wire.context_kind(file.kind), [file.name, *file.aliases]
        self._is_binding = True
        try:
            with self._context_path.open("rb", buffering=0) as content:
                self._say(context_opened=pb.ContextOpened())
                if os.fstat(content.fileno()).st_size != file.total_bytes:
                    raise SessionLostError(f"the context {file.name!r} is of another length")
                start = {"names": names, "kind": kind, "may_map": self._may_map}
                self._repl.send_context(start, content.fileno())
        except TimeoutError as error:
            raise SessionLostError(f"nobody takes the context {file.name!r}") from error
        except OSError as error:
            raise SessionLostError(f"the context {file.name!r} cannot be read") from error

    def _run_cell(self, command: pb.RunCell) -> None:
        self._cell = RunningCell(
            cell_id=command.cell_id,
            timeout_s=command.timeout.ToNanoseconds() / 1e9,
            sample_s=_SHORT_SAMPLE_S,
            output_bytes=self._limits.output_bytes,
            memory_kills=self._memory_kills,
        )
        self._repl.send(FrameKind.RUN, {"cell_id": command.cell_id, "source": command.source})
        self._repl.start_meter(self._cell.usage)  # while it begins

    def _stop_cell(self, command: pb.StopCell) -> None:
        cell = self._cell
        if cell is None or command.cell_id != cell.cell_id or cell.stop_reason:
            return
        cell.stop_reason = command.reason
        cell.kill_at_s = time.monotonic() + self._limits.grace.ToNanoseconds() / 1e9
        self._repl.interrupt()
        self._calls.settle_cancelled(cell)

    def _hear_repl(self) -> None:
        try:
            for frame in self._repl.receive():
                if frame.kind is FrameKind.RESULT:
                    self._end_cell(frame.claim())
                elif frame.kind is FrameKind.BOUND:
                    self._is_binding = False
                    return_memory()
                else:
                    self._calls.send(self._cell, frame.claim(kind=FrameKind.QUERY))
        except BadFrameError as error:
            self._repl.kill()
            self._replace_repl(endings.broke_form(str(error)))
        except ChannelClosedError:
            # It is ending, or a cell has closed its channel: either way it is of no more use. One
            # that was ending keeps the status it ended with.
            self._mourn(self._repl.end())

    def _forward_output(self, descriptor: int, *, reads: int = _DRAIN_READS) -> None:
        """Sends on what a cell has printed, within its limit; drops what nobody waits for."""
        is_stdout = descriptor == self._repl.stdout
        stream = pb.OUTPUT_STREAM_STDOUT if is_stdout else pb.OUTPUT_STREAM_STDERR
        for _ in range(reads):
            data = self._repl.read_output(descriptor)
            if not data:
                return
            if self._cell is not None:
                self._say_output(
                    stream, self._cell.offset_of(stream), self._cell.keep(stream, data)
                )

    def _say_output(
        self, stream: pb.OutputStream.ValueType, offset_bytes: int, data: bytes
    ) -> None:
        assert self._cell is not None  # noqa: S101 - only a running cell has output
        for start in range(0, len(data), wire.OUTPUT_PIECE_BYTES):
            self._say(
                cell_output=pb.CellOutput(
                    cell_id=self._cell.cell_id,
                    stream=stream,
                    data=data[start : start + wire.OUTPUT_PIECE_BYTES],
                    offset_bytes=offset_bytes + start,
                )
            )

    def _end_cell(self, report: JsonObject) -> None:
        cell = self._cell
        if cell is None or report.get("cell_id") != cell.cell_id:
            raise BadFrameError("a result for no running cell")
        outcome, error = str(report.get("outcome")), report.get("error")
        if cell.stop_reason == pb.STOP_REASON_TIMEOUT:
            outcome, error = "timed_out", endings.timed_out(cell.timeout_s)
        elif cell.stop_reason == pb.STOP_REASON_CANCELLED:
            outcome, error = "stopped", endings.stopped()
        state = "lost" if self._was_lost_idle else "kept"
        self._repl.end_leftovers()
        self._report(outcome=outcome, state=state, error=error, report=report)
        # Not before: a report of another form is refused, and then this cell has not ended yet.
        self._was_lost_idle = False
        self._repl.cell_count += 1
        # Only now: a spare forked any earlier would have been taken for a leftover.
        self._repl.send(FrameKind.LEAVE_SPARE, {})
        self._last_report = {**report, "is_ready": False}
        # Here, where nobody waits for it, and not when the next cell begins.
        self._memory_kills = endings.memory_kill_count()

    def _mourn(self, status: int) -> None:
        """Deals with the end of the live REPL process."""
        with contextlib.suppress(BadFrameError, ChannelClosedError):
            # What it said before it ended still counts.
            for frame in self._repl.receive():
                if frame.kind is FrameKind.RESULT:
                    self._end_cell(frame.claim())
        if self._is_binding:
            # A spare would not have the context, and no cell is to blame.
            raise SessionLostError(
                "the context could not be bound: it needs more memory than the sandbox has"
            )
        cell = self._cell
        was_memory = cell is not None and endings.memory_kill_count() > cell.memory_kills_at_start
        memory_bytes = self._limits.memory_bytes
        self._replace_repl(endings.died(status, was_memory=was_memory, memory_bytes=memory_bytes))

    def _replace_repl(self, error: JsonObject) -> None:
        """Lets a spare take the place of the dead REPL process, and ends the cell it ran."""
        self._repl.end_leftovers(with_live=True)
        self._selector.unregister(self._repl.connection)
        cell_count = self._repl.cell_count
        spare = self._repl.take_over()
        if spare is None:
            raise SessionLostError(f"no checkpoint is left: {error['message']}")
        self._selector.register(self._repl.connection, selectors.EVENT_READ)
        self._memory_kills = endings.memory_kill_count()
        is_newest = spare.cell_count == cell_count
        if not is_newest:
            self._last_report = {}
            if self._begin_run is not None:
                # It was forked when a context was bound, perhaps in an earlier run.
                self._repl.send(FrameKind.BEGIN_RUN, self._begin_run)
        cell = self._cell
        if cell is None:
            self._was_lost_idle = self._was_lost_idle or not is_newest
            return
        state = "rolled_back" if is_newest else "lost"
        outcome = "killed"
        if cell.stop_reason == pb.STOP_REASON_TIMEOUT:
            outcome = "timed_out"
        elif cell.stop_reason == pb.STOP_REASON_CANCELLED:
            outcome, error = "stopped", endings.stopped()
        self._report(outcome=outcome, state=state, error=error, report=self._last_report)

    def _report(
        self, *, outcome: str, state: str, error: JsonObject | None, report: JsonObject
    ) -> None:
        cell = self._cell
        assert cell is not None  # noqa: S101 - only a running cell is reported
        for descriptor in (self._repl.stdout, self._repl.stderr):
            # Everything it printed is in the pipe by now, and nobody is left to print more; the
            # bound is the pipe's largest size (pipe(7)), against a spare that a cell taught to.
            self._forward_output(descriptor, reads=_DRAIN_READS)
        tails = {stream: tape.rewind() for stream, tape in cell.tapes.items()}
        self._repl.sample(cell.usage)
        # Made before anything is said: a report of another form is refused here, and what had been
        # said of its cell by then would be said twice.
        result = wire.cell_result(
            cell_id=cell.cell_id,
            outcome=outcome,
            state=state,
            error=error,
            report=report,
            dropped_bytes={stream: dropped for stream, (_, _, dropped) in tails.items()},
            usage=wire.cell_usage(
                wall_s=cell.wall_s,
                cpu_s=cell.usage.cpu_s,
                peak_memory_bytes=cell.usage.peak_memory_bytes,
                query_count=cell.query_count,
            ),
        )
        for call in list(cell.calls):
            call.cancel()
        for stream, (tail, offset_bytes, _) in tails.items():
            self._say_output(stream, offset_bytes, tail)
        self._cell = None
        self._say(cell_result=result)

    def _say(
        self,
        *,
        hello: pb.WorkerHello | None = None,
        cell_output: pb.CellOutput | None = None,
        cell_result: pb.CellResult | None = None,
        context_opened: pb.ContextOpened | None = None,
    ) -> None:
        self._sequence += 1
        self._outbox.put(
            pb.WorkerMessage(
                sequence=self._sequence,
                hello=hello,
                cell_output=cell_output,
                cell_result=cell_result,
                context_opened=context_opened,
            )
        )
