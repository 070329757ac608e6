"""One run from its question to its result.

Without it every front end would decide for itself what a limit, a dead sandbox or a silent model
means for work that has been paid for. Here: what was paid for is returned.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import replace

from orchestrator.chat import Message, ModelReply, ModelRequest
from orchestrator.domain import (
    AnswerSource,
    CellId,
    EncodedContext,
    FinishReason,
    Json,
    QueryId,
    QueryKind,
    RunId,
    RunOffer,
)
from orchestrator.engine.account import Account
from orchestrator.engine.child_runs import ChildOrder, ChildRuns
from orchestrator.engine.conversation import Conversation
from orchestrator.engine.direct import direct_request
from orchestrator.engine.errands import CANCELLED, Answerer
from orchestrator.engine.ledger import Amounts
from orchestrator.engine.paid_model import PaidModel
from orchestrator.engine.plain_queries import PlainQueries, failure_of
from orchestrator.engine.prompts.figures import counted, duration
from orchestrator.engine.prompts.opening import Opening, checked_question
from orchestrator.engine.prompts.profiles import PROMPT_VERSION
from orchestrator.engine.queries import QueryDesk
from orchestrator.engine.query_rules import QueryRules
from orchestrator.engine.result import RunResult
from orchestrator.engine.run_record import Ending, RunRecord
from orchestrator.engine.sandbox_use import SandboxUse, once
from orchestrator.engine.setup import SUB_ALIAS, Lineage, RunSetup, Tree
from orchestrator.engine.tool_calls import ToolCalls
from orchestrator.errors import (
    BudgetExhaustedError,
    ModelError,
    ProtocolViolationError,
    SandboxLostError,
)
from orchestrator.events import QueryEnded, QueryStarted, RunStarted, SandboxReady
from orchestrator.ports import EventSink, QueryHandler, Sandbox

_logger = logging.getLogger(__name__)

# Kept back from a run's time for the last request, so that the whole run keeps to its limit.
_LAST_REQUEST_S = 60.0
_LAST_REQUEST_SHARE = 0.1
# A sandbox takes so long at most to say what came of a cell whose grace is over.
_STOP_S = 1.0
#: A context's tokens in a prompt that holds all of it: the instruction around it is nothing.
_CHARS_PER_TOKEN = 4

_BY_LIMIT = {
    "usd": FinishReason.COST_LIMIT,
    "prompt_tokens": FinishReason.TOKEN_LIMIT,
    "completion_tokens": FinishReason.TOKEN_LIMIT,
    "time_s": FinishReason.TIME_LIMIT,
}
_BY_REASON = {
    FinishReason.TURN_LIMIT: "turns",
    FinishReason.QUERY_LIMIT: "queries",
    FinishReason.TIME_LIMIT: "time_s",
}


class Run:
    """One run. Used once."""

    def __init__(  # noqa: PLR0913 - what makes one run, each named at the call
        self,
        *,
        setup: RunSetup,
        tree: Tree,
        sink: EventSink,
        question: str,
        context: EncodedContext,
        use: SandboxUse,
        lineage: Lineage = Lineage(),  # noqa: B008 - a frozen value
        session_run: int = 1,
    ) -> None:
        """Prepares a run; nothing is started.

        Args:
            setup: Parts and rules.
            tree: What it shares with the other runs of its tree.
            sink: Told of each event, those of child runs among them.
            question: Checked; may be empty.
            context: What it is about.
            use: Its sandbox.
            lineage: Where it stands in the tree.
            session_run: Which run of its session it is.
        """
        self._setup = setup
        self._tree = tree
        self._question = question
        self._context = context
        self._use = use
        self._lineage = lineage
        self._session_run = session_run
        self._account = Account(tree.ledger, parent=lineage.parent_account)
        self._record = RunRecord(run_id=RunId(uuid.uuid4().hex), sink=sink, account=self._account)
        self._conversation: Conversation | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The chat with the root model, its system message left out; empty where there was none."""
        return () if self._conversation is None else self._conversation.messages

    @property
    def last_cell_id(self) -> CellId:
        """Of the last cell that the run's sandbox has run."""
        conversation = self._conversation
        return self._use.last_cell_id() if conversation is None else conversation.last_cell_id

    async def complete(self) -> RunResult:
        """Runs to the end.

        A limit that is reached, a sandbox that dies and a root model that falls silent in mid-run
        are results. Cancelling the call destroys the sandbox; the sink is told what was spent
        before the cancellation goes on.

        Raises:
            SandboxStartError: No sandbox could be had.
            ModelError: The root model did not answer the first time it was asked.
        """
        record = self._record
        self._note_one_prompt()
        record.tell(self._started())
        try:
            ending = await self._direct_ending() or await self._ending()
        except asyncio.CancelledError:
            record.end(record.ending_with_draft(FinishReason.CANCELLED))
            raise
        except Exception as error:
            record.end(Ending(finish_reason=FinishReason.RAISED, failure=str(error)))
            raise
        return record.end(ending)

    def _started(self) -> RunStarted:
        setup, context, lineage = self._setup, self._context, self._lineage
        return RunStarted(
            run_id=self._record.run_id,
            question=self._question,
            context_kind=context.kind,
            context_chars=context.total_chars,
            context_sha256_hex=context.sha256_hex,
            root_model=setup.root_model.name,
            sub_model=setup.sub_model.name,
            profile=setup.profile.name,
            is_scripted=setup.is_scripted,
            parent_run_id=lineage.parent_run_id,
            parent_query_id=lineage.query_id,
            parent_prompt_index=lineage.prompt_index,
            depth=lineage.depth,
            session_run=self._session_run,
            prompt_version=PROMPT_VERSION,
            tool_names=tuple(tool.name for tool in setup.toolbox.offered),
            turn_limit=setup.limits.turns,
            depth_limit=max(setup.limits.depth - lineage.depth, 0),
        )

    def _note_one_prompt(self) -> None:
        """Notes what the context in one prompt would have cost, for comparison."""
        facts = self._setup.root_model.facts
        tokens = self._context.total_chars // _CHARS_PER_TOKEN
        usd = None
        if facts.price is not None:
            usd = facts.price.cost_usd(prompt_tokens=tokens, completion_tokens=0)
        self._record.efficiency = replace(
            self._record.efficiency,
            context_chars=self._context.total_chars,
            one_prompt_usd=usd,
            fits_one_prompt=None if facts.window_tokens is None else tokens <= facts.window_tokens,
        )

    async def _direct_ending(self) -> Ending | None:
        """Returns the sub-model's answer where the context is short; None where it is not."""
        setup = self._setup
        if self._session_run > 1 or setup.toolbox.offered:
            return None
        if not self._tree.ledger.left("queries"):
            return None  # the root model can do without
        request = direct_request(
            self._question,
            self._context,
            model=setup.sub_model,
            most_chars=setup.limits.direct_chars,
            is_own=not self._lineage.depth,
        )
        if request is None:
            return None
        model = self._tree.paid(setup.sub_model, setup.retry_for(setup.sub_model))
        try:
            return await self._ask_directly(
                model, replace(request, on_behalf_of=self._tree.on_behalf_of)
            )
        except BudgetExhaustedError as error:
            return self._ending_at_limit(error)

    async def _ask_directly(self, model: PaidModel, request: ModelRequest) -> Ending | None:
        record, ledger = self._record, self._tree.ledger
        counts = Amounts(queries=1)
        [planned] = model.plan([request], ledger=ledger, extra=counts)
        [reservation] = ledger.reserve([planned.amounts], model=model.name)
        query_id = QueryId("direct")
        reply: ModelReply | None = None
        failure = CANCELLED
        started_s = record.elapsed_s
        try:
            self._account.charge(reservation, counts)
            record.tell(
                QueryStarted(
                    run_id=record.run_id,
                    query_id=query_id,
                    prompt_index=0,
                    cell_id=CellId(0),
                    # The context is all of it, and no event holds that.
                    prompt=self._question,
                    model=model.name,
                    context_chars=self._context.total_chars,
                )
            )
            async with asyncio.timeout(ledger.left_s):
                reply = await model.ask(
                    planned,
                    reservation,
                    account=self._account,
                    run_id=record.run_id,
                    tell=record.tell,
                )
        except TimeoutError:
            return Ending(finish_reason=FinishReason.TIME_LIMIT, limit="time_s")
        except ModelError as error:
            failure = failure_of(error)
            raise
        finally:
            reservation.close()
            record.tell(
                QueryEnded(
                    run_id=record.run_id,
                    query_id=query_id,
                    prompt_index=0,
                    reply=reply,
                    failure=failure if reply is None else None,
                    wall_s=record.elapsed_s - started_s,
                )
            )
        if reply.was_cut or not reply.text.strip():
            return None  # a run over several turns may still come to an end
        return Ending(
            finish_reason=FinishReason.ANSWERED,
            answer=reply.text,
            answer_source=AnswerSource.DIRECT,
        )

    async def _ending(self) -> Ending:
        record = self._record
        try:
            async with self._use.open(self._query_desk()) as sandbox:
                ending = await self._hold(sandbox)
        except (SandboxLostError, ProtocolViolationError) as error:
            return record.ending_with_draft(FinishReason.SANDBOX_LOST, failure=str(error))
        except ModelError as error:
            if not record.turn_count:
                raise
            return record.ending_with_draft(FinishReason.MODEL_FAILED, failure=str(error))
        except BudgetExhaustedError as error:
            ending = self._ending_at_limit(error)
        if ending.finish_reason is FinishReason.ANSWERED or ending.answer.strip():
            return ending
        return await self._ending_with_last_request(ending)

    async def _hold(self, sandbox: Sandbox) -> Ending:
        record, setup = self._record, self._setup
        left_s = max(self._tree.ledger.left_s - self._last_request_s, 0.0)
        deadline_s = asyncio.get_running_loop().time() + left_s
        # A cell that is stopped at the deadline is given its grace; then the sandbox goes.
        time_limit = asyncio.timeout_at(deadline_s + self._stopping_s)
        try:
            async with time_limit:
                record.controls = sandbox.controls
                await sandbox.begin_run(RunOffer(tools=setup.toolbox.offered))
                for binding in self._use.bindings():
                    await sandbox.bind_context(
                        binding.name, binding.context, aliases=binding.aliases
                    )
                self._use.on_ready()
                record.start_s = record.elapsed_s
                record.tell(
                    SandboxReady(
                        run_id=record.run_id,
                        sandbox_id=sandbox.sandbox_id,
                        image_id=sandbox.image_id,
                        runtime=sandbox.runtime,
                        start_s=record.start_s,
                        controls=sandbox.controls,
                    )
                )
                self._conversation = Conversation(
                    setup=setup,
                    tree=self._tree,
                    record=record,
                    system=setup.profile.system_text(has_child_runs=self._may_have_children),
                    last_cell_id=self._use.last_cell_id(),
                    may_use_what_is_kept_back=not self._lineage.depth,
                )
                finish_reason = await self._conversation.hold(
                    sandbox, self._opening(), deadline_s=deadline_s
                )
        except TimeoutError:
            if not time_limit.expired():
                raise
            return record.ending_with_draft(FinishReason.TIME_LIMIT, limit="time_s")
        if finish_reason is FinishReason.ANSWERED:
            return Ending(
                finish_reason=finish_reason, answer=record.draft, answer_source=AnswerSource.FINAL
            )
        return record.ending_with_draft(finish_reason, limit=_BY_REASON[finish_reason])

    def _ending_at_limit(self, error: BudgetExhaustedError) -> Ending:
        reason = _BY_LIMIT.get(error.limit, FinishReason.MODEL_LIMIT)
        return self._record.ending_with_draft(reason, limit=error.limit)

    async def _ending_with_last_request(self, ending: Ending) -> Ending:
        """Asks for a best answer with what is left, where nothing else is there to be returned."""
        conversation, ledger = self._conversation, self._tree.ledger
        if conversation is None or not conversation.has_turns:
            return ending
        try:
            async with asyncio.timeout(ledger.left_s):
                answer = await conversation.ask_for_best_answer(self._limit_in_words(ending))
        except (TimeoutError, ModelError, BudgetExhaustedError) as error:
            # Not a failure of the run: it had ended at a limit, and had nothing to show before.
            _logger.warning(
                "the last request of run %s got no answer: %s", self._record.run_id, error
            )
            return ending
        source = AnswerSource.LAST_REQUEST if answer else AnswerSource.NONE
        return replace(ending, answer=answer, answer_source=source)

    def _limit_in_words(self, ending: Ending) -> str:
        limits = self._setup.limits
        match ending.finish_reason:
            case FinishReason.TURN_LIMIT:
                return counted(limits.turns, "turn")
            case FinishReason.QUERY_LIMIT:
                return counted(limits.queries, "query")
            case FinishReason.COST_LIMIT:
                return f"${limits.usd:.2f}"
            case FinishReason.TOKEN_LIMIT | FinishReason.MODEL_LIMIT:
                return "tokens and requests"
            case _:
                return duration(limits.time_s)

    def _opening(self) -> Opening:
        setup = self._setup
        return Opening(
            question=self._question,
            context=self._context,
            context_name=self._use.context_name,
            limits=setup.limits,
            query_limits=setup.effective_query_limits,
            cell_limits=setup.cell_limits,
            domain=setup.domain,
            aliases=tuple(alias for alias in setup.sub_models if alias != SUB_ALIAS),
            tools=setup.toolbox.offered,
            session_note=self._use.note(),
        )

    def _query_desk(self) -> QueryHandler:
        setup, tree, record = self._setup, self._tree, self._record
        rules = QueryRules(
            limits=setup.effective_query_limits,
            default_alias=SUB_ALIAS,
            max_completion_tokens=setup.profile.query_max_completion_tokens,
            answers_repeats_once=setup.answers_repeats_once,
        )
        answerers: dict[QueryKind, Answerer] = {
            QueryKind.PLAIN: PlainQueries(
                models={
                    alias: tree.paid(model, setup.retry_for(model))
                    for alias, model in setup.sub_models.items()
                },
                account=self._account,
                slots=tree.slots,
                rules=rules,
                run_id=record.run_id,
                tell=record.tell,
                on_behalf_of=tree.on_behalf_of,
            ),
            QueryKind.TOOL: ToolCalls(toolbox=setup.toolbox, slots=tree.slots),
        }
        if self._may_have_children:
            answerers[QueryKind.CHILD_RUN] = ChildRuns(
                start=self._run_child,
                root_model_name=setup.child_model.name,
                depth=self._lineage.depth + 1,
                slots=tree.slots,
                remembers=setup.answers_repeats_once,
            )
        return QueryDesk(
            answerers=answerers,
            account=self._account,
            rules=rules,
            run_id=record.run_id,
            tell=record.tell,
            aliases=setup.sub_models,
            tool_names=frozenset(tool.name for tool in setup.toolbox.offered),
            budget=self._budget,
        )

    async def _run_child(self, order: ChildOrder) -> RunResult:
        record = self._record
        child = Run(
            setup=self._setup.for_child(),
            tree=self._tree,
            sink=record.tell,
            question=checked_question(order.question),
            context=order.context,
            use=once(self._setup.provider.open, order.context),
            lineage=Lineage(
                depth=self._lineage.depth + 1,
                parent_run_id=record.run_id,
                parent_account=self._account,
                query_id=order.query_id,
                prompt_index=order.prompt_index,
            ),
        )
        return await child.complete()

    def _budget(self) -> Json:
        """Returns what is left, for a cell; None where there is no limit."""
        ledger, limits = self._tree.ledger, self._setup.limits
        nanodollars = ledger.left("nanodollars")
        return {
            "usd": None if nanodollars is None else nanodollars / 1e9,
            "prompt_tokens": ledger.left("prompt_tokens"),
            "completion_tokens": ledger.left("completion_tokens"),
            "queries": ledger.left("queries"),
            "child_runs": ledger.left("child_runs") if self._may_have_children else 0,
            "tool_calls": ledger.left("tool_calls"),
            "turns": limits.turns - self._record.turn_count,
            "time_s": round(ledger.left_s, 1),
            "depth": limits.depth - self._lineage.depth,
        }

    @property
    def _may_have_children(self) -> bool:
        limits = self._setup.limits
        return self._lineage.depth < limits.depth and limits.child_runs > 0

    @property
    def _stopping_s(self) -> float:
        return min(self._setup.cell_limits.grace_s + _STOP_S, self._last_request_s / 2)

    @property
    def _last_request_s(self) -> float:
        kept_s = min(_LAST_REQUEST_S, self._setup.limits.time_s * _LAST_REQUEST_SHARE)
        # A child run ends before its parent has to, so that its draft is of use.
        return kept_s * (1 + self._lineage.depth)
