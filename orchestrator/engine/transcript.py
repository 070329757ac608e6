"""The conversation with the root model, as frozen turns.

Without it each step would edit a list of messages in its own way. Messages are only ever appended,
because providers charge a tenth for a prefix they have seen before, and none for a moved comma.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.chat import Message

_SILENCE = "(no reply)"  # some providers refuse a message without content


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One reply of the root model and what it was told in return.

    Attributes:
        reply: What it said, reasoning left out.
        feedback: What its cells printed, or why none ran.
    """

    reply: str
    feedback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What the root model has been told and has said.

    Attributes:
        opening: System message, few-shot turns and first message.
        turns: In order.
    """

    opening: tuple[Message, ...]
    turns: tuple[Turn, ...] = ()

    def plus(self, turn: Turn) -> Transcript:
        """Returns the transcript with one more turn."""
        return replace(self, turns=(*self.turns, turn))

    @property
    def char_count(self) -> int:
        """Length of all messages together."""
        return sum(len(message.content) for message in self.messages())

    def messages(self) -> tuple[Message, ...]:
        """Returns the chat so far; that of an earlier transcript is a prefix of it."""
        said = [
            message
            for turn in self.turns
            for message in (
                Message("assistant", turn.reply or _SILENCE),
                Message("user", turn.feedback),
            )
        ]
        return (*self.opening, *said)

    def messages_with(self, request: str) -> tuple[Message, ...]:
        """Returns the chat with `request` at its end.

        It joins the last message of the user, because chat templates of several model families
        refuse two in a row.
        """
        *earlier, last = self.messages()
        if last.role != "user":
            return (*earlier, last, Message("user", request))
        return (*earlier, Message("user", f"{last.content}\n\n{request}"))
