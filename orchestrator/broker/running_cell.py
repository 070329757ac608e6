"""The cell that runs: what it has printed, its clock, and how it ends.

Without it the code that reads messages and the code that waits for a cell would have to share a
dozen variables.
"""

from __future__ import annotations

import asyncio

from orchestrator.broker.claims import ClaimedOutput, ClaimedResult
from orchestrator.broker.clock import CellClock
from orchestrator.broker.tape import HostTape
from orchestrator.domain import CellId, CellResult, OutputStream
from orchestrator.errors import SandboxError
from orchestrator.ports import OutputSink


class RunningCell:
    """One cell, from `RunCell` to its result."""

    def __init__(
        self,
        *,
        cell_id: CellId,
        timeout_s: float,
        output_bytes: int,
        on_output: OutputSink | None,
    ) -> None:
        """Starts the cell's clock."""
        self.cell_id = cell_id
        self.clock = CellClock(timeout_s=timeout_s, expire=self._expire)
        self._stdout = HostTape(keep_bytes=output_bytes)
        self._stderr = HostTape(keep_bytes=output_bytes)
        self._on_output = on_output
        self._claimed: ClaimedResult | None = None
        self._stream_error: SandboxError | None = None
        self._sink_error: Exception | None = None
        self._has_expired = False
        self.is_stopped = False
        self._news: asyncio.Future[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the result has come, or never will."""
        return self._claimed is not None or self._stream_error is not None

    def take_output(self, output: ClaimedOutput) -> None:
        """Keeps a piece of output and shows it to the caller."""
        tape = self._stdout if output.stream is OutputStream.STDOUT else self._stderr
        tape.write(output.data, offset_bytes=output.offset_bytes)
        if self._on_output is None:
            return
        try:
            self._on_output(output.stream, output.data)
        except Exception as error:  # noqa: BLE001 # it is the caller's own, and goes back there
            self._on_output = None
            self._sink_error = error
            self._wake()

    def take_result(self, result: ClaimedResult) -> None:
        """Ends the cell with its result."""
        self._claimed = result
        self._wake()

    def take_stream_end(self, error: SandboxError) -> None:
        """Ends a cell that will have no result."""
        self._stream_error = error
        self._wake()

    def stop(self) -> None:
        """Makes `wait` return now: whoever waits has had enough of the cell."""
        self.is_stopped = self._has_expired = True
        self._wake()

    def stop_clock(self) -> None:
        """Makes `wait` wait for the end alone."""
        self.clock.stop()
        self._has_expired = False

    async def wait(self) -> None:
        """Returns when the cell has a result, its clock has run out or it is to stop.

        Raises:
            SandboxError: The stream ended first.
            Exception: The caller's sink raised it.
        """
        while not (self.has_ended or self._has_expired or self._sink_error):
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        if self._sink_error is not None:
            error, self._sink_error = self._sink_error, None
            raise error
        if self._stream_error is not None:
            raise self._stream_error

    def result(self) -> CellResult:
        """Returns how the cell ended; to be called once it has."""
        claimed = self._claimed
        if claimed is None:
            raise RuntimeError(f"cell {self.cell_id} has no result")
        return CellResult(
            cell_id=self.cell_id,
            outcome=claimed.outcome,
            state=claimed.state,
            stdout=self._stdout.printed(claimed_dropped_bytes=claimed.dropped_stdout_bytes),
            stderr=self._stderr.printed(claimed_dropped_bytes=claimed.dropped_stderr_bytes),
            error=claimed.error,
            answer=claimed.answer,
            variables=claimed.variables,
            usage=claimed.usage,
        )

    def _expire(self) -> None:
        self._has_expired = True
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
