from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.broker.order import (
    MAX_OUTPUT_PIECE_BYTES,
    OUTPUT_SLACK_BYTES,
    BrokerOrderError,
    BrokerSide,
    ExcessError,
    WorkerSide,
)
from orchestrator.domain import CellId, OutputStream
from orchestrator.errors import ProtocolViolationError

OUTPUT_BYTES = 1000
STDOUT, STDERR = OutputStream.STDOUT, OutputStream.STDERR


def worker_in_cell_7() -> WorkerSide:
    """Returns a worker that has said hello and ten bytes, and runs cell 7."""
    worker = WorkerSide(output_bytes=OUTPUT_BYTES)
    worker.hello(sequence=1)
    worker.cell_sent(CellId(7))
    print_to(worker, sequence=2, size_bytes=10)
    return worker


def print_to(  # the fields of one message
    worker: WorkerSide,
    *,
    sequence: int,
    cell_id: int = 7,
    stream: OutputStream = STDOUT,
    offset_bytes: int = 0,
    size_bytes: int = 1,
) -> None:
    """Says a piece of output."""
    worker.output(
        sequence=sequence,
        cell_id=cell_id,
        stream=stream,
        offset_bytes=offset_bytes,
        size_bytes=size_bytes,
    )


def test_honest_worker_is_accepted() -> None:
    """A whole life in the order of the contract breaks no rule."""
    worker = worker_in_cell_7()
    print_to(worker, sequence=3, stream=STDERR)
    print_to(worker, sequence=4, offset_bytes=10)
    print_to(worker, sequence=5, offset_bytes=5000)
    worker.result(sequence=6, cell_id=7)
    worker.cell_sent(CellId(9))
    print_to(worker, sequence=7, cell_id=9)
    worker.result(sequence=8, cell_id=9)


VIOLATIONS: dict[str, tuple[Callable[[WorkerSide], None], str]] = {
    "sequence gap": (lambda worker: worker.result(sequence=4, cell_id=7), "4 after 2"),
    "sequence repeated": (lambda worker: worker.result(sequence=2, cell_id=7), "2 after 2"),
    "sequence negative": (lambda worker: worker.result(sequence=-1, cell_id=7), "-1 after 2"),
    "second hello": (lambda worker: worker.hello(sequence=3), "hello is said once"),
    "output of a later cell": (
        lambda worker: print_to(worker, sequence=3, cell_id=8),
        "output for cell 8 while cell 7 runs",
    ),
    "output of cell 0": (
        lambda worker: print_to(worker, sequence=3, cell_id=0),
        "cell ids are positive",
    ),
    "result of a later cell": (
        lambda worker: worker.result(sequence=3, cell_id=8),
        "a result for cell 8 while cell 7 runs",
    ),
    "result of a negative cell": (
        lambda worker: worker.result(sequence=3, cell_id=-7),
        "cell ids are positive",
    ),
    "empty output": (
        lambda worker: print_to(worker, sequence=3, offset_bytes=10, size_bytes=0),
        "output is not empty",
    ),
    "output goes backwards": (
        lambda worker: print_to(worker, sequence=3, offset_bytes=9),
        "offset 9 on stdout after 10",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_broken_rule_is_named(name: str) -> None:
    """Each rule a worker can break while a cell runs is broken once, and says which it is."""
    act, words = VIOLATIONS[name]
    with pytest.raises(ProtocolViolationError, match=words) as caught:
        act(worker_in_cell_7())

    assert not isinstance(caught.value, ExcessError)


def test_hello_comes_first() -> None:
    """Nothing is heard before the hello."""
    with pytest.raises(ProtocolViolationError, match="hello is said first"):
        print_to(WorkerSide(output_bytes=OUTPUT_BYTES), sequence=1)


@pytest.mark.parametrize("cell_id", [7, 8])
def test_idle_worker_says_nothing(cell_id: int) -> None:
    """After a result neither another result nor output is heard until the next cell."""
    for late in (
        lambda worker: worker.result(sequence=4, cell_id=cell_id),
        lambda worker: print_to(worker, sequence=4, cell_id=cell_id, offset_bytes=10),
    ):
        worker = worker_in_cell_7()
        worker.result(sequence=3, cell_id=7)
        with pytest.raises(ProtocolViolationError, match=r"no cell runs|nothing follows a result"):
            late(worker)


def test_oversized_piece_is_an_excess() -> None:
    """A piece of exactly the limit is heard, one byte more is not."""
    worker = WorkerSide(output_bytes=MAX_OUTPUT_PIECE_BYTES)
    worker.hello(sequence=1)
    worker.cell_sent(CellId(7))
    print_to(worker, sequence=2, size_bytes=MAX_OUTPUT_PIECE_BYTES)
    with pytest.raises(ExcessError, match="at most 65,536 bytes"):
        print_to(
            worker,
            sequence=3,
            offset_bytes=MAX_OUTPUT_PIECE_BYTES,
            size_bytes=MAX_OUTPUT_PIECE_BYTES + 1,
        )


def test_output_is_bounded_for_each_cell_and_stream() -> None:
    """Each stream of each cell has its own bound, and one byte over it is an excess."""
    worker = WorkerSide(output_bytes=OUTPUT_BYTES)
    worker.hello(sequence=1)
    sequence = 1
    for cell_id in (1, 2):
        worker.cell_sent(CellId(cell_id))
        for stream in OutputStream:
            for offset_bytes, size_bytes in (
                (0, OUTPUT_SLACK_BYTES),
                (OUTPUT_SLACK_BYTES, 2 * OUTPUT_BYTES),
            ):
                sequence += 1
                print_to(
                    worker,
                    sequence=sequence,
                    cell_id=cell_id,
                    stream=stream,
                    offset_bytes=offset_bytes,
                    size_bytes=size_bytes,
                )
    with pytest.raises(ExcessError, match="at most 67,536 bytes of stderr"):
        print_to(worker, sequence=sequence + 1, cell_id=2, stream=STDERR, offset_bytes=10**6)


def test_file_is_opened_once_each_time_there_is_one() -> None:
    """A worker says that it has opened a context after it was told of one, and not again."""
    worker = WorkerSide(output_bytes=MAX_OUTPUT_PIECE_BYTES)
    worker.hello(sequence=1)
    for sequence in (2, 3):
        worker.file_sent()
        worker.context_opened(sequence=sequence)

    with pytest.raises(ProtocolViolationError, match="opened once, where there is one"):
        worker.context_opened(sequence=4)


def test_honest_orchestrator_is_numbered_without_gaps() -> None:
    """A whole life in the order of the contract is numbered from 1."""
    broker = BrokerSide()
    numbers = [
        broker.hello(),
        broker.context_chunk(name="context", offset_bytes=0, size_bytes=4, total_bytes=6),
        broker.context_chunk(name="context", offset_bytes=4, size_bytes=2, total_bytes=6),
        broker.context_chunk(name="context_1", offset_bytes=0, size_bytes=0, total_bytes=0),
        broker.context_file(name="context_2"),
        broker.run_cell(CellId(1)),
        broker.stop_cell(),
    ]
    broker.cell_ended()
    numbers += [broker.run_cell(CellId(3)), broker.shutdown()]

    assert numbers == list(range(1, 10))


def broker_said(*said: str) -> BrokerSide:
    """Returns an orchestrator that has said what is named, and nothing else."""
    broker = BrokerSide()
    for name in said:
        SAY[name](broker)
    return broker


SAY: dict[str, Callable[[BrokerSide], object]] = {
    "hello": BrokerSide.hello,
    "half a context": lambda broker: broker.context_chunk(
        name="context", offset_bytes=0, size_bytes=4, total_bytes=6
    ),
    "the wrong half": lambda broker: broker.context_chunk(
        name="context", offset_bytes=0, size_bytes=6, total_bytes=6
    ),
    "more than the rest": lambda broker: broker.context_chunk(
        name="context", offset_bytes=4, size_bytes=3, total_bytes=6
    ),
    "another context": lambda broker: broker.context_chunk(
        name="other", offset_bytes=4, size_bytes=2, total_bytes=6
    ),
    "a file": lambda broker: broker.context_file(name="other"),
    "cell 5": lambda broker: broker.run_cell(CellId(5)),
    "cell 5 ended": BrokerSide.cell_ended,
    "cell 4": lambda broker: broker.run_cell(CellId(4)),
    "stop": BrokerSide.stop_cell,
    "shutdown": BrokerSide.shutdown,
}


@pytest.mark.parametrize(
    "said",
    [
        ("cell 5",),
        ("stop",),
        ("shutdown",),
        ("hello", "hello"),
        ("hello", "half a context", "the wrong half"),
        ("hello", "half a context", "more than the rest"),
        ("hello", "half a context", "another context"),
        ("hello", "half a context", "a file"),
        ("hello", "half a context", "cell 5"),
        ("hello", "cell 5", "cell 4"),
        ("hello", "cell 5", "half a context"),
        ("hello", "cell 5", "a file"),
        ("hello", "cell 5", "cell 5 ended", "cell 5"),
        ("hello", "cell 5", "cell 5 ended", "cell 4"),
        ("hello", "shutdown", "cell 5"),
        ("hello", "shutdown", "stop"),
        ("hello", "shutdown", "shutdown"),
    ],
    ids=" > ".join,
)
def test_orchestrator_keeps_the_order_too(said: tuple[str, ...]) -> None:
    """What the orchestrator must not say next is its own mistake, never the sandbox's."""
    broker = broker_said(*said[:-1])
    with pytest.raises(BrokerOrderError):
        SAY[said[-1]](broker)
