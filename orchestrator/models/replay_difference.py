"""Where a replayed chat leaves the recorded one.

Without it a replay that goes another way would look like a defect, and nobody would know from which
message on to look.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from orchestrator.chat import Message

#: Around the first character that differs, for a reader.
_EXCERPT_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayDifference:
    """Where a chat first differs from the recorded one.

    Attributes:
        exchange: Which reply of its run was asked for, from 1.
        message_index: Which message of the chat, from 0.
        recorded: None where the recorded chat has none there.
        sent: None where the one that was sent has none there.
    """

    exchange: int
    message_index: int
    recorded: Message | None
    sent: Message | None

    def __str__(self) -> str:
        """Returns both as far as they matter, as one sentence."""
        recorded, sent = _excerpts(self.recorded, self.sent)
        return (
            f"from request {self.exchange} on the run goes another way than the recorded one: "
            f"message {self.message_index} was {recorded}, and is {sent}"
        )


def _excerpts(recorded: Message | None, sent: Message | None) -> tuple[str, str]:
    """Returns two messages around the first character in which they differ."""
    if recorded is None or sent is None:
        texts = [message and excerpt(message.content) for message in (recorded, sent)]
        return texts[0] or "not there", texts[1] or "not there"
    start = 0
    if recorded.role == sent.role:
        pairs = enumerate(zip_longest(recorded.content, sent.content))
        start = next((index for index, (was, now) in pairs if was != now), 0)
    return (
        f"{recorded.role} {excerpt(recorded.content, start)}",
        f"{sent.role} {excerpt(sent.content, start)}",
    )


def excerpt(text: str, start: int = 0) -> str:
    """Returns a piece of a text around one of its characters, quoted."""
    begin = max(start - _EXCERPT_CHARS // 3, 0)
    piece = text[begin : begin + _EXCERPT_CHARS]
    before = "…" if begin else ""
    after = "…" if begin + _EXCERPT_CHARS < len(text) else ""
    return repr(f"{before}{piece}{after}")
