"""A query desk with everything around it in reach of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.domain import (
    CellId,
    EncodedContext,
    QueryAnswer,
    QueryId,
    QueryKind,
    QueryRequest,
    RunId,
)
from orchestrator.engine.account import Account
from orchestrator.engine.child_runs import ChildRuns, StartChild
from orchestrator.engine.errands import Answerer
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.paid_model import PaidModel
from orchestrator.engine.plain_queries import PlainQueries
from orchestrator.engine.queries import QueryDesk
from orchestrator.engine.query_rules import QueryRules
from orchestrator.engine.retry import RetryPolicy
from orchestrator.engine.slots import Slots
from orchestrator.engine.tool_calls import ToolCalls
from orchestrator.engine.tools import Tool, Toolbox
from orchestrator.events import QueryEnded, QueryStarted, RunEvent
from orchestrator.limits import QueryLimits, RunLimits
from orchestrator.ports import ModelClient

RUN_ID = RunId("run")


class Desk:
    """Opens a desk with `model` as the sub-model.

    Attributes:
        events: Every event, in order.
        ledger: Pays.
        account: Whose spending it is.
        desk: What answers.
    """

    def __init__(
        self,
        model: ModelClient,
        *,
        limits: RunLimits | None = None,
        query_limits: QueryLimits | None = None,
        more_models: Mapping[str, ModelClient] | None = None,
        answers_repeats_once: bool = True,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        start_child: StartChild | None = None,
        retry: RetryPolicy | None = None,
        max_completion_tokens: int | None = 7,
        on_event: Callable[[RunEvent], None] | None = None,
    ) -> None:
        """Joins a desk and what it stands on."""
        self.events: list[RunEvent] = []
        self.ledger = Ledger(limits=limits or RunLimits())
        self.account = Account(self.ledger)
        self._on_event = on_event
        queries = query_limits or QueryLimits()
        slots, toolbox = Slots(queries), Toolbox(tools)
        rules = QueryRules(
            limits=queries,
            default_alias="sub",
            max_completion_tokens=max_completion_tokens,
            answers_repeats_once=answers_repeats_once,
        )
        models = {"sub": model, **(more_models or {})}
        estimator = TokenEstimator()
        answerers: dict[QueryKind, Answerer] = {
            QueryKind.PLAIN: PlainQueries(
                models={
                    alias: PaidModel(
                        each, estimator=estimator, retry=retry or RetryPolicy(max_retries=0)
                    )
                    for alias, each in models.items()
                },
                account=self.account,
                slots=slots,
                rules=rules,
                run_id=RUN_ID,
                tell=self._tell,
                on_behalf_of=RUN_ID,
            ),
            QueryKind.TOOL: ToolCalls(toolbox=toolbox, slots=slots),
        }
        if start_child is not None:
            answerers[QueryKind.CHILD_RUN] = ChildRuns(
                start=start_child,
                root_model_name="child",
                depth=1,
                slots=slots,
                remembers=answers_repeats_once,
            )
        self.desk = QueryDesk(
            answerers=answerers,
            account=self.account,
            rules=rules,
            run_id=RUN_ID,
            tell=self._tell,
            aliases=models,
            tool_names={tool.name for tool in toolbox.offered},
        )
        self._count = 0

    def _tell(self, event: RunEvent) -> None:
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def request(self, *prompts: str, alias: str | None = None, **fields: Any) -> QueryRequest:  # noqa: ANN401 - any of its fields
        """Makes a request with an id of its own."""
        self._count += 1
        return QueryRequest(
            query_id=QueryId(f"q{self._count}"),
            cell_id=CellId(1),
            prompts=prompts,
            model_alias=alias,
            **fields,
        )

    async def ask(self, *prompts: str, alias: str | None = None) -> list[QueryAnswer]:
        """Sends one request."""
        return list(await self.desk.answer(self.request(*prompts, alias=alias)))

    async def ask_child(self, question: str, context: EncodedContext) -> QueryAnswer:
        """Has a child run answer."""
        request = self.request(question, kind=QueryKind.CHILD_RUN, child_context=context)
        [answer] = await self.desk.answer(request)
        return answer

    async def call(self, tool_name: str, arguments_json: str = "{}") -> QueryAnswer:
        """Calls a tool."""
        request = self.request(arguments_json, kind=QueryKind.TOOL, tool_name=tool_name)
        [answer] = await self.desk.answer(request)
        return answer

    def started(self) -> list[QueryStarted]:
        """Returns the queries that were told of."""
        return [event for event in self.events if isinstance(event, QueryStarted)]

    def ended(self) -> list[QueryEnded]:
        """Returns the ends that were told of."""
        return [event for event in self.events if isinstance(event, QueryEnded)]
