"""The one call that is under way at a broker's process: a context that is bound, a cell that runs.

Without it what the process may say next would be a dozen variables, and a frame that answers no
call could end one.
"""

from __future__ import annotations

import asyncio

from orchestrator.broker.clock import CellClock
from orchestrator.broker.order import MAX_OUTPUT_PIECE_BYTES, OUTPUT_SLACK_BYTES
from orchestrator.broker_process.fields import FrameError
from orchestrator.broker_process.frames import Frame
from orchestrator.domain import CellId, CellResult, OutputStream
from orchestrator.errors import SandboxError
from orchestrator.ports import OutputSink

#: Pieces of a context that are under way. One is in the worker's socket, one in the broker's
#: process, one between the two processes; measured, more make nothing faster.
WINDOW_PIECES = 4


class BindCall:
    """A context on its way."""

    def __init__(self) -> None:
        """Begins with nothing sent, in the running event loop."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way = 0
        self._room: asyncio.Future[None] | None = None

    async def room(self) -> None:
        """Returns when another piece may be sent, and counts it; or when the call is done."""
        while self._under_way >= WINDOW_PIECES and not self.done.done():
            self._room = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._room, self.done}, return_when=asyncio.FIRST_COMPLETED)
        self._under_way += 1

    def take_piece_taken(self) -> None:
        """Makes room for another piece.

        Raises:
            FrameError: None is under way.
        """
        if self._under_way == 0:
            raise FrameError("a piece is taken that was sent")
        self._under_way -= 1
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def take_bound(self) -> None:
        """Ends the call.

        Raises:
            FrameError: Pieces are under way.
        """
        if self._under_way:
            raise FrameError("a context is bound when its pieces are taken")
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: SandboxError) -> None:
        """Ends the call without success."""
        if not self.done.done():
            self.done.set_exception(error)


class RunCall:
    """A cell that runs.

    Attributes:
        cell_id: Its id.
        clock: Runs out when the broker's process ought to have ended it long ago.
        done: Its result; None if it was stopped because the caller wanted it.
        sink_error: What the caller's sink raised.
        is_cancelled: Whether the broker's process was told to stop it.
        wants_output: Whether output is to be sent as it is printed.
    """

    def __init__(
        self, *, cell_id: CellId, clock: CellClock, output_bytes: int, on_output: OutputSink | None
    ) -> None:
        """Begins in the running event loop."""
        self.cell_id = cell_id
        self.clock = clock
        self.done: asyncio.Future[CellResult | None] = asyncio.get_running_loop().create_future()
        self.sink_error: Exception | None = None
        self.is_cancelled = False
        self.wants_output = on_output is not None
        self._on_output = on_output
        self._allowed_bytes = dict.fromkeys(OutputStream, 2 * output_bytes + OUTPUT_SLACK_BYTES)

    def take_output(self, frame: Frame) -> None:
        """Shows a piece of output to the caller.

        Raises:
            FrameError: Nobody asked for it, or there is more of it than a cell may print.
        """
        if not self.wants_output:
            raise FrameError("output is sent where somebody watches")
        stream = frame.fields.member("stream", OutputStream)
        if not 0 < len(frame.body) <= MAX_OUTPUT_PIECE_BYTES:
            raise FrameError(f"a piece of output has 1 to {MAX_OUTPUT_PIECE_BYTES:,} bytes")
        self._allowed_bytes[stream] -= len(frame.body)
        if self._allowed_bytes[stream] < 0:
            raise FrameError(f"a cell prints no more of {stream} than it may")
        if self._on_output is None:
            return
        try:
            self._on_output(stream, bytes(frame.body))
        except Exception as error:  # noqa: BLE001 # it is the caller's own, and goes back there
            self._on_output = None
            self.sink_error = error

    def take_result(self, result: CellResult) -> None:
        """Ends the call."""
        if not self.done.done():
            self.done.set_result(result)

    def take_cancelled(self) -> None:
        """Ends the call as the caller wanted.

        Raises:
            FrameError: Nobody wanted it.
        """
        if not self.is_cancelled:
            raise FrameError("a call is cancelled by whoever made it")
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: SandboxError) -> None:
        """Ends the call without success."""
        if not self.done.done():
            self.done.set_exception(error)
