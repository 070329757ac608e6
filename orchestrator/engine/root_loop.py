"""A run from its question to its result.

Without it every front end would decide for itself what a limit, a dead sandbox or a silent model
means for work that has been paid for. Here: what was paid for is returned.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import replace

from orchestrator.domain import (
    AnswerSource,
    CellLimits,
    EncodedContext,
    FinishReason,
    RunId,
    RunLimits,
)
from orchestrator.engine.conversation import Conversation
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.prompts.opening import checked_question
from orchestrator.engine.prompts.profiles import Profile
from orchestrator.engine.queries import QueryDesk
from orchestrator.engine.query_rules import QueryRules
from orchestrator.engine.result import RunResult
from orchestrator.engine.run_record import Ending, RunRecord
from orchestrator.errors import ModelError, ProtocolViolationError, SandboxLostError
from orchestrator.events import RunStarted, SandboxReady
from orchestrator.ports import EventSink, ModelClient, QueryHandler, Sandbox, SandboxProvider

_logger = logging.getLogger(__name__)

#: The name of the sub-model in a cell.
SUB_ALIAS = "sub"
_CONTEXT_NAME = "context"

# Kept back from a run's time for the last request, so that the whole run keeps to its limit.
_LAST_REQUEST_S = 60.0
_LAST_REQUEST_SHARE = 0.1


class RootLoop:
    """Runs questions; any number at the same time, each in a sandbox of its own."""

    def __init__(  # noqa: PLR0913 - the parts a run is joined from, each named at the call
        self,
        *,
        root_model: ModelClient,
        sub_model: ModelClient,
        provider: SandboxProvider,
        limits: RunLimits,
        cell_limits: CellLimits,
        profile: Profile,
        sink: EventSink,
        answers_repeats_once: bool = True,
    ) -> None:
        """Joins the parts; nothing is started and nothing is owned.

        Args:
            root_model: Writes the cells.
            sub_model: Answers the cells' queries.
            provider: Where sandboxes come from.
            limits: What a run may spend.
            cell_limits: What a cell may use.
            profile: How the root model is spoken to.
            sink: Told of each event of each run.
            answers_repeats_once: Whether a prompt that is repeated within a run gets the answer it
                got before, at no cost.
        """
        self._root_model = root_model
        self._sub_model = sub_model
        self._provider = provider
        query_chars = min(limits.query_chars, profile.query_chars or limits.query_chars)
        self._limits = replace(limits, query_chars=query_chars)
        self._cell_limits = cell_limits
        self._profile = profile
        self._sink = sink
        self._answers_repeats_once = answers_repeats_once

    async def run(self, *, question: str, context: EncodedContext) -> RunResult:
        """Answers `question` over `context`.

        A limit that is reached, a sandbox that dies and a root model that falls silent in mid-run
        are results. Cancelling the call destroys the sandbox; the sink is told what was spent
        before the cancellation goes on.

        Args:
            question: May be empty: the context then says itself what to do.
            context: Bound to `context` in the sandbox.

        Raises:
            InputError: The question is too long; pass the text as the context.
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        question = checked_question(question)
        ledger = Ledger(limits=self._limits)
        record = RunRecord(run_id=RunId(uuid.uuid4().hex), sink=self._sink, ledger=ledger)
        record.tell(self._run_started(record.run_id, question, context))
        try:
            ending = await self._ending(record, question, context)
        except asyncio.CancelledError:
            record.end(record.ending_with_draft(FinishReason.CANCELLED))
            raise
        except Exception as error:
            record.end(Ending(finish_reason=FinishReason.RAISED, failure=str(error)))
            raise
        return record.end(ending)

    def _run_started(self, run_id: RunId, question: str, context: EncodedContext) -> RunStarted:
        return RunStarted(
            run_id=run_id,
            question=question,
            context_kind=context.kind,
            context_chars=context.total_chars,
            context_sha256_hex=context.sha256_hex,
            root_model=self._root_model.name,
            sub_model=self._sub_model.name,
            profile=self._profile.name,
            is_scripted=self._root_model.is_scripted and self._sub_model.is_scripted,
        )

    async def _ending(self, record: RunRecord, question: str, context: EncodedContext) -> Ending:
        conversation = Conversation(
            root_model=self._root_model,
            profile=self._profile,
            limits=self._limits,
            cell_limits=self._cell_limits,
            answers_repeats_once=self._answers_repeats_once,
            ledger=record.ledger,
            record=record,
        )
        try:
            async with self._provider.open(self._query_desk(record)) as sandbox:
                finish_reason = await self._hold(conversation, record, sandbox, question, context)
        except (SandboxLostError, ProtocolViolationError) as error:
            return record.ending_with_draft(FinishReason.SANDBOX_LOST, failure=str(error))
        except ModelError as error:
            if not record.turn_count:
                raise
            return record.ending_with_draft(FinishReason.MODEL_FAILED, failure=str(error))
        if finish_reason is FinishReason.ANSWERED:
            return Ending(
                finish_reason=finish_reason, answer=record.draft, answer_source=AnswerSource.FINAL
            )
        if record.draft.strip():
            return record.ending_with_draft(finish_reason)
        return await self._ending_with_last_request(conversation, record, finish_reason)

    async def _hold(
        self,
        conversation: Conversation,
        record: RunRecord,
        sandbox: Sandbox,
        question: str,
        context: EncodedContext,
    ) -> FinishReason:
        work_s = max(record.ledger.left_s - self._last_request_s, 0.0)
        time_limit = asyncio.timeout(work_s)
        try:
            async with time_limit:
                record.controls = sandbox.controls
                await sandbox.bind_context(_CONTEXT_NAME, context)
                record.start_s = record.ledger.elapsed_s
                record.tell(
                    SandboxReady(
                        sandbox_id=sandbox.sandbox_id,
                        image_id=sandbox.image_id,
                        runtime=sandbox.runtime,
                        start_s=record.start_s,
                        controls=sandbox.controls,
                    )
                )
                return await conversation.hold(sandbox, question, context)
        except TimeoutError:
            if not time_limit.expired():
                raise
            return FinishReason.TIME_LIMIT

    async def _ending_with_last_request(
        self, conversation: Conversation, record: RunRecord, finish_reason: FinishReason
    ) -> Ending:
        answer = ""
        try:
            async with asyncio.timeout(record.ledger.left_s):
                answer = await conversation.ask_for_best_answer(finish_reason)
        except (TimeoutError, ModelError) as error:
            # Not a failure of the run: it had ended at a limit, and had nothing to show before.
            _logger.warning("the last request of run %s got no answer: %s", record.run_id, error)
        return Ending(
            finish_reason=finish_reason,
            answer=answer,
            answer_source=AnswerSource.LAST_REQUEST if answer else AnswerSource.NONE,
        )

    def _query_desk(self, record: RunRecord) -> QueryHandler:
        return QueryDesk(
            models={SUB_ALIAS: self._sub_model},
            ledger=record.ledger,
            sink=record.tell,
            rules=QueryRules(
                default_alias=SUB_ALIAS,
                prompt_chars=self._limits.query_chars,
                batch_prompt_count=self._limits.batch_prompts,
                max_completion_tokens=self._profile.query_max_completion_tokens,
                answers_repeats_once=self._answers_repeats_once,
            ),
        )

    @property
    def _last_request_s(self) -> float:
        return min(_LAST_REQUEST_S, self._limits.time_s * _LAST_REQUEST_SHARE)
