"""A recorded run as the log that the visualizer of the reference implementation reads.

Without it whoever knows that viewer could not look at a run of this product. Its rows are one
`metadata` and one `iteration` for each turn. What it shows and a trajectory does not hold (values
of variables, the context) is described where it would stand.
"""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.chat import ModelUsage
from orchestrator.domain import AnswerSource, CellResult, Json, QueryKind
from orchestrator.trajectory.chats import TurnChat, turn_chats
from orchestrator.trajectory.spending import Money, elapsed_s, money_of, turn_s, usage_by_model
from orchestrator.trajectory.tree import RecordedCell, RecordedQuery, RecordedRun

#: The viewer asks each date for its local form, and shows "Invalid Date" for none.
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
#: Answers that the viewer may show as a completed run. A draft is none.
_SHOWN_AS_FINAL = frozenset({AnswerSource.FINAL, AnswerSource.DIRECT, AnswerSource.LAST_REQUEST})


def visualizer_rows(run: RecordedRun) -> list[dict[str, Json]]:
    """Returns one run as rows: its metadata, then its iterations.

    Child runs are nested in the calls that started them. The viewer shows one run a file.
    """
    return [_metadata(run), *_iterations(run)]


def _metadata(run: RecordedRun) -> dict[str, Json]:
    started, ready = run.started, run.ready
    return {
        "type": "metadata",
        "timestamp": _timestamp(run.started_at),
        "root_model": started.root_model,
        "max_depth": started.depth_limit,
        "max_iterations": started.turn_limit,
        "backend": "rlm-sandbox",
        "backend_kwargs": {"model_name": started.root_model, "profile": started.profile},
        "environment_type": "docker",
        "environment_kwargs": {}
        if ready is None
        else {"runtime": ready.runtime, "image_id": ready.image_id},
        "other_backends": [started.sub_model],
    }


def _iterations(run: RecordedRun) -> list[dict[str, Json]]:
    chats = [chat for chat in turn_chats(run) if chat.turn.reply is not None]
    rows = [_iteration(run, chat, number) for number, chat in enumerate(chats, start=1)]
    answer = _final_answer(run)
    if rows:
        rows[-1]["final_answer"] = answer
    elif answer is not None:
        rows.append(_direct_iteration(run, answer))
    return rows


def _iteration(run: RecordedRun, chat: TurnChat, number: int) -> dict[str, Json]:
    turn = chat.turn
    prompt: list[Json] = [
        {"role": message.role, "content": message.content} for message in chat.sent
    ]
    blocks: list[Json] = [_block(run, cell) for cell in turn.cells]
    return {
        "type": "iteration",
        "iteration": number,
        "timestamp": _timestamp(turn.started_at),
        "prompt": prompt,
        "response": "" if turn.reply is None else turn.reply.reply.text,
        "code_blocks": blocks,
        "final_answer": None,
        "iteration_time": turn_s(turn),
    }


def _direct_iteration(run: RecordedRun, answer: str) -> dict[str, Json]:
    """Returns the one iteration of a run whose short context went straight to the sub-model."""
    return {
        "type": "iteration",
        "iteration": 1,
        "timestamp": _timestamp(run.started_at),
        "prompt": [{"role": "user", "content": f"{run.started.question}\n\n{_context(run)}"}],
        "response": answer,
        "code_blocks": [],
        "final_answer": answer,
        "iteration_time": elapsed_s(run),
    }


def _final_answer(run: RecordedRun) -> str | None:
    if run.ended is None or run.ended.answer_source not in _SHOWN_AS_FINAL:
        return None
    return run.ended.answer


def _block(run: RecordedRun, cell: RecordedCell) -> dict[str, Json]:
    result = None if cell.ended is None else cell.ended.result
    calls: list[Json] = [
        _call(run, query)
        for query in cell.queries
        if query.started.kind is not QueryKind.TOOL  # the viewer calls each a call of a model
    ]
    variables: dict[str, Json] = {"context": _context(run)}
    if result is not None:
        for variable in result.variables:
            size = "" if variable.size is None else f", {variable.size:,}"
            variables.setdefault(variable.name, f"<{variable.type_name}{size}>")
    is_final = result is not None and result.answer.is_ready
    return {
        "code": cell.started.source,
        "result": {
            "stdout": "" if result is None else str(result.stdout),
            "stderr": "(cut off)" if result is None else _stderr(result),
            "locals": variables,
            "execution_time": 0.0 if result is None else result.usage.wall_s,
            "rlm_calls": calls,
            "final_answer": result.answer.content if result is not None and is_final else None,
        },
    }


def _stderr(result: CellResult) -> str:
    """Returns what was printed there, and below it why the cell failed: the viewer has no more."""
    parts = [str(result.stderr).rstrip()]
    if result.error is not None:
        error = result.error
        parts += [error.traceback.rstrip(), f"{error.type_name}: {error.message}"]
    return "\n".join(part for part in parts if part)


def _call(run: RecordedRun, query: RecordedQuery) -> dict[str, Json]:
    started, ended, child = query.started, query.ended, query.child_run
    usage = _usage_of(query)
    call: dict[str, Json] = {
        "root_model": started.model or run.started.sub_model,
        "prompt": started.prompt,
        "response": "" if ended is None or ended.reply is None else ended.reply.text,
        "prompt_tokens": sum(each.prompt_tokens for each in usage.values()),
        "completion_tokens": sum(each.completion_tokens for each in usage.values()),
        "usage_summary": _usage_summary(usage),
        "execution_time": 0.0 if ended is None else ended.wall_s,
    }
    if child is not None:
        iterations: list[Json] = [*_iterations(child)]
        call["metadata"] = {"run_metadata": _metadata(child), "iterations": iterations}
    if ended is None:
        call["error"] = "(cut off)"
    elif ended.failure is not None:
        call["error"] = ended.failure.message
    return call


def _usage_of(query: RecordedQuery) -> dict[str, ModelUsage]:
    if query.child_run is not None:
        return usage_by_model(query.child_run)
    if query.ended is None or query.ended.reply is None or not query.started.model:
        return {}
    return {query.started.model: ModelUsage().plus(query.ended.reply)}


def _usage_summary(usage: dict[str, ModelUsage]) -> dict[str, Json]:
    models: dict[str, Json] = {
        model: {
            "total_calls": each.request_count,
            "total_input_tokens": each.prompt_tokens,
            "total_output_tokens": each.completion_tokens,
            **_total_cost(money_of({model: each})),
        }
        for model, each in usage.items()
    }
    return {"model_usage_summaries": models, **_total_cost(money_of(usage))}


def _total_cost(money: Money) -> dict[str, Json]:
    return {} if money.has_unpriced else {"total_cost": money.usd}


def _context(run: RecordedRun) -> str:
    started = run.started
    return (
        f"<context not recorded: {started.context_kind}, {started.context_chars:,} characters, "
        f"sha256 {started.context_sha256_hex}>"
    )


def _timestamp(time: datetime | None) -> str:
    return (time or _UNKNOWN_TIME).isoformat()
