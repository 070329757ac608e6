"""What front ends stand on in tests: fakes for models and sandboxes, and settings of nobody's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.fake_models import Answer, FakeModel
from support.fake_sandbox import FakeCell, FakeProvider

from orchestrator.app import Parts, Role
from orchestrator.app.host import Report
from orchestrator.errors import SandboxStartError
from orchestrator.models.turnstile import Turnstiles
from orchestrator.ports import ModelClient, SandboxProvider
from orchestrator.settings import Settings

_FOREIGN = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "DOCKER_HOST",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
)

#: A reply of a root model with one cell, whose source a fake sandbox does not look at.
ONE_CELL = "```repl\nlook()\n```"


def forget_settings(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Takes away whatever the host has configured."""
    own = [name for name in os.environ if name.startswith("RLM_")]  # noqa: TID251 - see above
    for name in (*_FOREIGN, *own):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    # Contexts of tests are short, and what happens in a sandbox is what most are about.
    monkeypatch.setenv("RLM_RUN__DIRECT_CHARS", "0")
    # What a model's failure comes to is known at once; retries have tests of their own.
    monkeypatch.setenv("RLM_PROVIDER__MAX_RETRIES", "0")


class FakeParts:
    """Parts that answer from lists.

    Attributes:
        root: The root model.
        sub: The sub-model.
        provider: Hands out the sandboxes.
        settings: Those of each time that sandboxes were opened.
        open_count: How often sandboxes are open now.
    """

    def __init__(
        self,
        *cells: FakeCell,
        root: FakeModel | Sequence[Answer] = (ONE_CELL,),
        sub: Sequence[Answer] = ("sub-answer",),
        provider: FakeProvider | None = None,
        engine_error: SandboxStartError | None = None,
    ) -> None:
        """Makes parts whose every sandbox runs `cells`."""
        self.root = root if isinstance(root, FakeModel) else FakeModel(root, name="fake-root")
        self.sub = FakeModel(sub, name="fake-sub")
        self.provider = provider or FakeProvider(*cells)
        self.settings: list[Settings] = []
        self.open_count = 0
        self._engine_error = engine_error

    @property
    def parts(self) -> Parts:
        """What a front end takes."""
        return Parts(open_model=self._open_model, open_sandboxes=self._open_sandboxes)

    def _open_model(
        self,
        spec: str,
        role: Role,
        settings: Settings,
        *,
        local_base_url: str | None,
        turnstiles: Turnstiles,
    ) -> ModelClient:
        del spec, settings, local_base_url, turnstiles
        return self.root if role == "root" else self.sub

    @asynccontextmanager
    async def _open_sandboxes(
        self, settings: Settings, *, report: Report
    ) -> AsyncIterator[SandboxProvider]:
        del report
        if self._engine_error:
            raise self._engine_error
        self.settings.append(settings)
        self.open_count += 1
        try:
            yield self.provider
        finally:
            self.open_count -= 1
