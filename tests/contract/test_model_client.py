"""What every `ModelClient` does: the port's contract, held against each implementation."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from support.fake_models import FakeModel
from support.model_server import SUB_MODEL, Answer, ModelServer, failure
from support.openai_models import Heard, client

from orchestrator.chat import Message, ModelFacts, ModelReply, ModelRequest
from orchestrator.errors import ModelError, ModelRefusedError
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
    test_id: str = ""
    can_be_slow: bool = True
    can_fail: bool = True
    comes_in_pieces: bool = False


@asynccontextmanager
async def opened_openai(**settings: Any) -> AsyncIterator[ModelClient]:  # noqa: ANN401 -- fields
    def reply(prompt: str) -> str | Answer:
        if prompt == FAIL:
            return failure(400)
        return Answer(text=prompt, delay_s=30.0) if prompt == SLOW else prompt

    with ModelServer(sub=reply) as server:
        async with client(server.base_url, request_timeout_s=10.0, **settings) as model:
            yield model


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


OPENAI = Implementation(
    name=SUB_MODEL, is_scripted=False, opened=opened_openai, comes_in_pieces=True
)
RESPONSES = Implementation(
    name=SUB_MODEL,
    is_scripted=False,
    opened=functools.partial(opened_openai, api="responses", structured="json_schema"),
    test_id="responses",
    comes_in_pieces=True,
)
WITHOUT_STREAMS = Implementation(
    name=SUB_MODEL,
    is_scripted=False,
    opened=functools.partial(opened_openai, streams=False, structured="json_object"),
    test_id="without-streams",
)
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
ALL = [OPENAI, RESPONSES, WITHOUT_STREAMS, SCRIPT, ECHO, FAKE]


def each(implementations: Sequence[Implementation]) -> pytest.MarkDecorator:
    ids = [one.test_id or one.name for one in implementations]
    return pytest.mark.parametrize("implementation", implementations, ids=ids)


def ask(prompt: str, **rest: Any) -> ModelRequest:  # noqa: ANN401 -- fields of a request
    return ModelRequest(messages=(Message("user", prompt),), **rest)


@each(ALL)
async def test_model_says_who_it_is(implementation: Implementation) -> None:
    """A model has the name it was made with and says whether anybody is asked."""
    async with implementation.opened() as model:
        assert model.name == implementation.name
        assert model.is_scripted is implementation.is_scripted


@each(ALL)
async def test_facts_are_known_before_and_stay(implementation: Implementation) -> None:
    """What is known of a model is there before it is asked, and the same afterwards."""
    async with implementation.opened() as model:
        before = model.facts
        await model.complete(ask("hello"))

        assert isinstance(before, ModelFacts)
        assert model.facts == before


@each(ALL)
@pytest.mark.parametrize("prompt", ["hello", "", "a\nb {c} \0 é 漢", "x" * 1_000_000])
async def test_reply_answers_the_last_message(implementation: Implementation, prompt: str) -> None:
    """A reply is text, empty where the model says nothing, and belongs to the last message."""
    chat = (Message("system", "s"), Message("user", "first"), Message("user", prompt))
    async with implementation.opened() as model:
        reply = await model.complete(ModelRequest(messages=chat, max_completion_tokens=5_000_000))

    assert isinstance(reply, ModelReply)
    assert (reply.text, reply.was_cut) == (prompt, False)


@each(ALL)
@pytest.mark.parametrize("prompt", ["hello", "a\nb {c} \0 é 漢", "x" * 1_000_000])
async def test_whoever_listens_hears_the_reply(implementation: Implementation, prompt: str) -> None:
    """The pieces together are the reply, whether a model gives it in pieces or at its end."""
    heard = Heard()
    async with implementation.opened() as model:
        reply = await model.complete(ask(prompt), on_text=heard)

    assert (heard.text, reply.text) == (prompt, prompt)
    assert (len(heard.pieces) > 1) is implementation.comes_in_pieces


@each(ALL)
async def test_listening_changes_neither_reply_nor_bill(implementation: Implementation) -> None:
    """A reply and what it took are the same whether somebody listens or not."""
    async with implementation.opened() as model:
        alone = await model.complete(ask("hello"))
        heard = await model.complete(ask("hello"), on_text=Heard())

    assert heard == alone


@each(ALL)
async def test_whoever_has_heard_enough_gets_what_came(implementation: Implementation) -> None:
    """Saying so ends the request; what has come is the reply, and it says that it was cut."""
    heard = Heard(enough=1)
    async with implementation.opened() as model:
        reply = await model.complete(ask("one two three"), on_text=heard)

        assert reply.text == heard.text
        assert len(heard.pieces) == 1
        assert reply.was_cut is implementation.comes_in_pieces
        assert (await model.complete(ask("next"))).text == "next"


@each(ALL)
async def test_schema_is_taken_by_every_model(implementation: Implementation) -> None:
    """A request with a schema is answered, by a model that can use it and by one that cannot."""
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
    async with implementation.opened() as model:
        reply = await model.complete(ask("hello", json_schema=schema))

    assert reply.text == "hello"


@each(ALL)
async def test_concurrent_calls_do_not_mix(implementation: Implementation) -> None:
    """Each of many calls at once gets its own answer, whoever they are for and who listens."""
    prompts = [f"prompt {number}" for number in range(24)]
    listeners = [Heard() for _ in prompts]
    async with implementation.opened() as model:
        replies = await asyncio.gather(
            *(
                model.complete(
                    ask(prompt, on_behalf_of=f"run {number % 3}"),
                    on_text=heard if number % 2 else None,
                )
                for number, (prompt, heard) in enumerate(zip(prompts, listeners, strict=True))
            )
        )

    assert [reply.text for reply in replies] == prompts
    assert [heard.text for heard in listeners[1::2]] == prompts[1::2]


@each([one for one in ALL if one.can_be_slow])
@pytest.mark.parametrize("on_text", [None, Heard()], ids=["alone", "heard"])
async def test_cancelled_call_ends_and_leaves_the_model_usable(
    implementation: Implementation, on_text: Heard | None
) -> None:
    """Cancelling a call ends it at once; the next one is answered."""
    async with implementation.opened() as model:
        asking = asyncio.create_task(model.complete(ask(SLOW), on_text=on_text))
        _, pending = await asyncio.wait({asking}, timeout=0.1)
        assert pending == {asking}
        asking.cancel()
        done, _ = await asyncio.wait({asking}, timeout=2.0)

        assert done == {asking}
        assert asking.cancelled()
        assert (await model.complete(ask("next"))).text == "next"


@each([one for one in (*ALL, USED_SCRIPT) if one.can_fail])
@pytest.mark.parametrize("on_text", [None, Heard()], ids=["alone", "heard"])
async def test_failure_is_a_model_error_with_the_name(
    implementation: Implementation, on_text: Heard | None
) -> None:
    """A model that does not answer raises one of the port's errors and names itself."""
    async with implementation.opened() as model:
        with pytest.raises(ModelError) as caught:
            await model.complete(ask(FAIL), on_text=on_text)

    assert caught.value.model == implementation.name


@each(ALL)
async def test_closing_is_idempotent(implementation: Implementation) -> None:
    """A model may be closed twice, and without having been asked."""
    async with implementation.opened() as model:
        await model.aclose()
        await model.aclose()
