"""A `WorkerMessage` as the broker reads it: bytes that a hostile worker chose.

Holds: nothing is raised but a violation of the protocol; what is accepted is within the figures of
`sandbox.proto`; the same bytes are read the same way twice.
"""

from __future__ import annotations

from dataclasses import asdict

from orchestrator.broker.claims import (
    Claim,
    ClaimedHello,
    ClaimedOutput,
    ClaimedResult,
    read_worker_message,
)
from orchestrator.domain import Outcome
from orchestrator.errors import ProtocolViolationError

ANSWER_BYTES = 100
YEAR_S = 365 * 86400


def TestOneInput(data: bytes) -> None:
    """Reads a message and checks the bounds of what it says."""
    try:
        sequence, claim = read_worker_message(data, answer_bytes=ANSWER_BYTES)
    except ProtocolViolationError:
        return
    assert -(2**63) <= sequence < 2**63
    check_claim(claim, raw_bytes=len(data))
    assert read_worker_message(data, answer_bytes=ANSWER_BYTES) == (sequence, claim)


def check_claim(claim: Claim, *, raw_bytes: int) -> None:
    """Checks one claim that was accepted."""
    match claim:
        case ClaimedHello():
            assert 1 <= claim.min_version <= claim.max_version
            assert len(claim.image_release) <= 100
            assert len(claim.kernel_release) <= 200
            for wall in asdict(claim.walls).values():
                if isinstance(wall, frozenset | dict):
                    assert len(wall) <= 64
                    assert all(len(item) <= 64 for item in wall if isinstance(item, str))
        case ClaimedOutput():
            assert claim.offset_bytes >= 0
            # What a message holds beside its data would be memory that no limit counts.
            assert len(claim.data) <= raw_bytes <= len(claim.data) + 128
        case ClaimedResult():
            check_result(claim)


def check_result(result: ClaimedResult) -> None:
    """Checks a result."""
    assert len(result.answer.content.encode()) <= ANSWER_BYTES
    assert (result.error is None) == (result.outcome is Outcome.SUCCEEDED)
    if result.error is not None:
        assert 1 <= len(result.error.type_name) <= 200
        assert len(result.error.message.encode()) <= 8 * 2**10
        assert len(result.error.traceback.encode()) <= 16 * 2**10
    assert len(result.variables) <= 200
    for variable in result.variables:
        assert variable.name.isidentifier()
        assert max(len(variable.name), len(variable.type_name)) <= 200
        assert variable.size is None or variable.size >= 0
    usage = result.usage
    assert 0 <= usage.wall_s <= YEAR_S
    assert 0 <= usage.cpu_s <= YEAR_S
    sizes = (usage.peak_memory_bytes, usage.query_count)
    assert min(*sizes, result.dropped_stdout_bytes, result.dropped_stderr_bytes) >= 0
