"""The ways in which an endpoint can be asked.

Without it whoever sends a request would ask at every step which way it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestrator.chat import ModelRequest
from orchestrator.models.chat_reply import ChatStream, read_chat_reply
from orchestrator.models.chat_request import chat_body
from orchestrator.models.dialect import Dialect
from orchestrator.models.endpoint_reply import EndpointReply
from orchestrator.models.manner import Manner
from orchestrator.models.reasoning import StreamedText
from orchestrator.models.responses_reply import ResponseStream, read_response
from orchestrator.models.responses_request import response_body
from orchestrator.providers import Api


class StreamReader(Protocol):
    """Reads one reply that comes in pieces.

    Attributes:
        text: Its text as far as it has come.
        has_begun: Whether anything has come that belongs to a reply.
    """

    text: StreamedText
    has_begun: bool

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole; its usage may yet come."""
        ...

    def take(self, event: object) -> str:
        """Takes one event and returns what it adds to the answer, reasoning left out."""
        ...

    def reply(self) -> EndpointReply:
        """Returns what has come so far."""
        ...


class BodyMaker(Protocol):
    """Puts a request's body together; see `chat_body`."""

    def __call__(
        self, request: ModelRequest, *, manner: Manner, dialect: Dialect, streams: bool
    ) -> dict[str, object]:
        """Returns the body."""
        ...


class ReaderMaker(Protocol):
    """Makes what reads a stream."""

    def __call__(self, *, begins_in_reasoning: bool) -> StreamReader:
        """Returns a reader before the first piece."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way of asking: what is sent, and how what comes is read."""

    body: BodyMaker
    read: Callable[[object], EndpointReply]
    stream_reader: ReaderMaker


FORMATS: Mapping[Api, Format] = {
    "chat": Format(body=chat_body, read=read_chat_reply, stream_reader=ChatStream),
    "responses": Format(body=response_body, read=read_response, stream_reader=ResponseStream),
}
