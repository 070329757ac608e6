"""What runs are made of, and what one run tree shares.

Without it the thirty things a run depends on would be handed from class to class one by one, and a
child run would be given some of them only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.domain import QueryId, RunId
from orchestrator.engine.account import Account
from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.paid_model import PaidModel
from orchestrator.engine.prompts.profiles import Profile
from orchestrator.engine.retry import RetryPolicy
from orchestrator.engine.slots import Slots
from orchestrator.engine.tools import Toolbox
from orchestrator.limits import CellLimits, QueryLimits, RunLimits
from orchestrator.ports import ModelClient, SandboxProvider

#: The model that cells ask where they name none.
SUB_ALIAS = "sub"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """The parts and rules of a run. Nothing here is started or owned.

    Attributes:
        root_model: Writes the cells.
        sub_models: Answer the cells' queries, by the names that cells may use; `SUB_ALIAS` is one.
        child_model: Writes the cells of child runs.
        provider: Where sandboxes come from.
        limits: What the run tree may spend.
        query_limits: What queries may be.
        cell_limits: What a cell may use.
        profile: How the root model is spoken to.
        child_profile: How that of a child run is.
        toolbox: The caller's functions.
        retry: When a model is asked again.
        retries: The same for single models, by their names, where it is another.
        domain: What the context is about, as `prompts.domains` knows it; empty for nothing special.
        answers_repeats_once: Whether a prompt that is repeated within a run gets the answer it got
            before, at no cost.
        streams_replies: Whether the root model's replies are told of piece by piece.
        compacts_above_chars: From which length of the conversation earlier turns are shortened;
            None for never.
        on_behalf_of: Whose turn it is where requests wait for a provider; the run's own id if
            empty.
    """

    root_model: ModelClient
    sub_models: Mapping[str, ModelClient]
    child_model: ModelClient
    provider: SandboxProvider
    limits: RunLimits
    query_limits: QueryLimits
    cell_limits: CellLimits
    profile: Profile
    child_profile: Profile
    toolbox: Toolbox = field(default_factory=Toolbox)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    retries: Mapping[str, RetryPolicy] = field(default_factory=dict)
    domain: str = ""
    answers_repeats_once: bool = True
    streams_replies: bool = False
    compacts_above_chars: int | None = None
    on_behalf_of: str = ""

    @property
    def sub_model(self) -> ModelClient:
        """Who answers where a cell names no model."""
        return self.sub_models[SUB_ALIAS]

    @property
    def is_scripted(self) -> bool:
        """Whether no model is asked at all."""
        models = (self.root_model, self.child_model, *self.sub_models.values())
        return all(model.is_scripted for model in models)

    @property
    def effective_query_limits(self) -> QueryLimits:
        """The limits of queries, with a profile's own bound of a prompt in them."""
        limits = self.query_limits
        prompt_chars = min(limits.prompt_chars, self.profile.query_chars or limits.prompt_chars)
        return replace(limits, prompt_chars=prompt_chars)

    def retry_for(self, model: ModelClient) -> RetryPolicy:
        """Returns when a model is asked again."""
        return self.retries.get(model.name, self.retry)

    def for_child(self) -> RunSetup:
        """Returns the setup of a child run."""
        return replace(
            self, root_model=self.child_model, profile=self.child_profile, compacts_above_chars=None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What a run and all its child runs share."""

    ledger: Ledger
    slots: Slots
    estimator: TokenEstimator
    on_behalf_of: str

    def paid(self, model: ModelClient, retry: RetryPolicy) -> PaidModel:
        """Returns a model whose requests this tree pays for."""
        return PaidModel(model, estimator=self.estimator, retry=retry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a run stands in its tree.

    Attributes:
        depth: 0 for a run of a caller's.
        parent_run_id: None likewise.
        parent_account: Told of all spending; None likewise.
        query_id: The query it answers; None likewise.
        prompt_index: Which prompt of it.
    """

    depth: int = 0
    parent_run_id: RunId | None = None
    parent_account: Account | None = None
    query_id: QueryId | None = None
    prompt_index: int = 0
