"""What the REPL process reports, as the worker puts it into messages: any JSON, from a liar.

Holds: nothing is raised but a bad frame; a message that is made of it can be sent, is one the
broker accepts, and is no larger than a message may be.
"""

from __future__ import annotations

import json

from support.fuzz_data import FuzzData

from orchestrator.broker.answers import MAX_MESSAGE_BYTES
from orchestrator.broker.claims import read_query, read_worker_message
from rlm_sandbox.v1 import sandbox_pb2 as pb
from sandbox_image import wire
from sandbox_image.repl.channel import BadFrameError, Frame, FrameKind, JsonObject

ANSWER_BYTES = 1000
_OUTCOMES = ("succeeded", "raised", "rejected", "killed", "odd")
TOKENS = (
    *(
        b'"cell_id": 7',
        b'"outcome"',
        b'"succeeded"',
        b'"raised"',
        b'"error"',
        b'"type_name"',
        b'"message"',
    ),
    *(b'"traceback"', b'"content"', b'"is_ready"', b'"variables"', b'"name"', b'"type"', b'"size"'),
    *(
        b'"prompts"',
        b'["a"]',
        b'"model"',
        b"null",
        b"1e999",
        b"-1",
        b'"\\ud800"',
        b"99999999999999999999",
    ),
)


def TestOneInput(data: bytes) -> None:
    """Makes a result and a query of one report."""
    fuzz = FuzzData(data)
    is_query = fuzz.flag()
    report = report_of(fuzz)
    if report is None:
        return
    try:
        if is_query:
            check_query(report)
        else:
            check_result(report)
    except BadFrameError:
        return


def report_of(fuzz: FuzzData) -> JsonObject | None:
    """Returns a report: raw JSON, or one that is near what an honest process sends."""
    if fuzz.flag():
        try:
            return Frame(FrameKind.RESULT, fuzz.rest()).claim()
        except BadFrameError:
            return None
    return {
        "cell_id": 7,
        "query_id": fuzz.text(20),
        "outcome": fuzz.choice(_OUTCOMES),
        "error": fuzz.choice([None, {"type_name": fuzz.text(20), "message": fuzz.json()}]),
        "content": fuzz.text() * 2**15 if fuzz.integer(0, 40) == 40 else fuzz.json(),
        "is_ready": fuzz.json(),
        "variables": [
            {"name": fuzz.json(), "type": fuzz.json(), "size": fuzz.json()}
            for _ in range(fuzz.integer(0, 3))
        ],
        "prompts": [fuzz.text() * 2**15] if fuzz.integer(0, 40) == 40 else fuzz.json(),
        "model": fuzz.text(90) if fuzz.flag() else fuzz.json(),
    }


def check_result(report: JsonObject) -> None:
    """Makes a result, and reads it as the broker does."""
    result = wire.cell_result(
        cell_id=7,
        outcome=str(report.get("outcome")),
        state="kept",
        error=report.get("error"),
        report=report,
        dropped_bytes={pb.OUTPUT_STREAM_STDOUT: 0, pb.OUTPUT_STREAM_STDERR: 0},
        usage=wire.cell_usage(wall_s=1.5, cpu_s=0.5, peak_memory_bytes=2**20, query_count=0),
    )
    raw = pb.WorkerMessage(sequence=1, cell_result=result).SerializeToString()
    assert len(raw) <= MAX_MESSAGE_BYTES
    read_worker_message(raw, answer_bytes=ANSWER_BYTES)


def check_query(report: JsonObject) -> None:
    """Makes the requests of one query, and reads them as the broker does."""
    requests = wire.query_requests(report, query_id="q1", cell_id=7)
    prompts = [prompt for request in requests for prompt in request.message.prompts]
    counts = [request.prompt_count for request in requests]
    assert sum(counts) == len(prompts) == len(report["prompts"])
    for message in (m for request in requests for m in (*request.parts, request.message)):
        raw = message.SerializeToString()
        # One prompt that is too large is answered by the worker itself, and not sent.
        assert len(raw) <= MAX_MESSAGE_BYTES or len(message.prompts) == 1
        read_query(raw)
    assert json.loads(json.dumps(prompts)) == prompts
