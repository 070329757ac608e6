"""The chat that a root model saw at each turn, put together from what was new in each.

Without it each export and the replay would decide anew where a model's own words stand in the chat,
and train on what the harness said in its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.chat import Message
from orchestrator.trajectory.tree import RecordedRun, RecordedTurn


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnChat:
    """What one turn's reply answers.

    Attributes:
        turn: The turn.
        sent: The whole chat as it was sent.
        new_count: How many messages at its end had not been sent before, the model's own last reply
            as the chat has it left out.
        segment: 0 until the first compaction, then 1, and so on: within a segment each chat begins
            with the one before.
        reply_indexes: Where in `sent` replies of this segment stand. They are as the chat has them:
            without reasoning, and with `(no reply)` for silence left out.
    """

    turn: RecordedTurn
    sent: tuple[Message, ...]
    new_count: int
    segment: int
    reply_indexes: tuple[int, ...]


def turn_chats(run: RecordedRun) -> tuple[TurnChat, ...]:
    """Returns the chat of each turn in which the root model was asked, the last one included.

    Empty for a run that was answered without a root model.
    """
    chats: list[TurnChat] = []
    sent: tuple[Message, ...] = ()
    indexes: tuple[int, ...] = ()
    segment, said = 0, ""
    for turn in run.turns:
        if not turn.messages:
            continue  # the harness's own probe
        if turn.compaction is not None:
            sent, indexes = (), ()
            segment += 1
        new = turn.messages
        goes_on = bool(sent)
        if goes_on and new[0].role != "assistant":
            new = (Message("assistant", said), *new)
        if goes_on and _is_of(new[0], said):
            indexes = (*indexes, len(sent))
        sent = (*sent, *new)
        chats.append(
            TurnChat(
                turn=turn,
                sent=sent,
                new_count=len(new) - goes_on,
                segment=segment,
                reply_indexes=indexes,
            )
        )
        said = "" if turn.reply is None else turn.reply.reply.text
    return tuple(chats)


def _is_of(message: Message, said: str) -> bool:
    """Whether a message is what is left of a reply, and not what stands for silence."""
    first_line, _, _ = message.content.partition("\n")
    return bool(first_line.strip()) and first_line.strip() in said
