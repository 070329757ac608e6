"""The rules of streams: how many, how their headers come, and how their messages do.

Without it a client could open and reset streams faster than the server ends them, or keep it
waiting for the end of headers or of a message, on as many streams as it likes.
"""

from __future__ import annotations

from orchestrator.broker.http2_frames import END_HEADERS, END_STREAM, FrameHeader
from orchestrator.broker.message_reader import MessageReader
from orchestrator.broker.order import ExcessError
from orchestrator.broker.peer_rules import PeerRules
from orchestrator.broker.token_bucket import TokenBucket
from orchestrator.errors import ProtocolViolationError


class _Stream:
    """A stream that the server has not ended yet."""

    __slots__ = ("is_ended_by_client", "messages")

    def __init__(self, rules: PeerRules, *, is_ended_by_client: bool) -> None:
        self.messages = MessageReader(rules)
        self.is_ended_by_client = is_ended_by_client


class StreamPolice:
    """Follows every stream of one connection. Holds a few bytes for each that is open."""

    def __init__(self, rules: PeerRules, *, now_s: float) -> None:
        """Begins without a stream."""
        self._rules = rules
        self._open: dict[int, _Stream] = {}
        self._last_id = 0
        self._count = 0
        self._block_id: int | None = None
        self._block_bytes = 0
        self._block_frame_count = 0
        self._messages = TokenBucket(rules.messages, now_s=now_s)
        self._resets_left = rules.resets
        self._server_resets = TokenBucket(rules.server_resets, now_s=now_s)
        self._late_frames = TokenBucket(rules.late_frames, now_s=now_s)
        self._empty_frames = TokenBucket(rules.empty_frames, now_s=now_s)

    @property
    def is_in_header_block(self) -> bool:
        """Whether a HEADERS frame has come, and not yet the end of what it began."""
        return self._block_id is not None

    def unfinished_messages(self) -> list[MessageReader]:
        """Returns the readers of messages that have come in part."""
        readers = (stream.messages for stream in self._open.values())
        return [reader for reader in readers if not reader.is_between_messages]

    def headers(self, header: FrameHeader, now_s: float) -> None:
        """Takes a HEADERS frame: in gRPC that is a new stream, for a client sends no trailers."""
        del now_s
        if header.flags & ~(END_STREAM | END_HEADERS):
            raise ProtocolViolationError("headers are neither padded nor given a priority")
        if header.stream_id % 2 == 0 or header.stream_id <= self._last_id:
            raise ProtocolViolationError(
                f"headers begin a new stream: {header.stream_id} after {self._last_id}"
            )
        self._last_id = header.stream_id
        self._count += 1
        if self._count > self._rules.streams:
            raise ExcessError(f"a connection has at most {self._rules.streams:,} streams")
        if len(self._open) >= self._rules.open_streams:
            raise ExcessError(f"at most {self._rules.open_streams:,} streams are open at once")
        self._open[header.stream_id] = _Stream(
            self._rules, is_ended_by_client=bool(header.flags & END_STREAM)
        )
        self._block_bytes = self._block_frame_count = 0
        self._take_block(header)

    def continuation(self, header: FrameHeader, now_s: float) -> None:
        """Takes a CONTINUATION frame."""
        del now_s
        if header.stream_id != self._block_id:
            raise ProtocolViolationError("a CONTINUATION frame goes on with a header block")
        self._block_frame_count += 1
        if self._block_frame_count > self._rules.continuations:
            raise ExcessError(
                f"a header block has at most {self._rules.continuations} CONTINUATION frames"
            )
        self._take_block(header)

    def _take_block(self, header: FrameHeader) -> None:
        self._block_bytes += header.length
        if self._block_bytes > self._rules.header_bytes:
            raise ExcessError(f"a header block has at most {self._rules.header_bytes:,} bytes")
        self._block_id = None if header.flags & END_HEADERS else header.stream_id

    def data(self, header: FrameHeader, now_s: float) -> None:
        """Takes the header of a DATA frame."""
        if header.flags & ~END_STREAM:
            raise ProtocolViolationError("data are not padded")
        if header.length > self._rules.frame_bytes:
            raise ExcessError(
                f"a frame has at most {self._rules.frame_bytes:,} bytes,"
                f" this one has {header.length:,}"
            )
        if not header.length and not header.flags & END_STREAM:
            self._require(self._empty_frames, "empty DATA frames", now_s)
        stream = self._of(header, now_s)
        if stream is None:
            return
        if stream.is_ended_by_client:
            raise ProtocolViolationError("nothing is sent on a stream that the client has ended")
        stream.messages.begin_frame()

    def payload(self, stream_id: int, data: memoryview, now_s: float) -> None:
        """Takes the next bytes of a DATA frame."""
        stream = self._open.get(stream_id)
        if stream is not None and (begun_count := stream.messages.read(data)):
            self._require(self._messages, "messages", now_s, count=begun_count)

    def end_of_data(self, header: FrameHeader) -> None:
        """Takes the end of a DATA frame."""
        stream = self._open.get(header.stream_id)
        if stream is not None and header.flags & END_STREAM:
            stream.is_ended_by_client = True
            if not stream.messages.is_between_messages:
                raise ProtocolViolationError("a stream does not end in the middle of a message")

    def reset(self, header: FrameHeader, now_s: float) -> None:
        """Takes a RST_STREAM frame: a query is given up."""
        self._resets_left -= 1
        if self._resets_left < 0:
            raise ExcessError(
                f"at most {self._rules.resets_per_message} streams are given up for each message of"
                f" the server, and {self._rules.resets} before"
            )
        if self._of(header, now_s) is not None:
            del self._open[header.stream_id]

    def window_update(self, header: FrameHeader) -> None:
        """Takes a WINDOW_UPDATE frame of a stream."""
        self._require_begun(header)

    def data_of_server(self) -> None:
        """Notes a message of the server, which may have begun a cell."""
        self._resets_left += self._rules.resets_per_message

    def end_of_server(self, header: FrameHeader) -> None:
        """Notes that the server has ended a stream."""
        self._open.pop(header.stream_id, None)

    def reset_of_server(self, header: FrameHeader, now_s: float) -> None:
        """Notes that the server has given a stream up, because of what the client did with it."""
        self._open.pop(header.stream_id, None)
        self._require(self._server_resets, "streams that the server had to give up", now_s)

    def _of(self, header: FrameHeader, now_s: float) -> _Stream | None:
        """Returns the stream of a frame, or None if it has ended while the frame was under way."""
        self._require_begun(header)
        stream = self._open.get(header.stream_id)
        if stream is None:
            self._require(self._late_frames, "frames of streams that have ended", now_s)
        return stream

    def _require_begun(self, header: FrameHeader) -> None:
        if not 0 < header.stream_id <= self._last_id or header.stream_id % 2 == 0:
            raise ProtocolViolationError(
                f"a stream begins with headers: {header.stream_id} has none"
            )

    def _require(self, bucket: TokenBucket, what: str, now_s: float, *, count: int = 1) -> None:
        if bucket.take(count, now_s=now_s):
            raise ExcessError(f"too many {what}: {bucket.allowance}")
