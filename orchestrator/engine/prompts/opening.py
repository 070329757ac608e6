"""The first message of a run: the question, and what the context is.

Without it a root model would begin by guessing at the size and the kind of what it cannot see.
Texts of a caller are joined in, never formatted: braces in them mean nothing.
"""

from __future__ import annotations

from orchestrator.domain import CellLimits, ContextKind, EncodedContext, RunLimits
from orchestrator.engine.prompts.chunking import chunking_advice
from orchestrator.engine.prompts.figures import counted, duration
from orchestrator.engine.sendable import sendable
from orchestrator.errors import InputError

#: A question longer than this is a context, and would be paid for again with each turn.
MAX_QUESTION_CHARS = 100_000
_SHOWN_END_CHARS = 2_000  # of each end of a context that is its own question
_LISTED_PARTS = 100  # an encoded context lists no more
_MAX_UTF8_BYTES = 4  # of one character


def checked_question(question: str) -> str:
    """Returns a question as it can be sent; empty where the context is its own question.

    NUL and lone surrogates are replaced, not refused: they come with text copied from documents,
    and no question hangs on them.

    Raises:
        InputError: It is too long for a question.
    """
    if len(question) > MAX_QUESTION_CHARS:
        raise InputError(
            f"the question has {len(question):,} characters, at most {MAX_QUESTION_CHARS:,} are "
            "taken; pass the long text as the context, and a short question about it"
        )
    return sendable(question)


def opening_text(
    question: str, context: EncodedContext, *, limits: RunLimits, cell_limits: CellLimits
) -> str:
    """Returns question, context and limits for a model that can use all of that."""
    task = f"Question:\n{question}" if question.strip() else _without_question(context)
    advice = chunking_advice(total_chars=context.total_chars, query_chars=limits.query_chars)
    return (
        f"{task}\n\n"
        f"The variable `context` is {described(context)}.\n"
        f"{advice}\n"
        f"One prompt may have {limits.query_chars:,} characters, one call of llm_query_batched "
        f"{limits.batch_prompts:,} prompts.\n"
        f"A block may run for {duration(cell_limits.wall_s)}, not counting the time it waits for "
        "the sub-model.\n\n"
        f"This run has {counted(limits.turns, 'turn')}, {counted(limits.queries, 'query')} and "
        f"{duration(limits.time_s)}. Nothing has been run yet: look at the context before you "
        "decide anything."
    )


def brief_opening_text(question: str, context: EncodedContext) -> str:
    """Returns the question for a model with a small window, which has seen the context probed."""
    return f"Question: {question}" if question.strip() else _without_question(context)


def described(context: EncodedContext) -> str:
    """Returns what kind of value a context is and how long its parts are."""
    total = f"{context.total_chars:,} characters"
    if context.kind is ContextKind.TEXT:
        return f"a str of {total}"
    lengths = ", ".join(f"{length:,}" for length in context.part_lengths)
    if not lengths:
        return f"{_kind_of(context)}, {total} in all"
    count = len(context.part_lengths)
    parts = f"first {count} parts" if count == _LISTED_PARTS else counted(count, "part")
    return f"{_kind_of(context)}, {total} in all. Lengths of its {parts}: {lengths}"


def _kind_of(context: EncodedContext) -> str:
    if context.kind is ContextKind.DOCUMENTS:
        return "a list of str"
    if context.kind is ContextKind.MESSAGES:
        return "a list of messages, each a dict with `role` and `content`"
    return "a dict" if context.data.lstrip()[:1] == b"{" else "a list"


def _without_question(context: EncodedContext) -> str:
    introduction = "There is no question beside the context: the context says itself what to do."
    shown_bytes = _SHOWN_END_CHARS * _MAX_UTF8_BYTES
    data = context.data
    if len(data) <= shown_bytes and len(text := data.decode("utf-8", "replace")) <= (
        2 * _SHOWN_END_CHARS
    ):
        return f"{introduction} It reads:\n{sendable(text)}"
    head = data[:shown_bytes].decode("utf-8", "ignore")[:_SHOWN_END_CHARS]
    tail = data[-shown_bytes:].decode("utf-8", "ignore")[-_SHOWN_END_CHARS:]
    return (
        f"{introduction} It begins with these {len(head):,} characters:\n{sendable(head)}\n\n"
        f"It ends with these {len(tail):,}:\n{sendable(tail)}"
    )
