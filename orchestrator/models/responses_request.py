"""What `/responses` is sent.

Without it a chat would have to know two forms, and what is asked of a model would be kept by its
provider: responses are stored unless a request says otherwise.
"""

from __future__ import annotations

import json

from orchestrator.chat import ModelRequest
from orchestrator.models.dialect import Dialect
from orchestrator.models.manner import Manner

_SCHEMA_NAME = "answer"


def response_body(
    request: ModelRequest, *, manner: Manner, dialect: Dialect, streams: bool
) -> dict[str, object]:
    """Returns the body of a request; see `chat_body`.

    System messages that a chat begins with become its instructions, which is their place by
    https://developers.openai.com/api/docs/guides/migrate-to-responses. Later ones stay where they
    are, as the developer's.

    Raises:
        ValueError: The schema is no JSON.
    """
    begin = 0
    for message in request.messages:
        if message.role != "system":
            break
        begin += 1
    body: dict[str, object] = {
        "model": manner.model_id,
        "input": [
            {
                "role": "developer" if message.role == "system" else message.role,
                "content": message.content,
            }
            for message in request.messages[begin:]
        ],
    }
    if begin:
        body["instructions"] = "\n\n".join(one.content for one in request.messages[:begin])
    if dialect.forbids_storage:
        body["store"] = False
    if manner.temperature is not None:
        body["temperature"] = manner.temperature
    if manner.reasoning_effort is not None:
        body["reasoning"] = {"effort": manner.reasoning_effort}
    if request.max_completion_tokens is not None:
        body["max_output_tokens"] = request.max_completion_tokens
    if streams:
        body["stream"] = True
    text_format = _text_format(request, dialect)
    if text_format is not None:
        body["text"] = {"format": text_format}
    return manner.added_to(body)


def _text_format(request: ModelRequest, dialect: Dialect) -> dict[str, object] | None:
    if not request.json_schema or dialect.structured == "none":
        return None
    schema: object = json.loads(request.json_schema)
    if dialect.structured == "json_object":
        return {"type": "json_object"}
    # Not strict: that takes a part of JSON Schema only, and refuses the rest.
    return {"type": "json_schema", "name": _SCHEMA_NAME, "schema": schema, "strict": False}
