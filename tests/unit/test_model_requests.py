import json
from typing import Any

import pytest

from orchestrator.chat import Message, ModelRequest
from orchestrator.models.chat_request import chat_body
from orchestrator.models.dialect import Dialect
from orchestrator.models.manner import Manner
from orchestrator.models.responses_request import response_body

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PLAIN = Dialect(limit_name="max_tokens")
CHAT = ModelRequest(
    messages=(
        Message("system", "Be short."),
        Message("system", "Be kind."),
        Message("user", "Hi {x} \0 é"),
        Message("assistant", "Yes?"),
        Message("system", "Now be long."),
        Message("user", "b"),
    )
)


def as_chat(request: ModelRequest = CHAT, **changes: Any) -> dict[str, object]:  # noqa: ANN401 -- of the call
    arguments: dict[str, Any] = {"manner": Manner(model_id="m"), "dialect": PLAIN, "streams": False}
    return chat_body(request, **arguments | changes)


def as_response(request: ModelRequest = CHAT, **changes: Any) -> dict[str, object]:  # noqa: ANN401 -- of the call
    arguments: dict[str, Any] = {"manner": Manner(model_id="m"), "dialect": PLAIN, "streams": False}
    return response_body(request, **arguments | changes)


def test_chat_is_sent_in_order_and_with_nothing_that_was_not_set() -> None:
    """Every message stands where it stood, and the provider's own defaults are left alone."""
    assert as_chat() == {
        "model": "m",
        "messages": [{"role": one.role, "content": one.content} for one in CHAT.messages],
    }


def test_first_system_messages_become_instructions() -> None:
    """What a chat begins with is a response's instructions; later ones are the developer's."""
    assert as_response() == {
        "model": "m",
        "instructions": "Be short.\n\nBe kind.",
        "input": [
            {"role": "user", "content": "Hi {x} \0 é"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "developer", "content": "Now be long."},
            {"role": "user", "content": "b"},
        ],
        "store": False,
    }


def test_chat_of_instructions_alone_is_a_request() -> None:
    """A chat without a user's message is sent as what it is."""
    asked = ModelRequest(messages=(Message("system", "a"),))

    assert (as_response(asked)["instructions"], as_response(asked)["input"]) == ("a", [])


def test_provider_is_told_not_to_keep_what_it_is_sent() -> None:
    """Responses are stored unless a request forbids it; one that cannot be told is not."""
    assert as_response()["store"] is False
    assert "store" not in as_response(
        dialect=Dialect(limit_name="max_tokens", forbids_storage=False)
    )


@pytest.mark.parametrize(
    ("make", "sent"),
    [
        (as_chat, {"reasoning_effort": "low", "temperature": 0.5, "max_tokens": 7}),
        (as_response, {"reasoning": {"effort": "low"}, "temperature": 0.5, "max_output_tokens": 7}),
    ],
)
def test_what_the_operator_sets_is_sent(make: Any, sent: dict[str, object]) -> None:  # noqa: ANN401 -- a function
    """Effort, temperature and the reply's bound go by the name that each form has for them."""
    request = ModelRequest(messages=CHAT.messages, max_completion_tokens=7)
    body = make(request, manner=Manner(model_id="m", temperature=0.5, reasoning_effort="low"))

    assert {key: body[key] for key in sent} == sent


@pytest.mark.parametrize("make", [as_chat, as_response])
def test_further_parameters_are_added_and_tables_joined(make: Any) -> None:  # noqa: ANN401 -- a function
    """An operator's own parameter stands beside this client's, and before it where both say it."""
    extra = {"top_k": 4, "temperature": 1.0, "reasoning": {"summary": "auto"}}
    manner = Manner(model_id="m", temperature=0.5, reasoning_effort="low", extra_body=extra)
    body = make(manner=manner)

    assert (body["top_k"], body["temperature"]) == (4, 1.0)
    if make is as_response:
        assert body["reasoning"] == {"effort": "low", "summary": "auto"}


def test_stream_asks_for_its_usage_where_that_is_known() -> None:
    """A chat's stream counts only where it is asked to; a response's always does."""
    silent = Dialect(limit_name="max_tokens", counts_streams=False)

    assert as_chat(streams=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in as_chat(streams=True, dialect=silent)
    assert "stream_options" not in as_response(streams=True)
    assert as_response(streams=True)["stream"] is True


@pytest.mark.parametrize(
    ("structured", "in_chat", "in_response"),
    [
        ("none", None, None),
        ("json_object", {"type": "json_object", "schema": SCHEMA}, {"type": "json_object"}),
        (
            "json_schema",
            {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": False},
            },
            {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": False},
        ),
    ],
)
def test_schema_is_sent_as_the_endpoint_takes_it(
    structured: Any,  # noqa: ANN401 -- one of three words
    in_chat: object,
    in_response: object,
) -> None:
    """A request with a schema says so in the form that is set for its model, or not at all."""
    dialect = Dialect(limit_name="max_tokens", structured=structured)
    asked = ModelRequest(messages=CHAT.messages, json_schema=json.dumps(SCHEMA))
    text: Any = as_response(asked, dialect=dialect).get("text", {})

    assert as_chat(asked, dialect=dialect).get("response_format") == in_chat
    assert text.get("format") == in_response
    assert "response_format" not in as_chat(dialect=dialect)
    assert "text" not in as_response(dialect=dialect)
