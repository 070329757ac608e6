"""A replayed model says what was recorded, to whoever asks the same, and says where it differs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest

from orchestrator.chat import Message, ModelReply, ModelRequest
from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.models.replayed import ReplayedModel

SYSTEM = Message("system", "be brief")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One recorded request, as plain as a caller may have it."""

    messages: tuple[Message | None, ...]
    reply: ModelReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One recorded prompt."""

    prompt: str
    reply: ModelReply | None
    is_refusal: bool = False
    context_chars: int = 0
    context_sha256_hex: str = ""


def answered(prompt: str, text: str) -> Prompt:
    return Prompt(prompt=prompt, reply=ModelReply(text=text, prompt_tokens=9, cost_usd=0.5))


def over(context: str, question: str, text: str) -> Prompt:
    digest = hashlib.sha256(context.encode()).hexdigest()
    return Prompt(
        prompt=question,
        reply=ModelReply(text=text),
        context_chars=len(context),
        context_sha256_hex=digest,
    )


def user(text: str) -> Message:
    return Message("user", text)


def chat(*texts: str, replies: tuple[str, ...]) -> list[Exchange]:
    """Returns a run in which each text was answered by each reply."""
    messages: tuple[Message, ...] = (SYSTEM,)
    exchanges = []
    for text, reply in zip(texts, replies, strict=True):
        messages = (*messages, user(text))
        exchanges.append(Exchange(messages=messages, reply=ModelReply(text=reply)))
        messages = (*messages, Message("assistant", reply))
    return exchanges


async def ask(model: ReplayedModel, *messages: Message, json_schema: str = "") -> str:
    request = ModelRequest(messages=messages, json_schema=json_schema)
    return (await model.complete(request)).text


async def test_replies_come_in_order() -> None:
    """A chat that is what it was gets what it got, and no difference is noted."""
    model = ReplayedModel(name="m", chats=[chat("q", "more", replies=("one", "two"))])

    first = await ask(model, SYSTEM, user("q"))
    second = await ask(model, SYSTEM, user("q"), Message("assistant", "one"), user("more"))

    assert (first, second) == ("one", "two")
    assert model.first_difference is None


async def test_chat_that_differs_is_replayed_and_the_first_difference_kept() -> None:
    """A run that goes another way goes on, and can be asked from where on it did."""
    model = ReplayedModel(name="m", chats=[chat("q", "29 minutes", replies=("one", "two"))])
    await ask(model, SYSTEM, user("q"))
    said = Message("assistant", "one")

    assert await ask(model, SYSTEM, user("q"), said, user("30 minutes")) == "two"
    difference = model.first_difference
    assert difference is not None
    assert (difference.exchange, difference.message_index) == (2, 3)
    assert (difference.recorded, difference.sent) == (user("29 minutes"), user("30 minutes"))
    assert "request 2" in str(difference)
    assert "user '29 minutes'" in str(difference)
    assert "user '30 minutes'" in str(difference)


async def test_only_the_first_difference_is_kept() -> None:
    """Whatever follows from it is no news."""
    model = ReplayedModel(name="m", chats=[chat("a", "b", replies=("one", "two"))])

    await ask(model, SYSTEM, user("x"))
    await ask(model, SYSTEM, user("y"), user("z"))

    assert model.first_difference is not None
    assert model.first_difference.sent == user("x")


async def test_difference_far_inside_a_message_is_shown() -> None:
    """A long message is cut around the first character that differs."""
    model = ReplayedModel(name="m", chats=[chat("x" * 5_000 + "old", replies=("one",))])

    await ask(model, SYSTEM, user("x" * 5_000 + "new"))

    assert "old" in str(model.first_difference)
    assert "new" in str(model.first_difference)
    assert len(str(model.first_difference)) < 400


async def test_missing_and_further_messages_are_differences() -> None:
    """A chat that is shorter or longer than the recorded one is another."""
    three = Exchange(messages=(SYSTEM, user("q"), user("more")), reply=ModelReply(text="one"))
    shorter = ReplayedModel(name="m", chats=[[three]])
    longer = ReplayedModel(name="m", chats=[chat("q", replies=("one",))])

    await ask(shorter, SYSTEM, user("q"))
    await ask(longer, SYSTEM, user("q"), user("more"))

    assert shorter.first_difference is not None
    assert shorter.first_difference.sent is None
    assert longer.first_difference is not None
    assert longer.first_difference.recorded is None
    assert "not there" in str(longer.first_difference)


async def test_message_that_was_not_recorded_as_it_was_is_no_difference() -> None:
    """Where a context is its own question, no event holds what is quoted of it."""
    exchange = Exchange(messages=(SYSTEM, None), reply=ModelReply(text="one"))
    model = ReplayedModel(name="m", chats=[[exchange]])

    assert await ask(model, SYSTEM, user("There is no question … It reads: secret")) == "one"
    assert model.first_difference is None


async def test_reply_whose_request_was_not_recorded_is_no_difference() -> None:
    """The request for a last answer is in no event; what it brought is replayed."""
    exchange = Exchange(messages=(), reply=ModelReply(text="a guess"))
    model = ReplayedModel(name="m", chats=[[*chat("q", replies=("one",)), exchange]])
    await ask(model, SYSTEM, user("q"))

    last = await ask(model, SYSTEM, user("q"), Message("assistant", "one"), user("limit reached"))

    assert last == "a guess"
    assert model.first_difference is None


async def test_chats_at_the_same_time_do_not_mix() -> None:
    """Each of several runs gets its own replies, in whichever order they ask."""
    runs = [chat(f"q{number}", "more", replies=(f"{number}a", f"{number}b")) for number in range(4)]
    model = ReplayedModel(name="m", chats=runs)

    firsts = [await ask(model, SYSTEM, user(f"q{number}")) for number in (2, 0, 3, 1)]
    seconds = [
        await ask(
            model, SYSTEM, user(f"q{number}"), Message("assistant", f"{number}a"), user("more")
        )
        for number in (1, 3, 0, 2)
    ]

    assert firsts == ["2a", "0a", "3a", "1a"]
    assert seconds == ["1b", "3b", "0b", "2b"]
    assert model.first_difference is None


async def test_prompt_gets_its_answer() -> None:
    """A cell that asks what it asked then is answered as then, in whichever order."""
    model = ReplayedModel(name="m", prompts=[answered("one?", "1"), answered("two?\ud800", "2")])

    assert await ask(model, user("two?\ud800")) == "2"
    assert await ask(model, user("one?")) == "1"


async def test_prompt_that_was_answered_twice_gets_both_answers() -> None:
    """In order; the last one for good, as a run that remembers gives it."""
    model = ReplayedModel(name="m", prompts=[answered("p", "first"), answered("p", "second")])

    assert [await ask(model, user("p")) for _ in range(3)] == ["first", "second", "second"]


async def test_prompt_with_a_schema_is_found_by_what_the_cell_wrote() -> None:
    """What the engine adds to a prompt is not recorded with it."""
    schema = '{"type": "object"}'
    sent = f"Who?\n\nReply with JSON that fits this JSON Schema, and with nothing else:\n{schema}"
    model = ReplayedModel(name="m", prompts=[answered("Who?", '{"a": 1}'), answered("W", "x")])

    assert await ask(model, user(sent), json_schema=schema) == '{"a": 1}'


async def test_prompt_that_ends_like_a_schema_is_not_taken_for_another() -> None:
    """Without a schema nothing is cut off a prompt."""
    model = ReplayedModel(name="m", prompts=[answered("Who?", "x")])

    with pytest.raises(ModelUnavailableError):
        await ask(model, user('Who?\n\n{"type": "object"}'))


async def test_short_context_gets_the_answer_over_it() -> None:
    """A prompt that held a whole context is found by the context's digest and the question."""
    prompts = [over("Paris, Rome", "Which?", "Paris"), over("Paris, Rome", "How many?", "2")]
    model = ReplayedModel(name="m", prompts=[*prompts, over("[1, 2]", "Sum?", "3")])

    assert await ask(model, user("Question: How many?\n\nText:\nParis, Rome")) == "2"
    assert await ask(model, user("Question: Which?\n\nText:\nParis, Rome")) == "Paris"
    # As JSON it is longer than the characters that were counted.
    assert await ask(model, user('Question: Sum?\n\nText:\n{"as": "it", "was": "sent"}')) == "3"


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        (Prompt(prompt="p", reply=None), ModelUnavailableError),
        (Prompt(prompt="p", reply=None, is_refusal=True), ModelRefusedError),
    ],
)
async def test_failure_is_replayed_too(prompt: Prompt, error: type[Exception]) -> None:
    """A cell that had to live with a failure has to again."""
    model = ReplayedModel(name="m", prompts=[prompt])

    with pytest.raises(error, match="it is recorded that the model"):
        await ask(model, user("p"))


async def test_what_was_not_recorded_is_said() -> None:
    """The error says of what nothing is recorded, and names the model."""
    empty = ReplayedModel(name="m")
    used = ReplayedModel(name="m", chats=[chat("q", replies=("one",))])
    await ask(used, SYSTEM, user("q"))

    with pytest.raises(ModelUnavailableError, match="no answer is recorded for the prompt 'p'"):
        await ask(empty, user("p"))
    with pytest.raises(ModelUnavailableError, match="no reply of a root model is recorded"):
        await ask(empty, SYSTEM, user("q"))
    with pytest.raises(ModelUnavailableError, match="all 1 recorded replies are used") as caught:
        await ask(used, SYSTEM, user("q"))
    assert caught.value.model == "m"


async def test_prompt_is_not_answered_by_a_root_model() -> None:
    """A prompt nobody has an answer to does not use up the replies of a run."""
    model = ReplayedModel(name="m", chats=[chat("q", replies=("one",))])

    with pytest.raises(ModelUnavailableError):
        await ask(model, user("p"))
    assert await ask(model, SYSTEM, user("q")) == "one"


async def test_nobody_is_asked_and_nothing_is_paid() -> None:
    """It says that it is scripted, costs nothing, tells its whole reply, and was cut as then."""
    told: list[str] = []
    exchange = Exchange(
        messages=(SYSTEM, user("q")),
        reply=ModelReply(text="one", prompt_tokens=9, cost_usd=0.5, was_cut=True),
    )
    model = ReplayedModel(name="m", chats=[[exchange]])

    def tell(text: str) -> bool:
        told.append(text)
        return True

    reply = await model.complete(ModelRequest(messages=(SYSTEM, user("q"))), on_text=tell)
    await model.aclose()

    assert reply == ModelReply(text="one", cost_usd=0.0, was_cut=True)
    assert told == ["one"]
    assert model.is_scripted
    assert model.facts.price is not None
    assert model.facts.price.cost_usd(prompt_tokens=1_000_000, completion_tokens=1_000_000) == 0
