from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scripted_worker import WALLS, hello, result

from orchestrator.broker import wire
from orchestrator.broker.answers import MAX_MESSAGE_BYTES
from orchestrator.broker.claims import (
    ClaimedHello,
    ClaimedOutput,
    ClaimedPart,
    ClaimedResult,
    read_query,
    read_worker_message,
)
from orchestrator.domain import (
    CellId,
    Outcome,
    OutputStream,
    QueryAnswer,
    QueryFailure,
    QueryFailureReason,
    VariableState,
)
from orchestrator.errors import ProtocolViolationError
from rlm_sandbox.v1 import sandbox_pb2 as pb

ANSWER_BYTES = 100

int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(max_size=300)
durations = st.builds(Duration, seconds=int64, nanos=int32)
results = st.builds(
    pb.CellResult,
    cell_id=int64,
    outcome=int32 | st.integers(0, 7),
    error=st.none()
    | st.builds(
        pb.CellError,
        type_name=text,
        message=st.text(max_size=50).map(lambda word: word * 400),
        traceback=st.text(max_size=50).map(lambda word: word * 800),
    ),
    answer=st.none() | st.builds(pb.Answer, content=text, is_ready=st.booleans()),
    variables=st.lists(
        st.builds(pb.Variable, name=text | st.just("x"), type_name=text, size=st.none() | int64),
        max_size=3,
    ).map(lambda variables: variables * 100),
    dropped_stdout_bytes=int64,
    dropped_stderr_bytes=int64,
    usage=st.none()
    | st.builds(
        pb.CellUsage,
        wall=st.none() | durations,
        cpu=st.none() | durations,
        peak_memory_bytes=int64,
        query_count=int32,
    ),
    state=int32 | st.integers(0, 4),
)
calls = st.none() | st.builds(pb.CallNames, names=st.lists(text, max_size=70))
messages = st.one_of(
    st.builds(pb.WorkerMessage, sequence=int64),
    st.builds(pb.WorkerMessage, sequence=int64, cell_result=results),
    st.builds(
        pb.WorkerMessage,
        sequence=int64,
        cell_output=st.builds(
            pb.CellOutput,
            cell_id=int64,
            stream=int32 | st.integers(0, 3),
            data=st.binary(),
            offset_bytes=int64,
        ),
    ),
    st.builds(
        pb.WorkerMessage,
        sequence=int64,
        hello=st.builds(
            pb.WorkerHello,
            min_version=int32,
            max_version=int32,
            image_release=text,
            walls=st.none()
            | st.builds(
                pb.Walls,
                seccomp_mode=int32,
                effective_capabilities=int64,
                network_interfaces=st.lists(text, max_size=70),
                supplementary_gids=st.lists(int32, max_size=70),
                kernel_release=text,
                open_calls=calls,
                repl_open_calls=calls,
                landlock_abi=int32,
                ceilings=st.lists(st.builds(pb.Ceiling, name=text, most=int64), max_size=70),
                scratch_options=st.lists(text, max_size=70),
            ),
        ),
    ),
)


def check_bounds(raw: bytes) -> None:
    """Reads `raw` and checks that what is accepted is within the contract's bounds."""
    try:
        _, claim = read_worker_message(raw, answer_bytes=ANSWER_BYTES)
    except ProtocolViolationError:
        return
    if isinstance(claim, ClaimedHello):
        assert 1 <= claim.min_version <= claim.max_version
        assert len(claim.image_release) <= 100
        assert len(claim.kernel_release) <= 200
        assert len(claim.walls.network_interfaces) <= 64
        assert len(claim.walls.supplementary_gids) <= 64
        for names in (
            claim.walls.open_calls,
            claim.walls.repl_open_calls,
            claim.walls.ceilings,
            claim.walls.scratch_options,
        ):
            assert len(names or ()) <= 64
            assert all(len(name) <= 64 for name in names or ())
    elif isinstance(claim, ClaimedOutput):
        assert claim.offset_bytes >= 0
        assert claim.stream in OutputStream
    elif isinstance(claim, ClaimedResult):
        check_result(claim)


def check_result(claim: ClaimedResult) -> None:
    """Checks the bounds of a result."""
    assert claim.outcome in Outcome
    assert claim.state in VariableState
    assert (claim.error is None) == (claim.outcome is Outcome.SUCCEEDED)
    if claim.error is not None:
        assert 1 <= len(claim.error.type_name) <= 200
        assert len(claim.error.message.encode()) <= 8 * 2**10
        assert len(claim.error.traceback.encode()) <= 16 * 2**10
    assert len(claim.answer.content.encode()) <= ANSWER_BYTES
    assert len(claim.variables) <= 200
    for variable in claim.variables:
        assert variable.name.isidentifier()
        assert len(variable.name) <= 200
        assert len(variable.type_name) <= 200
        assert variable.size is None or variable.size >= 0
    assert min(claim.dropped_stdout_bytes, claim.dropped_stderr_bytes) >= 0
    usage = claim.usage
    assert 0 <= usage.wall_s <= 366 * 86400
    assert 0 <= usage.cpu_s <= 366 * 86400
    assert min(usage.peak_memory_bytes, usage.query_count) >= 0


@settings(deadline=None)  # a busy machine is no failure
@given(message=messages)
def test_any_message_is_bounded_or_refused(message: pb.WorkerMessage) -> None:
    """Whatever a worker fills its fields with, the reader bounds it or names the broken rule."""
    check_bounds(message.SerializeToString())


@settings(deadline=None)  # a busy machine is no failure
@given(raw=st.binary())
def test_any_bytes_are_bounded_or_refused(raw: bytes) -> None:
    """Whatever bytes come, nothing but a violation is ever raised."""
    check_bounds(raw)


@settings(deadline=None)  # a busy machine is no failure
@given(raw=st.binary())
def test_any_query_is_read_or_refused(raw: bytes) -> None:
    """Whatever bytes a query consists of, nothing but a violation is ever raised."""
    try:
        claimed = read_query(raw)
    except ProtocolViolationError:
        return
    assert isinstance(claimed, ClaimedPart) or claimed.prompts
    assert claimed.cell_id > 0


def read_result(**fields: object) -> ClaimedResult:
    """Reads an honest result but for `fields`."""
    message = pb.WorkerMessage(sequence=1, cell_result=result(1, **fields))
    _, claim = read_worker_message(message.SerializeToString(), answer_bytes=ANSWER_BYTES)
    assert isinstance(claim, ClaimedResult)
    return claim


def test_honest_hello_is_read_as_said() -> None:
    """Every wall a worker claims reaches the comparison as it was claimed."""
    message = pb.WorkerMessage(sequence=1, hello=hello())
    sequence, claim = read_worker_message(message.SerializeToString(), answer_bytes=1)

    assert isinstance(claim, ClaimedHello)
    assert (sequence, claim.walls) == (1, WALLS)


@pytest.mark.parametrize("names", [["ptrace"] * 65, ["p" * 65]], ids=["many", "long"])
def test_list_of_calls_is_bounded(names: list[str]) -> None:
    """A worker that lists more calls than there are, or no call's name, broke the contract."""
    said = hello()
    said.walls.open_calls.names.extend(names)
    message = pb.WorkerMessage(sequence=1, hello=said)

    with pytest.raises(ProtocolViolationError, match="at most 64 calls of at most 64 characters"):
        read_worker_message(message.SerializeToString(), answer_bytes=1)


def test_unknown_outcome_reads_as_killed() -> None:
    """An outcome of a later version is a cell that did not come back, and has an error."""
    claim = read_result(outcome=99)

    assert claim.outcome is Outcome.KILLED
    assert claim.error is not None


def test_unknown_state_is_refused() -> None:
    """What became of the variables is never guessed."""
    with pytest.raises(ProtocolViolationError, match="a state that is known"):
        read_result(state=99)


def test_long_text_is_cut_between_characters() -> None:
    """A cut never splits a character in two."""
    claim = read_result(answer=pb.Answer(content="é" * 99))

    assert claim.answer.content == "é" * (ANSWER_BYTES // 2)


def test_names_no_cell_could_use_are_left_out() -> None:
    """Only identifiers are names; the others are dropped, for a cell can make them."""
    variables = [pb.Variable(name=name) for name in ("good", "a b", "", "\x1b[2J", "x" * 201)]

    assert [variable.name for variable in read_result(variables=variables).variables] == ["good"]


def test_unknown_fields_in_output_are_refused() -> None:
    """Output carries no bytes that nobody counts."""
    padded = pb.CellOutput(cell_id=1, stream=pb.OUTPUT_STREAM_STDOUT, data=b"x")
    # Field 15, 1,000 bytes long: a field that the contract does not have.
    padded.MergeFromString(b"\x7a\xe8\x07" + bytes(1000))
    message = pb.WorkerMessage(sequence=1, cell_output=padded)
    with pytest.raises(ProtocolViolationError, match="nothing but its own fields"):
        read_worker_message(message.SerializeToString(), answer_bytes=1)


@settings(deadline=None)  # a busy machine is no failure
@given(
    answers=st.lists(
        st.text(max_size=20)
        | st.builds(
            QueryFailure, reason=st.sampled_from(QueryFailureReason), message=st.text(max_size=20)
        ),
        max_size=10,
    )
)
def test_reply_keeps_order_and_kind(answers: list[QueryAnswer]) -> None:
    """Each answer comes back in its place; an error never looks like a text."""
    reply = pb.LlmQueryReply.FromString(wire.query_reply(answers))

    assert [answer.text if answer.HasField("text") else None for answer in reply.answers] == [
        answer if isinstance(answer, str) else None for answer in answers
    ]


def test_reply_that_does_not_fit_names_the_answer_that_was_left_out() -> None:
    """One answer too long for a message costs itself alone, and says how long it was."""
    raw = wire.query_reply(["short", "x" * 4_000_000, "also short"])
    reply = pb.LlmQueryReply.FromString(raw)

    assert len(raw) <= MAX_MESSAGE_BYTES
    assert (reply.answers[0].text, reply.answers[2].text) == ("short", "also short")
    assert reply.answers[1].error.reason == pb.QueryError.REASON_TOO_LARGE
    assert "4,000,000 bytes" in reply.answers[1].error.message


def test_half_a_surrogate_from_a_model_does_not_lose_the_answer() -> None:
    """Text that UTF-8 cannot hold arrives with the one character replaced."""
    reply = pb.LlmQueryReply.FromString(wire.query_reply(["a\ud800b"]))

    assert reply.answers[0].text == "a?b"


def test_cell_is_sent_with_its_time() -> None:
    """Fractions of a second survive."""
    raw = wire.run_cell(sequence=3, cell_id=CellId(2), source="pass\0", timeout_s=1.5)
    message = pb.BrokerMessage.FromString(raw)

    assert (message.sequence, message.run_cell.cell_id) == (3, 2)
    assert message.run_cell.source == "pass\0"
    assert message.run_cell.timeout.ToMilliseconds() == 1500
