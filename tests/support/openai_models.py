"""Makes clients of the real SDK for a test, and closes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.model_server import SUB_MODEL, Answer, ModelServer

from orchestrator.domain import Message, ModelReply
from orchestrator.models.openai_client import OpenAiModel

KEY = "sk-proj-Zm9vYmFyMTIzNDU2Nzg5MA"
ASK = [Message("user", "What is it?")]


@asynccontextmanager
async def client(base_url: str | None, **changes: Any) -> AsyncIterator[OpenAiModel]:  # noqa: ANN401 -- constructor arguments
    """Opens a client that asks the sub-model once and does not retry, but for `changes`."""
    settings: dict[str, Any] = {
        "name": SUB_MODEL,
        "api_key": KEY,
        "request_timeout_s": 5.0,
        "max_retries": 0,
        "temperature": None,
        "max_concurrent_requests": 16,
    }
    model = OpenAiModel(base_url=base_url, **settings | changes)
    try:
        yield model
    finally:
        await model.aclose()


async def ask(server: ModelServer, *answers: Answer, **changes: Any) -> ModelReply:  # noqa: ANN401 -- constructor arguments
    """Asks once, with `answers` coming first."""
    server.next_answers.extend(answers)
    async with client(server.base_url, **changes) as model:
        return await model.complete(ASK)
