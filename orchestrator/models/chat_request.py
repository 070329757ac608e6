"""What `/chat/completions` is sent.

Without it the parameters of a request would be put together where it is sent, between an SDK's
errors and its types.
"""

from __future__ import annotations

import json

from orchestrator.chat import ModelRequest
from orchestrator.models.dialect import Dialect
from orchestrator.models.manner import Manner

_SCHEMA_NAME = "answer"


def chat_body(
    request: ModelRequest, *, manner: Manner, dialect: Dialect, streams: bool
) -> dict[str, object]:
    """Returns the body of a request.

    Args:
        request: What is asked.
        manner: How the operator wants the model to be asked.
        dialect: What the endpoint takes.
        streams: Whether the reply shall come piece by piece.

    Raises:
        ValueError: The schema is no JSON.
    """
    messages = [{"role": one.role, "content": one.content} for one in request.messages]
    body: dict[str, object] = {"model": manner.model_id, "messages": messages}
    if manner.temperature is not None:
        body["temperature"] = manner.temperature
    if manner.reasoning_effort is not None:
        body["reasoning_effort"] = manner.reasoning_effort
    if request.max_completion_tokens is not None:
        body[dialect.limit_name] = request.max_completion_tokens
    if streams:
        body["stream"] = True
        if dialect.counts_streams:
            body["stream_options"] = {"include_usage": True}
    response_format = _response_format(request, dialect)
    if response_format is not None:
        body["response_format"] = response_format
    return manner.added_to(body)


def _response_format(request: ModelRequest, dialect: Dialect) -> dict[str, object] | None:
    if not request.json_schema or dialect.structured == "none":
        return None
    schema: object = json.loads(request.json_schema)
    if dialect.structured == "json_object":
        # llama.cpp's servers read a schema that stands beside the type; others ignore it.
        return {"type": "json_object", "schema": schema}
    # Not strict: that takes a part of JSON Schema only, and refuses the rest.
    described = {"name": _SCHEMA_NAME, "schema": schema, "strict": False}
    return {"type": "json_schema", "json_schema": described}
