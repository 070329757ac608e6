"""Opens what a run tree shares.

Without it a session and a single run would each open it in their own way.
"""

from __future__ import annotations

import uuid

from orchestrator.engine.estimates import TokenEstimator
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.setup import RunSetup, Tree
from orchestrator.engine.slots import Slots
from orchestrator.errors import SettingsError


def new_tree(setup: RunSetup) -> Tree:
    """Opens the ledger of a run tree and what else it shares; its time runs from here.

    Raises:
        SettingsError: Money is limited and a model's price is not known.
    """
    refuse_unknown_prices(setup)
    return Tree(
        ledger=Ledger(limits=setup.limits),
        slots=Slots(setup.query_limits),
        estimator=TokenEstimator(),
        on_behalf_of=setup.on_behalf_of or uuid.uuid4().hex,
    )


def refuse_unknown_prices(setup: RunSetup) -> None:
    """Refuses a limit of money that could not be kept.

    Raises:
        SettingsError: Money is limited and a model's price is not known.
    """
    limits = setup.limits
    for model in (setup.root_model, setup.child_model, *setup.sub_models.values()):
        cap = limits.models.get(model.name)
        is_limited = limits.usd is not None or (cap is not None and cap.usd is not None)
        if is_limited and model.facts.price is None and not model.is_scripted:
            raise SettingsError(
                f"money is limited, and what {model.name!r} costs is not known: state its price "
                f'in the settings, [models."{model.name}".price], or limit tokens instead'
            )
