"""Answers the queries of cells that no root model has written: those of `rlm exec`.

Without it whoever runs cells by themselves would have to put an account, a ledger and an answerer
together.
"""

from __future__ import annotations

import uuid

from orchestrator.domain import QueryKind, RunId
from orchestrator.engine.account import Account
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.paid_model import PaidModel
from orchestrator.engine.plain_queries import PlainQueries
from orchestrator.engine.queries import QueryDesk
from orchestrator.engine.query_rules import QueryRules
from orchestrator.engine.retry import RetryPolicy
from orchestrator.engine.setup import SUB_ALIAS
from orchestrator.engine.slots import Slots
from orchestrator.limits import QueryLimits, RunLimits
from orchestrator.ports import ModelClient, QueryHandler


def cells_desk(
    *, model: ModelClient, limits: RunLimits, query_limits: QueryLimits, retry: RetryPolicy
) -> QueryHandler:
    """Returns a handler that has a sub-model answer, on a ledger of its own; nobody is told."""
    account = Account(Ledger(limits=limits))
    run_id = RunId(uuid.uuid4().hex)
    rules = QueryRules(
        limits=query_limits,
        default_alias=SUB_ALIAS,
        max_completion_tokens=None,
        answers_repeats_once=True,
    )
    paid = PaidModel(model, estimator=TokenEstimator(), retry=retry)
    plain = PlainQueries(
        models={SUB_ALIAS: paid},
        account=account,
        slots=Slots(query_limits),
        rules=rules,
        run_id=run_id,
        tell=lambda _event: None,
        on_behalf_of=run_id,
    )
    return QueryDesk(
        answerers={QueryKind.PLAIN: plain},
        account=account,
        rules=rules,
        run_id=run_id,
        tell=lambda _event: None,
        aliases={SUB_ALIAS},
        budget=lambda: {"queries": account.ledger.left("queries")},
    )
