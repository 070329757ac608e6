"""The first message of a run: the question, and what the context is.

Without it a root model would begin by guessing at the size and the kind of what it cannot see.
Texts of a caller are joined in, never formatted: braces in them mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain import ContextKind, EncodedContext, OfferedTool
from orchestrator.engine.prompts.chunking import chunking_advice
from orchestrator.engine.prompts.domains import domain_text
from orchestrator.engine.prompts.figures import counted, duration
from orchestrator.engine.sendable import sendable
from orchestrator.errors import InputError
from orchestrator.limits import CellLimits, QueryLimits, RunLimits

#: A question longer than this is a context, and would be paid for again with each turn.
MAX_QUESTION_CHARS = 100_000
_SHOWN_END_CHARS = 2_000  # of each end of a context that is its own question
_LISTED_PARTS = 100  # an encoded context lists no more
_MAX_UTF8_BYTES = 4  # of one character


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What the first message is made of.

    Attributes:
        question: May be empty.
        context: What it is about.
        context_name: Its name in the session, where there are several; else empty.
        limits: Of the run.
        query_limits: Likewise.
        cell_limits: Likewise.
        domain: See `prompts.domains`.
        aliases: Names of models that cells may ask beside the sub-model.
        tools: Functions that cells may call.
        session_note: What earlier runs of the session have left; empty for a first run.
    """

    question: str
    context: EncodedContext
    context_name: str = ""
    limits: RunLimits
    query_limits: QueryLimits
    cell_limits: CellLimits
    domain: str = ""
    aliases: Sequence[str] = ()
    tools: Sequence[OfferedTool] = ()
    session_note: str = ""


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


def opening_text(opening: Opening, *, quotes: bool = True) -> str:
    """Returns question, context and limits for a model that can use all of that.

    Args:
        opening: What it is made of.
        quotes: Whether both ends of a context that is its own question are in it; else their size
            and digest are.
    """
    limits, queries = opening.limits, opening.query_limits
    name = f" (also `{opening.context_name}`)" if opening.context_name else ""
    what_it_is = (
        f"The variable `context`{name} is {described(opening.context)}.",
        chunking_advice(total_chars=opening.context.total_chars, query_chars=queries.prompt_chars),
        (
            f"One prompt may have {queries.prompt_chars:,} characters, one call of "
            f"llm_query_batched {queries.batch_prompts:,} prompts."
        ),
        (
            f"A block may run for {duration(opening.cell_limits.wall_s)}, not counting the time it "
            "waits for the sub-model."
        ),
    )
    allowance = (
        f"This run has {_allowance(limits)}. Nothing has been run yet: look at the context before "
        "you decide anything."
    )
    paragraphs = (
        _task(opening, quotes=quotes),
        opening.session_note,
        "\n".join(what_it_is),
        domain_text(opening.domain, opening.context.kind),
        _aliases_text(opening.aliases),
        _tools_text(opening.tools),
        allowance,
    )
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def brief_opening_text(opening: Opening, *, quotes: bool = True) -> str:
    """Returns the question for a model with a small window, which has seen the context probed."""
    question = opening.question
    task = f"Question: {question}" if question.strip() else _task(opening, quotes=quotes)
    tools = _tools_text(opening.tools)
    return f"{tools}\n\n{task}" if tools else task


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


def _task(opening: Opening, *, quotes: bool) -> str:
    if opening.question.strip():
        return f"Question:\n{opening.question}"
    return _without_question(opening.context, quotes=quotes)


def _kind_of(context: EncodedContext) -> str:
    match context.kind:
        case ContextKind.DOCUMENTS:
            return "a list of documents, each a dict with `name` and `text`"
        case ContextKind.TEXTS:
            return "a list of str"
        case ContextKind.MESSAGES:
            return "a list of messages, each a dict with `role` and `content`"
        case _:
            return "a dict" if context.data.lstrip()[:1] == b"{" else "a list"


def _allowance(limits: RunLimits) -> str:
    parts = [counted(limits.turns, "turn"), counted(limits.queries, "query")]
    if limits.usd is not None:
        parts.append(f"${limits.usd:.2f}")
    return f"{', '.join(parts)} and {duration(limits.time_s)}"


def _aliases_text(aliases: Sequence[str]) -> str:
    if not aliases:
        return ""
    names = ", ".join(f'"{alias}"' for alias in aliases)
    return f"Other models can be asked by name, `llm_query(prompt, model=...)`: {names}."


def _tools_text(tools: Sequence[OfferedTool]) -> str:
    if not tools:
        return ""
    lines = [
        f"- `{tool.name}{tool.signature}`: {' '.join(tool.description.split()) or 'a function.'}"
        for tool in tools
    ]
    return "\n".join(
        ("The session has these functions too. Their arguments and results are JSON:", *lines)
    )


def _without_question(context: EncodedContext, *, quotes: bool) -> str:
    introduction = "There is no question beside the context: the context says itself what to do."
    shown_bytes = _SHOWN_END_CHARS * _MAX_UTF8_BYTES
    data = context.data
    if not quotes:
        return f"{introduction} [quoted from the context of sha256:{context.sha256_hex}]"
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
