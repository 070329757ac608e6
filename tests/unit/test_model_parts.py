from pathlib import Path

import pytest
from support.fake_models import FakeModel

from orchestrator.app.parts import REAL_PARTS, Parts, Role, model_specs, open_models
from orchestrator.errors import SettingsError
from orchestrator.models.turnstile import Turnstiles
from orchestrator.ports import ModelClient
from orchestrator.providers import ModelSettings, ProviderSettings
from orchestrator.settings import Settings

BOTH: tuple[Role, ...] = ("root", "sub")


class NotedModel(FakeModel):
    """A model that says whether it was closed."""

    is_closed = False

    async def aclose(self) -> None:
        """Notes it."""
        self.is_closed = True


class NotedParts:
    """Parts that note what was opened.

    Attributes:
        opened: Each name, the role it was opened for, and the model.
        turnstiles: What each was given.
    """

    def __init__(self, *, fails_at: str = "", is_scripted: bool = True) -> None:
        """Makes parts that cannot open the model `fails_at`."""
        self._is_scripted = is_scripted
        self.opened: list[tuple[str, Role, NotedModel]] = []
        self.turnstiles: list[Turnstiles] = []
        self._fails_at = fails_at

    @property
    def parts(self) -> Parts:
        """What a composition takes."""
        return Parts(open_model=self._open, open_sandboxes=REAL_PARTS.open_sandboxes)

    def _open(
        self,
        spec: str,
        role: Role,
        settings: Settings,
        *,
        local_base_url: str | None,
        turnstiles: Turnstiles,
    ) -> ModelClient:
        del settings, local_base_url
        if spec == self._fails_at:
            raise SettingsError(f"no {spec}")
        model = NotedModel(["a"], name=spec)
        model.is_scripted = self._is_scripted
        self.opened.append((spec, role, model))
        self.turnstiles.append(turnstiles)
        return model


async def test_each_model_is_opened_once_and_closed() -> None:
    """Whatever is named twice is one client; all share their turnstiles, and none is left open."""
    settings = Settings(
        model="big",
        sub_model="small",
        child_model="big",
        sub_models={"judge": "other", "again": "small"},
    )
    noted = NotedParts()
    async with open_models(settings, roles=BOTH, parts=noted.parts, local_base_url=None) as models:
        assert models.child is models.by_role["root"]
        assert models.further["again"] is models.by_role["sub"]
        assert models.further["judge"].name == "other"
        assert not any(model.is_closed for *_, model in noted.opened)

    opened = [(spec, role) for spec, role, _ in noted.opened]
    assert opened == [("big", "root"), ("small", "sub"), ("other", "sub")]
    assert all(model.is_closed for *_, model in noted.opened)
    assert len(set(map(id, noted.turnstiles))) == 1


async def test_sub_model_writes_the_cells_of_child_runs_unless_another_is_named() -> None:
    """Where no model is named for child runs it is the one that answers queries."""
    settings = Settings(model="big", sub_model="small")
    async with open_models(
        settings, roles=BOTH, parts=NotedParts().parts, local_base_url=None
    ) as models:
        assert models.child is models.by_role["sub"]


async def test_only_what_will_be_asked_is_opened() -> None:
    """Running cells asks no root model: neither its key nor its children's is needed."""
    settings = Settings(model="big", sub_model="small", sub_models={"judge": "other"})
    noted = NotedParts()
    async with open_models(
        settings, roles=("sub",), parts=noted.parts, local_base_url=None
    ) as models:
        assert models.child is None

    assert [spec for spec, *_ in noted.opened] == ["small", "other"]


async def test_failure_to_open_one_closes_the_others() -> None:
    """A model that cannot be had leaves no connection of another behind."""
    settings = Settings(model="big", sub_model="small", sub_models={"judge": "other"})
    noted = NotedParts(fails_at="other")
    with pytest.raises(SettingsError, match="no other"):
        async with open_models(settings, roles=BOTH, parts=noted.parts, local_base_url=None):
            pass

    assert all(model.is_closed for *_, model in noted.opened)


async def test_tries_are_those_of_each_models_provider() -> None:
    """How often a request is tried again is a setting of where it goes."""
    settings = Settings(
        model="big",
        sub_model="small",
        provider=ProviderSettings(max_retries=1),
        providers={"gpu": ProviderSettings(max_retries=7)},
        models={"small": ModelSettings(provider="gpu")},
    )
    parts = NotedParts(is_scripted=False).parts
    async with open_models(settings, roles=BOTH, parts=parts, local_base_url=None) as models:
        assert models.max_retries == {"big": 1, "small": 7}


async def test_script_is_not_tried_again() -> None:
    """What it does not have comes no sooner for being waited for."""
    settings = Settings(model="a", sub_model="b", provider=ProviderSettings(max_retries=3))
    parts = NotedParts().parts
    async with open_models(settings, roles=BOTH, parts=parts, local_base_url=None) as models:
        assert models.max_retries == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    ("settings", "roles", "specs"),
    [
        (Settings(), BOTH, {"gpt-5", "gpt-5-mini"}),
        (Settings(model="local"), BOTH, {"local"}),
        (Settings(model="a", sub_models={"x": "local"}), BOTH, {"a", "local"}),
        (Settings(model="a", child_model="local"), BOTH, {"a", "local"}),
        (Settings(model="a", sub_model="b", child_model="local"), ("sub",), {"b"}),
    ],
)
def test_all_models_that_will_be_asked_are_known_before(
    settings: Settings, roles: tuple[Role, ...], specs: set[str]
) -> None:
    """The local model is served for a run if any of its models is that one."""
    assert model_specs(settings, roles) == specs


async def test_real_models_are_opened_at_their_own_providers() -> None:
    """Root and sub-model can be at different endpoints, each with its own key and price list."""
    settings = Settings(
        model="big",
        sub_model="echo",
        providers={"gpu": ProviderSettings(base_url="http://127.0.0.1:9/v1")},
        models={"big": ModelSettings(provider="gpu", window_tokens=7)},
    )
    async with open_models(settings, roles=BOTH, parts=REAL_PARTS, local_base_url=None) as models:
        assert models.by_role["root"].facts.window_tokens == 7
        assert models.by_role["sub"].is_scripted


async def test_operators_prices_are_read_when_a_model_is_opened(tmp_path: Path) -> None:
    """A list of the operator's prices a model anywhere; one that is not there opens nothing."""
    path = tmp_path / "prices.toml"
    path.write_text("[models.m]\nprompt_usd = 1\ncompletion_usd = 2\n")
    provider = ProviderSettings(base_url="http://127.0.0.1:9/v1")
    settings = Settings(model="m", provider=provider, prices_file=path)
    async with open_models(settings, roles=BOTH, parts=REAL_PARTS, local_base_url=None) as models:
        price = models.by_role["root"].facts.price
        assert price is not None
        assert (price.prompt_usd, price.completion_usd) == (1, 2)

    path.unlink()
    with pytest.raises(SettingsError, match="prices_file"):
        async with open_models(settings, roles=BOTH, parts=REAL_PARTS, local_base_url=None):
            pass
