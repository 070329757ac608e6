"""The order of a stream and what is kept of its output, under any sequence of events.

Holds: what is accepted is what the rules of `sandbox.proto`, stated here a second time, accept; a
refusal is a violation; of what a cell printed no more is kept than was asked for, and the figures
of what was left out add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from support.fuzz_data import FuzzData

from orchestrator.broker.order import MAX_OUTPUT_PIECE_BYTES, OUTPUT_SLACK_BYTES, WorkerSide
from orchestrator.broker.tape import HostTape
from orchestrator.domain import CellId, OutputStream
from orchestrator.errors import ProtocolViolationError

OUTPUT_BYTES = 3000
KEEP_BYTES = 64
ALLOWED_BYTES = 2 * OUTPUT_BYTES + OUTPUT_SLACK_BYTES
BIG = bytes(MAX_OUTPUT_PIECE_BYTES + 1)


def TestOneInput(data: bytes) -> None:
    """Plays events until the first violation, as the broker does."""
    fuzz = FuzzData(data)
    stream = Stream(fuzz)
    with suppress(ProtocolViolationError):
        while not fuzz.is_used_up:
            stream.step()


class Stream:
    """One stream, as the code under test and as the rules have it."""

    def __init__(self, fuzz: FuzzData) -> None:
        """Begins before the hello."""
        self._fuzz = fuzz
        self._worker = WorkerSide(output_bytes=OUTPUT_BYTES)
        self._tapes = {stream: HostTape(keep_bytes=KEEP_BYTES) for stream in OutputStream}
        self._sequence = 0
        self._is_greeted = False
        self._is_file_there = False
        self._running: int | None = None
        self._last_cell = 0
        self._ends = dict.fromkeys(OutputStream, 0)
        self._printed = dict.fromkeys(OutputStream, 0)

    def step(self) -> None:
        """Lets the next thing happen."""
        match self._fuzz.choice((*("hello", "cell", "file", "opened"), *["output"] * 3, "result")):
            case "hello":
                sequence = self._next_sequence()
                with self._allowed(sequence, is_in_order=not self._is_greeted):
                    self._worker.hello(sequence=sequence)
                self._is_greeted = True
            case "file" if self._is_greeted:
                self._worker.file_sent()
                self._is_file_there = True
            case "opened":
                sequence = self._next_sequence()
                with self._allowed(sequence, is_in_order=self._is_file_there):
                    self._worker.context_opened(sequence=sequence)
                self._is_file_there = False
            case "cell":
                self._run_cell()
            case "output":
                self._print()
            case "result":
                sequence, cell_id = self._next_sequence(), self._cell_id()
                with self._allowed(sequence, is_in_order=self._is_of_running_cell(cell_id)):
                    self._worker.result(sequence=sequence, cell_id=cell_id)
                self._check_tapes()
                self._running = None

    def _run_cell(self) -> None:
        if self._running is not None:
            return  # the orchestrator's own mistake, and not what is tried here
        self._last_cell += self._fuzz.integer(1, 3)
        self._running = self._last_cell
        self._worker.cell_sent(CellId(self._running))
        self._tapes = {stream: HostTape(keep_bytes=KEEP_BYTES) for stream in OutputStream}
        self._ends = dict.fromkeys(OutputStream, 0)
        self._printed = dict.fromkeys(OutputStream, 0)

    def _print(self) -> None:
        sequence, cell_id = self._next_sequence(), self._cell_id()
        stream = self._fuzz.choice(list(OutputStream))
        piece = self._fuzz.block(90)
        if self._fuzz.integer(0, 15) == 15:
            piece = BIG[: len(BIG) - self._fuzz.integer(0, 2)]
        offset = self._ends[stream] + (self._fuzz.integer(-3, 90) if self._is_odd() else 0)
        is_in_order = (
            self._is_of_running_cell(cell_id)
            and 0 < len(piece) <= MAX_OUTPUT_PIECE_BYTES
            and offset >= self._ends[stream]
            and self._printed[stream] + len(piece) <= ALLOWED_BYTES
        )
        with self._allowed(sequence, is_in_order=is_in_order):
            self._worker.output(
                sequence=sequence,
                cell_id=cell_id,
                stream=stream,
                offset_bytes=offset,
                size_bytes=len(piece),
            )
        self._tapes[stream].write(piece, offset_bytes=offset)
        self._ends[stream] = offset + len(piece)
        self._printed[stream] += len(piece)

    def _is_odd(self) -> bool:
        # Seldom: the first thing out of order ends a stream, and what follows is never tried.
        return self._fuzz.integer(0, 9) == 9

    def _next_sequence(self) -> int:
        return self._sequence + (self._fuzz.integer(-2, 3) if self._is_odd() else 1)

    def _cell_id(self) -> int:
        return (self._running or 0) + (self._fuzz.integer(-1, 2) if self._is_odd() else 0)

    def _is_of_running_cell(self, cell_id: int) -> bool:
        return self._is_greeted and self._running is not None and cell_id == self._running

    @contextmanager
    def _allowed(self, sequence: int, *, is_in_order: bool) -> Iterator[None]:
        is_allowed = is_in_order and sequence == self._sequence + 1
        try:
            yield
        except ProtocolViolationError:
            assert not is_allowed
            raise
        assert is_allowed
        self._sequence = sequence

    def _check_tapes(self) -> None:
        for stream, tape in self._tapes.items():
            printed = tape.printed(claimed_dropped_bytes=self._fuzz.integer(0, 2**20))
            kept = printed.head.encode() + printed.tail.encode()
            assert 0 <= printed.dropped_bytes <= printed.total_bytes
            assert printed.total_bytes >= max(self._ends[stream], self._printed[stream])
            # A byte that is no UTF-8 becomes U+FFFD, which has three.
            assert len(kept) <= 3 * KEEP_BYTES
            assert printed.total_bytes - printed.dropped_bytes <= KEEP_BYTES
