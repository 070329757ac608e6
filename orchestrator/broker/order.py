"""The order of the stream, as two small state machines.

Without it the rules of `sandbox.proto` would be spread over the code that reads messages, and each
fake in the tests would have its own idea of them. Both machines are pure: events in, nothing or an
error out.
"""

from __future__ import annotations

from orchestrator.domain import CellId, OutputStream
from orchestrator.errors import ProtocolViolationError

#: Bytes of one piece of output; `CellOutput.data` of the contract.
MAX_OUTPUT_PIECE_BYTES = 64 * 2**10
#: Output beyond twice the limit that is still no attack: one piece that was already under way.
OUTPUT_SLACK_BYTES = MAX_OUTPUT_PIECE_BYTES


class ExcessError(ProtocolViolationError):
    """The worker sent more than any cell could need; ends as RESOURCE_EXHAUSTED."""


class BrokerOrderError(RuntimeError):
    """The orchestrator itself was about to break the order; a mistake in the caller."""


class WorkerSide:
    """What a worker may say next, given what it was told."""

    def __init__(self, *, output_bytes: int) -> None:
        """Begins before the hello; `output_bytes` is `Limits.output_bytes`."""
        self._allowed_bytes = 2 * output_bytes + OUTPUT_SLACK_BYTES
        self._last_sequence = 0
        self._is_greeted = False
        self._running: CellId | None = None
        self._last_cell = CellId(0)
        self._is_file_offered = False
        self._end_offsets: dict[OutputStream, int] = {}
        self._printed_bytes: dict[OutputStream, int] = {}

    @property
    def is_greeted(self) -> bool:
        """Whether the hello has been said."""
        return self._is_greeted

    def cell_sent(self, cell_id: CellId) -> None:
        """Notes that the worker was told to run `cell_id`."""
        self._running = self._last_cell = cell_id
        self._end_offsets = dict.fromkeys(OutputStream, 0)
        self._printed_bytes = dict.fromkeys(OutputStream, 0)

    def file_sent(self) -> None:
        """Notes that the worker was told of a context's file."""
        self._is_file_offered = True

    def hello(self, *, sequence: int) -> None:
        """Accepts a `WorkerHello`.

        Raises:
            ProtocolViolationError: It is not the first message.
        """
        self._count(sequence)
        if self._is_greeted:
            raise ProtocolViolationError("hello is said once")
        self._is_greeted = True

    def output(
        self,
        *,
        sequence: int,
        cell_id: int,
        stream: OutputStream,
        offset_bytes: int,
        size_bytes: int,
    ) -> None:
        """Accepts a `CellOutput` of `size_bytes` at `offset_bytes`.

        Raises:
            ProtocolViolationError: It is for another cell, empty, or goes backwards.
            ExcessError: The piece, or what the cell printed in all, is over the limit.
        """
        self._count(sequence)
        self._require_running(cell_id, "output")
        if size_bytes == 0:
            raise ProtocolViolationError("output is not empty")
        if size_bytes > MAX_OUTPUT_PIECE_BYTES:
            raise ExcessError(
                f"a piece of output has at most {MAX_OUTPUT_PIECE_BYTES:,} bytes,"
                f" this one has {size_bytes:,}"
            )
        if offset_bytes < self._end_offsets[stream]:
            raise ProtocolViolationError(
                f"output does not go backwards: offset {offset_bytes} on {stream}"
                f" after {self._end_offsets[stream]}"
            )
        self._end_offsets[stream] = offset_bytes + size_bytes
        self._printed_bytes[stream] += size_bytes
        if self._printed_bytes[stream] > self._allowed_bytes:
            raise ExcessError(f"a cell forwards at most {self._allowed_bytes:,} bytes of {stream}")

    def result(self, *, sequence: int, cell_id: int) -> None:
        """Accepts a `CellResult`.

        Raises:
            ProtocolViolationError: No cell runs, or another one, or it has had its result.
        """
        self._count(sequence)
        self._require_running(cell_id, "a result")
        self._running = None

    def context_opened(self, *, sequence: int) -> None:
        """Accepts a `ContextOpened`.

        Raises:
            ProtocolViolationError: There is no file, or it has been opened.
        """
        self._count(sequence)
        if not self._is_file_offered:
            raise ProtocolViolationError("a context is opened once, where there is one")
        self._is_file_offered = False

    def _count(self, sequence: int) -> None:
        if sequence != self._last_sequence + 1:
            raise ProtocolViolationError(
                f"sequence has no gaps: {sequence} after {self._last_sequence}"
            )
        self._last_sequence = sequence

    def _require_running(self, claimed_cell_id: int, what: str) -> None:
        if not self._is_greeted:
            raise ProtocolViolationError("hello is said first")
        if claimed_cell_id <= 0:
            raise ProtocolViolationError(
                f"cell ids are positive: {what} for cell {claimed_cell_id}"
            )
        if claimed_cell_id == self._running:
            return
        if self._running is None and claimed_cell_id == self._last_cell:
            rule = f"nothing follows a result: {what} for cell {claimed_cell_id}, which has ended"
        elif self._running is None:
            rule = f"{what} for cell {claimed_cell_id} while no cell runs"
        else:
            rule = f"{what} for cell {claimed_cell_id} while cell {self._running} runs"
        raise ProtocolViolationError(rule)


class BrokerSide:
    """What an orchestrator may say next; numbers its messages as they are accepted."""

    def __init__(self) -> None:
        """Begins before the hello."""
        self._sequence = 0
        self._is_greeted = False
        self._is_shut_down = False
        self._running: CellId | None = None
        self._last_cell = CellId(0)
        self._context_name: str | None = None
        self._next_offset_bytes = 0

    def hello(self) -> int:
        """Accepts a `BrokerHello` and returns its sequence number.

        Raises:
            BrokerOrderError: It has been said.
        """
        if self._is_greeted:
            raise BrokerOrderError("hello is said once")
        self._is_greeted = True
        return self._count()

    def context_chunk(
        self, *, name: str, offset_bytes: int, size_bytes: int, total_bytes: int
    ) -> int:
        """Accepts a `ContextChunk` and returns its sequence number.

        Raises:
            BrokerOrderError: A cell runs, or the piece does not follow the one before.
        """
        self._require_between_cells("a context")
        if self._context_name not in {None, name}:
            raise BrokerOrderError(f"{self._context_name} is not complete; {name} cannot begin")
        if offset_bytes != self._next_offset_bytes or offset_bytes + size_bytes > total_bytes:
            raise BrokerOrderError(
                f"bytes {offset_bytes} to {offset_bytes + size_bytes} of {total_bytes}"
                f" do not follow {self._next_offset_bytes}"
            )
        is_last = offset_bytes + size_bytes == total_bytes
        self._context_name = None if is_last else name
        self._next_offset_bytes = 0 if is_last else offset_bytes + size_bytes
        return self._count()

    def context_file(self, *, name: str) -> int:
        """Accepts a `ContextFile` and returns its sequence number.

        Raises:
            BrokerOrderError: A cell runs, or a context is incomplete.
        """
        self._require_between_cells("a context")
        if self._context_name is not None:
            raise BrokerOrderError(f"{self._context_name} is not complete; {name} cannot begin")
        return self._count()

    def begin_run(self) -> int:
        """Accepts a `BeginRun` and returns its sequence number.

        Raises:
            BrokerOrderError: A cell runs, or a context is incomplete.
        """
        self._require_between_cells("a run")
        if self._context_name is not None:
            raise BrokerOrderError(f"{self._context_name} is not complete; a run cannot begin")
        return self._count()

    def run_cell(self, cell_id: CellId) -> int:
        """Accepts a `RunCell` and returns its sequence number.

        Raises:
            BrokerOrderError: A cell runs, a context is incomplete, or the id is not a larger one.
        """
        self._require_between_cells("a cell")
        if self._context_name is not None:
            raise BrokerOrderError(f"{self._context_name} is not complete; a cell cannot begin")
        if cell_id <= self._last_cell:
            raise BrokerOrderError(f"cell ids grow: {cell_id} after {self._last_cell}")
        self._running = self._last_cell = cell_id
        return self._count()

    def cell_ended(self) -> None:
        """Notes that the running cell has had its result."""
        self._running = None

    def stop_cell(self) -> int:
        """Accepts a `StopCell`, for any cell, and returns its sequence number.

        Raises:
            BrokerOrderError: Before hello, or after the shutdown.
        """
        self._require_open("a stop")
        return self._count()

    def shutdown(self) -> int:
        """Accepts a `Shutdown` and returns its sequence number.

        Raises:
            BrokerOrderError: Before hello, or after a shutdown.
        """
        self._require_open("a shutdown")
        self._is_shut_down = True
        return self._count()

    def _require_open(self, what: str) -> None:
        if not self._is_greeted or self._is_shut_down:
            raise BrokerOrderError(f"{what} is sent after hello and before the shutdown")

    def _require_between_cells(self, what: str) -> None:
        self._require_open(what)
        if self._running is not None:
            raise BrokerOrderError(
                f"{what} cannot begin while cell {self._running} runs; calls must not overlap"
            )

    def _count(self) -> int:
        self._sequence += 1
        return self._sequence
