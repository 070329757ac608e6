"""What of a recorded run it takes to run it again without asking a model.

Without it a defect in what happens around a model (parsing, cells, limits, the transcript) could be
looked into only by paying for another run, which would go another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.chat import Message, ModelReply
from orchestrator.domain import AnswerSource, QueryFailureReason, QueryKind
from orchestrator.errors import InputError
from orchestrator.trajectory.chats import TurnChat, turn_chats
from orchestrator.trajectory.growth import runs_of
from orchestrator.trajectory.jsonl import read_records
from orchestrator.trajectory.run_labels import refuse_elided
from orchestrator.trajectory.tree import RecordedQuery, RecordedRun, find_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request to a root model, and its reply.

    Attributes:
        messages: The chat as it was sent. None stands for a message that was not recorded as it
            was, because it quotes the context; empty where none was recorded.
        reply: What came.
    """

    messages: tuple[Message | None, ...]
    reply: ModelReply


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRecord:
    """One prompt to a sub-model, and what came of it.

    Attributes:
        model: Who was asked.
        prompt: As the cell wrote it; of a run that was answered directly, its question.
        reply: None where it did not answer.
        is_refusal: Whether it refused for good.
        context_chars: Length of the context that was sent along; 0 for a cell's prompt.
        context_sha256_hex: Of that context.
    """

    model: str
    prompt: str
    reply: ModelReply | None
    is_refusal: bool = False
    context_chars: int = 0
    context_sha256_hex: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """All that models said in some runs of a caller's and their child runs.

    Attributes:
        root_model: Who wrote the cells.
        sub_model: Who answered queries, and wrote the cells of child runs.
        profile: How the root model was spoken to.
        root_chats: Its exchanges in order, a sequence for each run.
        child_chats: Likewise those of child runs.
        queries: Prompts, in the order in which they were sent; repeats left out.
    """

    root_model: str
    sub_model: str
    profile: str
    root_chats: tuple[tuple[Exchange, ...], ...]
    child_chats: tuple[tuple[Exchange, ...], ...]
    queries: tuple[QueryRecord, ...]

    def queries_to(self, model: str) -> tuple[QueryRecord, ...]:
        """Returns those that one model was asked."""
        return tuple(query for query in self.queries if query.model == model)


def read_recording(path: Path, *, run_id: str = "") -> Recording:
    """Returns what models said in a trajectory.

    Args:
        path: The trajectory's file.
        run_id: The beginning of the name of the one run that is meant; all of a caller's if empty.

    Raises:
        InputError: The file cannot be read, has no such run, or was recorded without texts.
    """
    runs: Sequence[RecordedRun] = runs_of(read_records(path))
    if run_id:
        found = find_run(runs, run_id)
        if len(found) != 1:
            count = "no run" if not found else f"{len(found)} runs"
            raise InputError(f"{path} has {count} whose name begins with {run_id!r:.60}")
        runs = found
    if not runs:
        raise InputError(f"{path} has no run in it, so there is nothing to replay")
    return recording_of(runs)


def recording_of(runs: Sequence[RecordedRun]) -> Recording:
    """Returns what models said in some runs, at least one.

    Raises:
        InputError: A run was recorded without texts.
    """
    everybody = [run for top in runs for run in top.walk()]
    for run in everybody:
        refuse_elided(run)
    started = runs[0].started
    top_ids = {run.run_id for run in runs}
    children = [run for run in everybody if run.run_id not in top_ids]
    return Recording(
        root_model=started.root_model,
        sub_model=started.sub_model,
        profile=started.profile,
        root_chats=tuple(exchanges_of(run) for run in runs),
        child_chats=tuple(exchanges_of(run) for run in children),
        queries=tuple(
            record
            for run in everybody
            for query in run.queries
            if (record := _query_record(run, query)) is not None
        ),
    )


def exchanges_of(run: RecordedRun) -> tuple[Exchange, ...]:
    """Returns the replies of one run's root model in order, with the requests they answer."""
    exchanges = [
        Exchange(messages=_comparable(run, chat), reply=chat.turn.reply.reply)
        for chat in turn_chats(run)
        if chat.turn.reply is not None
    ]
    ended = run.ended
    # The request for a last answer is no turn; what it brought is the answer.
    if ended is not None and ended.answer_source is AnswerSource.LAST_REQUEST:
        said = exchanges[-1].reply.text if exchanges else ""
        if ended.answer not in said:
            exchanges.append(Exchange(messages=(), reply=ModelReply(text=ended.answer)))
    return tuple(exchanges)


def _comparable(run: RecordedRun, chat: TurnChat) -> tuple[Message | None, ...]:
    """Returns a chat with None where an event has the context's digest in place of a quote."""
    if run.started.question.strip():
        return chat.sent
    mark = f"sha256:{run.started.context_sha256_hex}"
    return tuple(None if mark in message.content else message for message in chat.sent)


def _query_record(run: RecordedRun, query: RecordedQuery) -> QueryRecord | None:
    started, ended = query.started, query.ended
    if started.kind is not QueryKind.PLAIN or started.is_repeat or ended is None:
        return None
    is_refusal = False
    if ended.reply is None:
        reason = None if ended.failure is None else ended.failure.reason
        is_refusal = reason is QueryFailureReason.MODEL_REFUSED
        if not is_refusal and reason is not QueryFailureReason.MODEL_FAILED:
            return None  # the model was not heard out
    has_context = bool(started.context_chars)
    return QueryRecord(
        model=started.model,
        prompt=started.prompt,
        reply=ended.reply,
        is_refusal=is_refusal,
        context_chars=started.context_chars,
        context_sha256_hex=run.started.context_sha256_hex if has_context else "",
    )
