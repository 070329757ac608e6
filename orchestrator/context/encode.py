"""Makes a caller's value ready for the wire, whatever it is.

Without it each front end would have to know how a text, a list and a dict are sent.
"""

from __future__ import annotations

import io
import sys
from typing import TypeAlias

from orchestrator.context.checks import a_value, text_problem
from orchestrator.context.parts import PartsEncoding
from orchestrator.context.text import ready
from orchestrator.domain import Context, ContextKind, EncodedContext
from orchestrator.errors import InputError

#: A context as a value, or ready for the wire as what reads files makes it.
Encodable: TypeAlias = "Context | EncodedContext"


def encode_context(context: Encodable) -> EncodedContext:
    """Checks a context and makes it ready for the wire; one that is ready stays as it is.

    A `str` becomes TEXT; a list of `str` TEXTS; a list of dicts with a `role` and a `content` that
    are both text MESSAGES, of dicts with a `name` and a `text` DOCUMENTS, whatever else is in them;
    any other list or dict JSON. A part that is text counts its characters, a message those of its
    content, a document those of its text, anything else those of its JSON form.

    Takes time in proportion to the size, so call it outside an event loop.

    Raises:
        InputError: The context, or something in it, would not arrive as it is; says what and where.
    """
    match context:
        case EncodedContext():
            return context
        case str():
            return _encoded_text(context)
        case list():
            parts = PartsEncoding()
            for part in context:
                parts.add(part)
            return parts.encoded()
        case dict():
            members = PartsEncoding(is_dict=True)
            for key, value in context.items():
                members.add_member(key, value)
            return members.encoded()
    # mypy knows that a caller with types cannot get here; most callers have none.
    message = f"a context is a str, a list or a dict, not {a_value(context)}"  # type: ignore[unreachable]  # see above
    raise InputError(message)


def _encoded_text(text: str) -> EncodedContext:
    if problem := text_problem(text):
        raise InputError(f"the context {problem}")
    return ready(
        ContextKind.TEXT,
        io.BytesIO(text.encode()),
        lengths=[len(text)],
        total_chars=len(text),
        resident_bytes=sys.getsizeof(text),
    )
