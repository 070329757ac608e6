"""Answers in a form: a JSON Schema to the model, and what it replies held against it.

Without it every cell would parse JSON out of a model's talk by itself. It is done here, in the
process of whoever wrote the schema: a schema can be made to take for ever to check, and the host
has other things to do.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from sandbox_image.repl.query_errors import AnswerFormatError

#: As the contract has it.
_MAX_SCHEMA_CHARS = 20_000
#: Of a reply that does not fit, as much is shown to the model that is to mend it.
_SHOWN_CHARS = 4_000
_COMPLAINT_CHARS = 500
_FENCED = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?```", re.DOTALL)
_OPENINGS = {"{": "}", "[": "]"}


class AnswerForm(NamedTuple):
    """What answers of one call have to be.

    Attributes:
        text: The schema as JSON; empty for free text.
    """

    text: str

    @classmethod
    def of(cls, json_schema: object) -> AnswerForm:
        """Takes a schema as a cell gives it: a dict, JSON text, or None for free text.

        Raises:
            TypeError: It is none of these.
            ValueError: It is no JSON Schema, or too long.
        """
        if json_schema is None:
            return cls("")
        if not isinstance(json_schema, (dict, str)):
            kind = type(json_schema).__name__
            message = f"json_schema takes a dict, not {kind}"
            raise TypeError(message)
        try:
            schema = json.loads(json_schema) if isinstance(json_schema, str) else json_schema
            text = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"json_schema is not JSON: {error}"
            raise ValueError(message) from None
        if not isinstance(schema, dict):
            message = "json_schema is a JSON object"
            raise TypeError(message)
        if len(text) > _MAX_SCHEMA_CHARS:
            message = f"json_schema has {len(text):,} characters, at most {_MAX_SCHEMA_CHARS:,}"
            raise ValueError(message)
        _check(text)
        return cls(text)

    def read(self, reply: str) -> tuple[Any, str]:
        """Returns what a reply says, and what is wrong with it: empty where it fits."""
        if not self.text:
            return reply, ""
        try:
            value = _json_in(reply)
        except (ValueError, RecursionError):
            return None, "it is not JSON"
        return value, _check(self.text, value)

    def repair_prompt(self, prompt: str, reply: str, complaint: str) -> str:
        """Returns the prompt that asks once more."""
        return (
            f"{prompt}\n\nYou have replied to this before:\n{reply[:_SHOWN_CHARS]}\n\n"
            f"That does not fit the schema: {complaint}. Reply again, so that it does."
        )

    def error(self, reply: str, complaint: str) -> AnswerFormatError:
        """Returns what stands for an answer that does not fit."""
        error = AnswerFormatError(
            f"the sub-model's answer does not fit the schema: {complaint}; simplify the schema, or "
            "ask without one and parse `.text` of this error"
        )
        error.text = reply
        return error


#: Stands for "no value yet": None is a value.
_NOTHING = object()


def _check(schema_text: str, value: object = _NOTHING) -> str:
    """Returns what is wrong with a value; of a schema alone, only whether it is one.

    Raises:
        ValueError: The schema is none.
    """
    # Not at the top: a cell that asks for no form need not wait for it.
    import fastjsonschema  # noqa: PLC0415 - see above

    try:
        validate = _validator(schema_text)
    except (
        fastjsonschema.JsonSchemaDefinitionException,
        re.error,
        RecursionError,
        OSError,  # it refers to a schema elsewhere, and there is no network
    ) as error:
        message = f"json_schema is no JSON Schema: {str(error)[:_COMPLAINT_CHARS]}"
        raise ValueError(message) from None
    if value is _NOTHING:
        return ""
    try:
        validate(value)
    except fastjsonschema.JsonSchemaValueException as error:
        return str(error.message)[:_COMPLAINT_CHARS]
    except RecursionError:
        return "it is nested too deeply"
    return ""


@lru_cache(maxsize=64)
def _validator(schema_text: str) -> Any:  # noqa: ANN401 - a function made by the library
    import fastjsonschema  # noqa: PLC0415 - see `_check`

    return fastjsonschema.compile(json.loads(schema_text), use_default=False)


def _json_in(reply: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Returns the JSON in a reply, which may stand in a fence, or between sentences."""
    text = reply.strip()
    try:
        return json.loads(text)
    except ValueError:
        pass
    fenced = _FENCED.search(text)
    if fenced:
        return json.loads(fenced[1])
    starts = [text.index(opening) for opening in _OPENINGS if opening in text]
    if not starts:
        message = "no JSON in it"
        raise ValueError(message)
    start = min(starts)
    return json.loads(text[start : text.rindex(_OPENINGS[text[start]]) + 1])
