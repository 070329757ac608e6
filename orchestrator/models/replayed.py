"""A model that says again what models said in a recorded run.

Without it a run could not be looked into a second time: asked anew, a model answers otherwise, and
for money.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Protocol

from orchestrator.chat import Message, ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.models.replay_difference import ReplayDifference, excerpt
from orchestrator.price import Price


class RecordedExchange(Protocol):
    """One request to a root model, and its reply."""

    @property
    def messages(self) -> Sequence[Message | None]:
        """The chat as it was sent. None: not recorded as it was; empty: not recorded at all."""
        ...

    @property
    def reply(self) -> ModelReply:
        """What came."""
        ...


class RecordedPrompt(Protocol):
    """One prompt to a sub-model, and what came of it."""

    @property
    def prompt(self) -> str:
        """As the cell wrote it; the question where a context was sent along."""
        ...

    @property
    def reply(self) -> ModelReply | None:
        """None where the model did not answer."""
        ...

    @property
    def is_refusal(self) -> bool:
        """Whether it refused for good."""
        ...

    @property
    def context_chars(self) -> int:
        """Length of a context that was sent along; 0 for none."""
        ...

    @property
    def context_sha256_hex(self) -> str:
        """Of that context."""
        ...


class ReplayedModel:
    """Replays what was recorded. Concurrent calls are served in the order in which they were made.

    Chats get the replies of the recorded run that they are most like, in order, even where they
    differ from what was sent then. Prompts get the answer that the same prompt got.
    """

    is_scripted = True
    facts = ModelFacts(price=Price(prompt_usd=0.0, completion_usd=0.0))

    def __init__(
        self,
        *,
        name: str,
        chats: Iterable[Sequence[RecordedExchange]] = (),
        prompts: Iterable[RecordedPrompt] = (),
    ) -> None:
        """Makes a model that starts at the first reply of each chat.

        Args:
            name: What it is reported as.
            chats: The exchanges of root models, in order, a sequence for each run.
            prompts: What sub-models were asked, in order.
        """
        self.name = name
        self._chats = [_Chat(exchanges) for exchanges in chats]
        self._prompts: dict[str, _Answers] = {}
        self._with_context: list[RecordedPrompt] = []
        self._prompt_lengths: set[int] = set()
        for prompt in prompts:
            if prompt.context_chars:
                self._with_context.append(prompt)
                continue
            self._prompt_lengths.add(len(prompt.prompt))
            self._prompts.setdefault(_digest(prompt.prompt), _Answers()).add(prompt)
        self._first_difference: ReplayDifference | None = None

    @property
    def first_difference(self) -> ReplayDifference | None:
        """Where a chat first was another than the recorded one; None for as long as none was."""
        return self._first_difference

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Returns what was recorded for the request; costs nothing.

        Raises:
            ModelUnavailableError: Nothing was recorded for it, or that the model did not answer.
            ModelRefusedError: It is recorded that the model refused.
        """
        recorded = self._recorded(request)
        if on_text is not None:
            on_text(recorded.text)
        return ModelReply(text=recorded.text, cost_usd=0.0, was_cut=recorded.was_cut)

    async def aclose(self) -> None:
        """Does nothing: there is nothing to free."""

    def _recorded(self, request: ModelRequest) -> ModelReply:
        messages = request.messages
        last = messages[-1].content if messages else ""
        is_prompt = len(messages) == 1
        answers = self._answers(last, request.json_schema) if is_prompt else None
        if answers is not None:
            return self._reply_of(answers.next())
        prompt = self._prompt_with_context(last)
        if prompt is not None:
            return self._reply_of(prompt)
        chat = self._most_alike(messages)
        if chat is None or is_prompt:
            raise self._nothing_recorded(last, is_prompt=is_prompt)
        self._note_difference(chat, messages)
        return chat.next().reply

    def _answers(self, prompt: str, json_schema: str) -> _Answers | None:
        found = self._prompts.get(_digest(prompt))
        if found is not None or not json_schema or not prompt.endswith(json_schema):
            return found
        # A cell's prompt with a schema is sent with an instruction after an empty line.
        for length in sorted(self._prompt_lengths, reverse=True):
            if prompt[length : length + 2] == "\n\n":
                found = self._prompts.get(_digest(prompt[:length]))
                if found is not None:
                    return found
        return None

    def _prompt_with_context(self, sent: str) -> RecordedPrompt | None:
        """Returns the record of a short context that was answered directly."""
        for prompt in self._with_context:
            is_asked = prompt.prompt.strip() in sent
            if is_asked and _digest(sent[-prompt.context_chars :]) == prompt.context_sha256_hex:
                return prompt
        # A context that is no text is sent as JSON, whose length was not recorded.
        for index, prompt in enumerate(self._with_context):
            if prompt.prompt.strip() and prompt.prompt in sent:
                return self._with_context.pop(index)
        return None

    def _most_alike(self, messages: Sequence[Message]) -> _Chat | None:
        left = [chat for chat in self._chats if chat.is_left]
        return max(left, key=lambda chat: chat.likeness(messages), default=None)

    def _note_difference(self, chat: _Chat, messages: Sequence[Message]) -> None:
        recorded = chat.expected
        if self._first_difference is not None or not recorded:
            return
        for index, (was, sent) in enumerate(zip_longest(recorded, messages)):
            if not _is_same(was, sent, is_recorded=index < len(recorded)):
                self._first_difference = ReplayDifference(
                    exchange=chat.used_count + 1, message_index=index, recorded=was, sent=sent
                )
                return

    def _reply_of(self, prompt: RecordedPrompt) -> ModelReply:
        if prompt.reply is not None:
            return prompt.reply
        if prompt.is_refusal:
            raise ModelRefusedError("it is recorded that the model refused this", model=self.name)
        raise ModelUnavailableError(
            "it is recorded that the model did not answer this", model=self.name
        )

    def _nothing_recorded(self, last: str, *, is_prompt: bool) -> ModelUnavailableError:
        if is_prompt:
            why = "no answer is recorded for the prompt"
        elif self._chats:
            used = sum(chat.used_count for chat in self._chats)
            why = f"all {used} recorded replies are used; asked for one more, after"
        else:
            why = "no reply of a root model is recorded; asked for one, after"
        return ModelUnavailableError(f"{why} {excerpt(last)}", model=self.name)


class _Answers:
    """What the same prompt was answered, in order; the last for good, as a run remembers it."""

    def __init__(self) -> None:
        self._prompts: list[RecordedPrompt] = []
        self._used_count = 0

    def add(self, prompt: RecordedPrompt) -> None:
        self._prompts.append(prompt)

    def next(self) -> RecordedPrompt:
        index = min(self._used_count, len(self._prompts) - 1)
        self._used_count += 1
        return self._prompts[index]


class _Chat:
    """The exchanges of one run, and how many of them are used."""

    def __init__(self, exchanges: Sequence[RecordedExchange]) -> None:
        self._exchanges = tuple(exchanges)
        self.used_count = 0

    @property
    def is_left(self) -> bool:
        return self.used_count < len(self._exchanges)

    @property
    def expected(self) -> Sequence[Message | None]:
        return self._exchanges[self.used_count].messages

    def likeness(self, messages: Sequence[Message]) -> tuple[int, bool]:
        """Returns how many messages are the same, and whether there are as many."""
        expected = self.expected
        same = sum(
            _is_same(was, sent, is_recorded=True)
            for was, sent in zip(expected, messages, strict=False)
        )
        return same, len(expected) == len(messages)

    def next(self) -> RecordedExchange:
        self.used_count += 1
        return self._exchanges[self.used_count - 1]


def _is_same(was: Message | None, sent: Message | None, *, is_recorded: bool) -> bool:
    """Whether two messages are the same; one that was not recorded as it was passes for any."""
    return was == sent or (was is None and is_recorded and sent is not None)


def _digest(text: str) -> str:
    # A digest, because the prompts of a run may be hundreds of megabytes together.
    # "surrogatepass": a prompt is any str that a cell can make.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
