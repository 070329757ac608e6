"""What every `ModelClient` does: the port's contract, held against each implementation."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
from support.fake_models import FakeModel
from support.model_server import SUB_MODEL, Answer, ModelServer, failure

from orchestrator.domain import Message, ModelReply
from orchestrator.errors import ModelError, ModelRefusedError
from orchestrator.models.openai_client import OpenAiModel
from orchestrator.models.scripted import EchoModel, ScriptedModel, ScriptedReply
from orchestrator.ports import ModelClient

SLOW = "take your time"  # a prompt that is not answered while a test looks on
FAIL = "do not answer"  # a prompt that gets an error

Opened = Callable[[], AbstractAsyncContextManager[ModelClient]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """One implementation, made to answer each prompt with itself, but for the two above."""

    name: str
    is_scripted: bool
    opened: Opened
    can_be_slow: bool = True
    can_fail: bool = True


@asynccontextmanager
async def opened_openai() -> AsyncIterator[ModelClient]:
    def reply(prompt: str) -> str | Answer:
        if prompt == FAIL:
            return failure(400)
        return Answer(text=prompt, delay_s=30.0) if prompt == SLOW else prompt

    with ModelServer(sub=reply) as server:
        model = OpenAiModel(
            name=SUB_MODEL,
            api_key=None,
            base_url=server.base_url,
            request_timeout_s=10.0,
            max_retries=0,
            temperature=None,
            max_concurrent_requests=16,
        )
        try:
            yield model
        finally:
            await model.aclose()


@asynccontextmanager
async def opened_script() -> AsyncIterator[ModelClient]:
    replies = [ScriptedReply(text=SLOW, contains=SLOW, delay_s=30.0)]
    yield ScriptedModel(name="scripted:a.toml", part="sub", replies=replies, echoes_rest=True)


@asynccontextmanager
async def opened_used_script() -> AsyncIterator[ModelClient]:
    yield ScriptedModel(name="scripted:b.toml", part="root", replies=[])


@asynccontextmanager
async def opened_echo() -> AsyncIterator[ModelClient]:
    yield EchoModel()


@asynccontextmanager
async def opened_fake() -> AsyncIterator[ModelClient]:
    def reply(messages: Sequence[Message]) -> str | ModelError:
        prompt = messages[-1].content
        return ModelRefusedError("no", model="fake") if prompt == FAIL else prompt

    yield FakeModel([reply])


OPENAI = Implementation(name=SUB_MODEL, is_scripted=False, opened=opened_openai)
SCRIPT = Implementation(
    name="scripted:a.toml",
    is_scripted=True,
    opened=opened_script,
    can_fail=False,  # it echoes what it has no reply for
)
USED_SCRIPT = Implementation(
    name="scripted:b.toml", is_scripted=True, opened=opened_used_script, can_be_slow=False
)
ECHO = Implementation(
    name="echo", is_scripted=True, opened=opened_echo, can_be_slow=False, can_fail=False
)
FAKE = Implementation(
    name="fake",
    is_scripted=True,
    opened=opened_fake,
    can_be_slow=False,  # it is held as a whole, not by prompt
)
ALL = [OPENAI, SCRIPT, ECHO, FAKE]


def each(implementations: Sequence[Implementation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("implementation", implementations, ids=lambda one: one.name)


@each(ALL)
async def test_model_says_who_it_is(implementation: Implementation) -> None:
    """A model has the name it was made with and says whether anybody is asked."""
    async with implementation.opened() as model:
        assert model.name == implementation.name
        assert model.is_scripted is implementation.is_scripted


@each(ALL)
@pytest.mark.parametrize("prompt", ["hello", "", "a\nb {c} \0 é 漢", "x" * 1_000_000])
async def test_reply_answers_the_last_message(implementation: Implementation, prompt: str) -> None:
    """A reply is text, empty where the model says nothing, and belongs to the last message."""
    chat = (Message("system", "s"), Message("user", "first"), Message("user", prompt))
    async with implementation.opened() as model:
        reply = await model.complete(chat, max_completion_tokens=5_000_000)

    assert isinstance(reply, ModelReply)
    assert reply.text == prompt


@each(ALL)
async def test_concurrent_calls_do_not_mix(implementation: Implementation) -> None:
    """Each of many calls at once gets its own answer."""
    prompts = [f"prompt {number}" for number in range(24)]
    async with implementation.opened() as model:
        replies = await asyncio.gather(
            *(model.complete([Message("user", prompt)]) for prompt in prompts)
        )

    assert [reply.text for reply in replies] == prompts


@each([one for one in ALL if one.can_be_slow])
async def test_cancelled_call_ends_and_leaves_the_model_usable(
    implementation: Implementation,
) -> None:
    """Cancelling a call ends it at once; the next one is answered."""
    async with implementation.opened() as model:
        asking = asyncio.create_task(model.complete([Message("user", SLOW)]))
        _, pending = await asyncio.wait({asking}, timeout=0.1)
        assert pending == {asking}
        asking.cancel()
        done, _ = await asyncio.wait({asking}, timeout=2.0)

        assert done == {asking}
        assert asking.cancelled()
        assert (await model.complete([Message("user", "next")])).text == "next"


@each([one for one in (*ALL, USED_SCRIPT) if one.can_fail])
async def test_failure_is_a_model_error_with_the_name(implementation: Implementation) -> None:
    """A model that does not answer raises one of the port's errors and names itself."""
    async with implementation.opened() as model:
        with pytest.raises(ModelError) as caught:
            await model.complete([Message("user", FAIL)])

    assert caught.value.model == implementation.name


@each(ALL)
async def test_closing_is_idempotent(implementation: Implementation) -> None:
    """A model may be closed twice, and without having been asked."""
    async with implementation.opened() as model:
        await model.aclose()
        await model.aclose()
