"""A limit of money is kept, or the run is refused."""

from __future__ import annotations

import pytest
from support.fake_models import FakeModel
from support.stage import FINISH, Stage

from orchestrator.chat import ModelFacts
from orchestrator.errors import SettingsError
from orchestrator.limits import ModelCap, RunLimits
from orchestrator.price import Price

PRICED = ModelFacts(price=Price(prompt_usd=1.0, completion_usd=2.0))


class Unscripted(FakeModel):
    """A model that costs something."""

    is_scripted = False


def stage_of(limits: RunLimits, *, priced: set[str]) -> Stage:
    """Joins models of which some have a price."""
    root, sub, child = (
        Unscripted([FINISH], name=name, facts=PRICED if name in priced else None)
        for name in ("root", "sub", "child")
    )
    return Stage([], root=root, sub=sub, child=child, limits=limits)


@pytest.mark.parametrize("unknown", ["root", "sub", "child"])
async def test_limit_of_money_needs_every_price(unknown: str) -> None:
    """A model without a known price could spend what nobody counts; nothing is started."""
    stage = stage_of(RunLimits(usd=1.0), priced={"root", "sub", "child"} - {unknown})

    with pytest.raises(SettingsError, match=f"what '{unknown}' costs is not known"):
        await stage.run()

    assert stage.provider.opened == []
    assert stage.events == []


async def test_cap_in_money_needs_the_price_of_its_model() -> None:
    """The other models may cost what they like."""
    limits = RunLimits(models={"root": ModelCap(usd=1.0)})

    with pytest.raises(SettingsError, match="what 'root' costs is not known"):
        await stage_of(limits, priced={"sub", "child"}).run()
    assert (await stage_of(limits, priced={"root"}).run()).answer_source


async def test_without_a_limit_of_money_no_price_is_needed() -> None:
    """The result then says that its cost is not known."""
    result = await stage_of(RunLimits(usd=None, turns=1), priced=set()).run()

    assert result.cost_usd is None
