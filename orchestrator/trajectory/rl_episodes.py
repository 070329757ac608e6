"""Recorded runs as episodes for reinforcement learning: what was observed, done, and paid.

Without it a trainer would have to know the events, and would take a repeat for an expense. Rewards
are left to whoever knows which answers are right.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain import CellResult, Json, QueryKind
from orchestrator.events import QueryRefused
from orchestrator.trajectory.chats import TurnChat, turn_chats
from orchestrator.trajectory.run_labels import refuse_elided, run_labels
from orchestrator.trajectory.spending import (
    Money,
    query_tokens,
    steps_money,
    turn_money,
    turn_s,
)
from orchestrator.trajectory.tree import RecordedCell, RecordedQuery, RecordedRun, Step


def rl_episode(run: RecordedRun) -> dict[str, Json] | None:
    """Returns a run as one episode, its child runs left out; None where no root model replied.

    Raises:
        InputError: The run was recorded without texts.
    """
    refuse_elided(run)
    steps: list[Json] = [_step(chat) for chat in turn_chats(run) if chat.turn.reply is not None]
    if not steps:
        return None
    return {"run_id": run.run_id, "steps": steps, "reward": None, "metadata": run_labels(run)}


def _step(chat: TurnChat) -> dict[str, Json]:
    turn = chat.turn
    observed = chat.sent[len(chat.sent) - chat.new_count :]
    observation: list[Json] = [
        {"role": message.role, "content": message.content} for message in observed
    ]
    step: dict[str, Json] = {
        "turn": turn.number,
        # The first message then begins the chat anew: earlier turns had been shortened.
        "replaces_earlier": turn.compaction is not None,
        "observation": observation,
    }
    if turn.reply is not None:
        reply = turn.reply.reply
        step |= {
            "action": reply.text,
            "was_cut": reply.was_cut,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "cached_prompt_tokens": reply.cached_prompt_tokens,
            "action_usd": reply.cost_usd,
        }
    cells: list[Json] = [_cell(cell) for cell in turn.cells]
    notices: list[Json] = [notice.kind.value for notice in turn.notices]
    return {
        **step,
        "cells": cells,
        "notices": notices,
        "step_usd": _usd(turn_money(turn)),
        "wall_s": turn_s(turn),
    }


def _cell(cell: RecordedCell) -> dict[str, Json]:
    queries: Json = _queries(cell.steps)
    if cell.ended is None:
        return {"cell_id": cell.started.cell_id, "outcome": None, "queries": queries}
    result = cell.ended.result
    return {
        "cell_id": result.cell_id,
        "outcome": result.outcome.value,
        "state": result.state.value,
        "error": None if result.error is None else result.error.type_name,
        "is_answer_ready": result.answer.is_ready,
        "printed_bytes": _printed_bytes(result),
        "wall_s": result.usage.wall_s,
        "queries": queries,
    }


def _printed_bytes(result: CellResult) -> int:
    return result.stdout.total_bytes + result.stderr.total_bytes


def _queries(steps: Sequence[Step]) -> dict[str, Json]:
    queries = [step for step in steps if isinstance(step, RecordedQuery)]
    refused = [step.prompt_count for step in steps if isinstance(step, QueryRefused)]
    prompt_tokens, completion_tokens = query_tokens(queries)
    return {
        "sent": sum(not query.started.is_repeat for query in queries),
        "repeated": sum(query.started.is_repeat for query in queries),
        "failed": sum(query.ended is None or query.ended.failure is not None for query in queries),
        "refused": sum(refused),
        "child_runs": sum(query.started.kind is QueryKind.CHILD_RUN for query in queries),
        "tool_calls": sum(query.started.kind is QueryKind.TOOL for query in queries),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "usd": _usd(steps_money(steps)),
    }


def _usd(money: Money) -> float | None:
    return None if money.has_unpriced else money.usd
