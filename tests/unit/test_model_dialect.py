from dataclasses import replace

import pytest

from orchestrator.models.complaint import Complaint, Trouble, complaint_of_status
from orchestrator.models.dialect import NEW_LIMIT, OLD_LIMIT, Dialect

RICH = Dialect(limit_name=OLD_LIMIT, structured="json_schema")
SENT = frozenset({"stream", "stream_options", "response_format", "store", OLD_LIMIT})


def refused(message: str, *, status: int = 400, parameter: str = "", code: str = "") -> Complaint:
    """What is understood of an endpoint's error."""
    error = f'{{"error": {{"message": "{message}", "param": "{parameter}", "code": "{code}"}}}}'
    return complaint_of_status(status, error.encode(), secrets=())


def after(complaint: Complaint, sent: frozenset[str] = SENT) -> Dialect | None:
    """How the endpoint is asked from then on."""
    adapted = RICH.without_refused(complaint, sent=sent)
    return None if adapted is None else adapted[1]


FASTAPI = b'{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra"}]}'


@pytest.mark.parametrize(
    ("complaint", "change"),
    [
        (refused("Unrecognized request argument supplied: stream_options"), "counts_streams"),
        (complaint_of_status(422, FASTAPI, secrets=()), "counts_streams"),
        (refused("Unknown parameter", parameter="stream_options"), "counts_streams"),
        (refused("Streaming is not supported for this model"), "streams"),
        (
            refused(
                "Your organization must be verified to stream this model.",
                parameter="stream",
                code="unsupported_value",
            ),
            "streams",
        ),
        (refused("Unknown parameter: 'store'.", parameter="store"), "forbids_storage"),
    ],
)
def test_refused_parameter_is_left_out_from_then_on(complaint: Complaint, change: str) -> None:
    """Whatever words an endpoint has for it, the one parameter it does not know is dropped."""
    assert after(complaint) == replace(RICH, **{change: False})  # type: ignore[arg-type] # a field's name


@pytest.mark.parametrize("name", [OLD_LIMIT, NEW_LIMIT])
def test_bound_goes_by_its_other_name(name: str) -> None:
    """An endpoint that knows the bound by its other name is not asked without one."""
    dialect = Dialect(limit_name=name)
    complaint = refused(f"Unsupported parameter: '{name}' is not supported with this model.")
    adapted = dialect.without_refused(complaint, sent=frozenset({name}))
    other = NEW_LIMIT if name == OLD_LIMIT else OLD_LIMIT

    assert adapted == (Dialect(limit_name=other), Dialect(limit_name=other))


@pytest.mark.parametrize(
    "message",
    [
        "response_format is not supported",
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported",
        "Unknown parameter: 'text.format'",
        "this model does not support structured outputs",
    ],
)
def test_schema_that_no_request_may_have_is_left_out_from_then_on(message: str) -> None:
    """An endpoint without structured answers is given the schema in the prompt alone."""
    assert after(refused(message)) == replace(RICH, structured="none")


def test_schema_that_one_request_may_not_have_is_left_out_once() -> None:
    """A schema that cannot be read says nothing about the next one."""
    complaint = refused("Invalid schema for response_format 'answer': 'x' is not valid")
    adapted = RICH.without_refused(complaint, sent=SENT)

    assert adapted == (replace(RICH, structured="none"), RICH)


@pytest.mark.parametrize(
    "complaint",
    [
        refused("max_tokens is too large: 9", parameter=OLD_LIMIT),
        refused("Unsupported value: 'temperature' does not support 0.2", parameter="temperature"),
        refused("Unknown parameter: 'top_k'"),
        refused("maximum context length is 8192 tokens"),
        refused("store is not supported in this region", status=403),
        refused("stream_options is not supported", status=500),
        Complaint(trouble=Trouble.TIMEOUT, what_came="nothing"),
    ],
)
def test_any_other_complaint_changes_nothing(complaint: Complaint) -> None:
    """What the operator set, and what is wrong for another reason, is not tried around."""
    assert after(complaint) is None


def test_parameter_that_was_not_sent_is_not_left_out() -> None:
    """An endpoint that complains of what nobody sent cannot make the client ask for ever."""
    complaint = refused("Unknown parameter: 'stream_options'")

    assert after(complaint, frozenset({"model"})) is None
    assert after(complaint) is not None
