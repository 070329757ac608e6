"""Makes clients of the real SDK for a test, and closes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any

from pydantic import SecretStr
from support.model_server import SUB_MODEL, Answer, ModelServer

from orchestrator.chat import Message, ModelReply, ModelRequest
from orchestrator.models.openai_client import OpenAiModel
from orchestrator.models.pricing import PriceList
from orchestrator.models.registry import model_for
from orchestrator.models.turnstile import Turnstiles
from orchestrator.providers import ModelSettings, ProviderSettings

KEY = "sk-proj-Zm9vYmFyMTIzNDU2Nzg5MA"
ASK = ModelRequest(messages=(Message("user", "What is it?"),))

_OF_PROVIDER = frozenset(item.name for item in fields(ProviderSettings))
_OF_MODEL = frozenset(item.name for item in fields(ModelSettings))


@asynccontextmanager
async def client(
    base_url: str | None,
    *,
    name: str = SUB_MODEL,
    api_key: str | None = KEY,
    turnstiles: Turnstiles | None = None,
    prices: PriceList | None = None,
    **settings: Any,  # noqa: ANN401 -- fields of the settings of a provider or a model
) -> AsyncIterator[OpenAiModel]:
    """Opens a client that asks the sub-model, as `settings` of its provider or its own say."""
    of_provider = {"request_timeout_s": 5.0} | {
        key: value for key, value in settings.items() if key in _OF_PROVIDER
    }
    model = model_for(
        name,
        role="sub",
        provider=ProviderSettings(
            base_url=base_url,
            api_key=None if api_key is None else SecretStr(api_key),
            **of_provider,
        ),
        settings=ModelSettings(**{k: v for k, v in settings.items() if k in _OF_MODEL}),
        local_base_url=None,
        turnstiles=turnstiles or Turnstiles(),
        prices=prices or PriceList(),
    )
    assert isinstance(model, OpenAiModel)
    try:
        yield model
    finally:
        await model.aclose()


async def ask(server: ModelServer, *answers: Answer, **settings: Any) -> ModelReply:  # noqa: ANN401 -- see `client`
    """Asks once, with `answers` coming first."""
    server.next_answers.extend(answers)
    async with client(server.base_url, **settings) as model:
        return await model.complete(ASK)


class Heard:
    """Keeps the pieces of a reply, and ends it after `enough` of them.

    Attributes:
        pieces: In order.
    """

    def __init__(self, *, enough: int | None = None) -> None:
        """Begins before the first piece; without `enough` it never has."""
        self.pieces: list[str] = []
        self._enough = enough

    def __call__(self, piece: str) -> bool:
        """Takes a piece; see `TextSink`."""
        self.pieces.append(piece)
        return self._enough is None or len(self.pieces) < self._enough

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)


async def listen(
    server: ModelServer,
    *answers: Answer,
    enough: int | None = None,
    **settings: Any,  # noqa: ANN401 -- see `client`
) -> tuple[ModelReply, Heard]:
    """Asks once, listening, with `answers` coming first; returns the reply and what was heard."""
    server.next_answers.extend(answers)
    heard = Heard(enough=enough)
    async with client(server.base_url, **settings) as model:
        return await model.complete(ASK, on_text=heard), heard
