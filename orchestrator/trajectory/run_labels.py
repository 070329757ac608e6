"""What every exported row says of the run that it is from.

Without it a row could not be traced back to its run, and each export would leave out another thing
that decides whether the row is fit to learn from.
"""

from __future__ import annotations

from orchestrator.domain import FinishReason, Json
from orchestrator.errors import InputError
from orchestrator.trajectory.efficiency import efficiency_of
from orchestrator.trajectory.spending import elapsed_s, run_money, usage_by_model
from orchestrator.trajectory.tree import RecordedRun


def run_labels(run: RecordedRun) -> dict[str, Json]:
    """Returns a run's metadata as JSON; null for what a run that was cut off does not say."""
    started, ended, efficiency = run.started, run.ended, efficiency_of(run)
    money, usages = run_money(run), usage_by_model(run).values()
    return {
        "run_id": started.run_id,
        "parent_run_id": started.parent_run_id,
        "depth": started.depth,
        "session_run": started.session_run,
        "started_at": None if run.started_at is None else run.started_at.isoformat(),
        "root_model": started.root_model,
        "sub_model": started.sub_model,
        "profile": started.profile,
        "prompt_version": started.prompt_version,
        "is_scripted": started.is_scripted,
        "question": started.question,
        "context_kind": started.context_kind.value,
        "context_chars": started.context_chars,
        "context_sha256": started.context_sha256_hex,
        "finish_reason": None if ended is None else ended.finish_reason.value,
        "answer": None if ended is None else ended.answer,
        "answer_source": None if ended is None else ended.answer_source.value,
        "turns": len([turn for turn in run.turns if turn.reply is not None]),
        "queries": efficiency.sent_query_count,
        "repeated_queries": efficiency.repeated_query_count,
        "notices": efficiency.notice_count,
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
        "completion_tokens": sum(usage.completion_tokens for usage in usages),
        "cost_usd": None if money.has_unpriced else money.usd,
        "wall_s": elapsed_s(run),
        # The engine quotes both ends of a context that is its own question; no event holds them.
        "has_elided_context": not started.question.strip(),
    }


def is_finished(run: RecordedRun) -> bool:
    """Whether a run came to an answer that was meant to be one."""
    return run.ended is not None and run.ended.finish_reason is FinishReason.ANSWERED


def refuse_elided(run: RecordedRun) -> None:
    """Refuses a run whose texts were not recorded.

    Raises:
        InputError: There is nothing in it to learn from, or to replay.
    """
    if not run.records_text:
        raise InputError(
            f"run {run.run_id} was recorded without texts: there are digests where its messages, "
            "cells and answers were. Record with texts to export or replay a run"
        )
