"""What a broker's process says to the orchestrator, once somebody has taken that process over.

Holds: however frames are cut on their way, the same come out, and then the same error; nothing is
raised but what ends the link; a result or a query that is taken is within the sandbox's limits, and
is what it was when it is said and read again; a reason is one printable line.
"""

from __future__ import annotations

import struct
from typing import cast

from support.fuzz_data import FuzzData

from orchestrator.broker_process.cell_frames import read_result, result_parts
from orchestrator.broker_process.ending_frames import MAX_REASON_CHARS, read_end, read_start_error
from orchestrator.broker_process.fields import Fields, FrameError
from orchestrator.broker_process.frames import Bounds, Frame, FrameReader, KindBounds, Said, pack
from orchestrator.broker_process.query_frames import query_parts, read_query
from orchestrator.broker_process.setup_frames import (
    listening_fields,
    read_listening,
    read_walls,
    wall_fields,
)
from orchestrator.domain import CellId, Json, Outcome, VariableState
from orchestrator.limits import CellLimits, QueryLimits

CELL = CellLimits(output_bytes=40, answer_bytes=30)
RUN = QueryLimits(prompt_chars=20, batch_prompts=3)
BOUNDS: KindBounds = {
    Said.LOG: Bounds(header_bytes=40),
    Said.RESULT: Bounds(header_bytes=200, body_bytes=100_000),
    Said.QUERY: Bounds(header_bytes=60, body_bytes=300),
}
TOKENS = (
    *(
        b'"outcome":"succeeded"',
        b'"state":"kept"',
        b'"sizes":[0,0,0,0,0]',
        b'"stdout":',
        b'"stderr":',
    ),
    *(b'{"total_bytes":0,"dropped_bytes":0}', b'"is_ready":false', b'"variables":[["a","int",3]]'),
    *(
        b'"wall_s":0.5',
        b'"cpu_s":1e999',
        b'"query_id":"q1"',
        b'"model_alias":null',
        b"NaN",
        b"null",
    ),
    *(
        struct.pack("=BII", Said.LOG, 2, 0) + b"{}",
        struct.pack("=BII", Said.QUERY, 2, 3) + b"{}abc",
    ),
)


def TestOneInput(data: bytes) -> None:
    """Reads frames, or the fields of one."""
    fuzz = FuzzData(data)
    try:
        match fuzz.choice(("frames", "result", "query", "end", "listening", "walls")):
            case "frames":
                check_frames(fuzz)
            case "result":
                check_result(fuzz)
            case "query":
                check_query(fuzz)
            case "end":
                fields = Fields({"kind": fuzz.choice(KINDS), "reason": fuzz.json()})
                reason = read_end(fields).reason
                assert reason.isprintable()
                assert len(reason) <= 10 * MAX_REASON_CHARS
                assert reason in str(read_start_error(fields))
            case "listening":
                walls_said = read_listening(Fields({"walls": fuzz.json()}))
                assert read_listening(Fields(listening_fields(walls_said))) == walls_said
            case "walls":
                walls = read_walls(Fields(fuzz.json()), is_promise=fuzz.flag())
                assert read_walls(Fields(wall_fields(walls)), is_promise=True) == walls
    except FrameError as error:
        assert str(error)


KINDS = ("broken", "exceeded", "refused", "lost", "closed", "odd")


def read_all(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], str | None]:
    """Returns the frames, and the rule that was broken then, if one was."""
    reader = FrameReader(BOUNDS)
    frames: list[Frame] = []
    try:
        for piece in pieces:
            at = 0
            while at < len(piece):
                room = reader.room()
                assert len(room)
                taken = piece[at : at + len(room)]
                room[: len(taken)] = taken
                room.release()
                frames += reader.take(len(taken))
                at += len(taken)
    except FrameError as error:
        return _plain(frames), str(error)
    return _plain(frames), None


def _plain(frames: list[Frame]) -> list[tuple[int, bytes]]:
    return [(frame.kind, bytes(frame.body)) for frame in frames]


def check_frames(fuzz: FuzzData) -> None:
    """Reads the same bytes whole and in pieces."""
    cuts = [fuzz.integer(1, 40) for _ in range(fuzz.integer(0, 12))]
    stream = frames_of(fuzz) if fuzz.flag() else fuzz.rest()
    pieces, at = [], 0
    for size_bytes in cuts:
        pieces.append(stream[at : at + size_bytes])
        at += size_bytes
    whole, in_pieces = read_all([stream]), read_all([*pieces, stream[at:]])
    assert in_pieces[1] == whole[1]
    # The frames before a broken one are lost with it where they came at once.
    assert in_pieces[0][: len(whole[0])] == whole[0]
    assert whole[1] is not None or in_pieces == whole


def frames_of(fuzz: FuzzData) -> bytes:
    """Returns frames, one of which may be larger than the buffer for small ones."""
    frames = []
    for _ in range(fuzz.integer(0, 4)):
        body = fuzz.block(200) * fuzz.choice((1, 1, 400))
        kind = fuzz.choice([*BOUNDS, Said.PONG])
        frames.append(pack(cast("Said", kind), {"n": fuzz.integer(0, 9)}, len(body)) + body)
    return b"".join(frames)


def header_of(fuzz: FuzzData, **honest: Json) -> dict[str, Json]:
    """Returns an honest header in which a field may be anything."""
    header = dict(honest)
    for _ in range(fuzz.integer(0, 2)):
        header[fuzz.choice(sorted(honest))] = fuzz.json()
    return header


def sizes_of(fuzz: FuzzData, texts: list[bytes]) -> list[Json]:
    """Returns the sizes of texts, mostly."""
    sizes: list[Json] = [len(text) for text in texts]
    return [*sizes, fuzz.integer(-2, 5)] if fuzz.integer(0, 9) == 9 else sizes


def check_result(fuzz: FuzzData) -> None:
    """Reads a result."""
    texts = [fuzz.block(60) for _ in range(fuzz.choice((5, 5, 8, 6)))]
    printed: Json = {"total_bytes": fuzz.integer(0, 99), "dropped_bytes": 0}
    header = header_of(
        fuzz,
        outcome=fuzz.choice(list(Outcome)),
        state=fuzz.choice(list(VariableState)),
        sizes=sizes_of(fuzz, texts),
        stdout=printed,
        stderr=printed,
        is_ready=fuzz.flag(),
        variables=[[fuzz.text(12), fuzz.text(12), fuzz.choice((None, 3, -1, 1.5))]],
        wall_s=fuzz.integer(0, 2**40) / 8,
        cpu_s=0.5,
        peak_memory_bytes=fuzz.integer(0, 2**40),
        query_count=2,
    )
    frame = Frame(kind=Said.RESULT, fields=Fields(header), body=memoryview(b"".join(texts)))
    result = read_result(frame, cell_id=CellId(1), limits=CELL)
    assert len(result.answer.content.encode()) <= CELL.answer_bytes
    for printed_text in (result.stdout, result.stderr):
        kept = printed_text.head.encode() + printed_text.tail.encode()
        assert len(kept) <= 3 * CELL.output_bytes
    assert all(variable.name.isidentifier() for variable in result.variables)
    assert result.usage.wall_s >= 0
    fields, body = result_parts(result)
    again = Frame(kind=Said.RESULT, fields=Fields(fields), body=memoryview(body))
    assert read_result(again, cell_id=CellId(1), limits=CELL) == result


def check_query(fuzz: FuzzData) -> None:
    """Reads a query."""
    prompts = [fuzz.block(30) for _ in range(fuzz.integer(0, 4))]
    header = header_of(
        fuzz,
        number=1,
        query_id=fuzz.choice(("q1", fuzz.text(70))),
        model_alias=fuzz.choice((None, "small", fuzz.text(80))),
        sizes=sizes_of(fuzz, prompts),
    )
    frame = Frame(kind=Said.QUERY, fields=Fields(header), body=memoryview(b"".join(prompts)))
    query = read_query(frame, cell_id=CellId(1), limits=RUN)
    assert 1 <= len(query.prompts) <= RUN.batch_prompts
    assert max(map(len, query.prompts)) <= RUN.prompt_chars
    assert query.model_alias is None or len(query.model_alias) <= 64
    fields, body = query_parts(1, query)
    again = Frame(kind=Said.QUERY, fields=Fields(fields), body=memoryview(body))
    assert read_query(again, cell_id=CellId(1), limits=RUN) == query
