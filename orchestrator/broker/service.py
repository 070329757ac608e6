"""The contract's two methods, as gRPC calls them.

Without it the rules of the stream would be mixed with the ways of gRPC. Messages are taken as
bytes: what cannot be parsed is then a broken rule like any other, and not an error inside gRPC.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, TypeAlias

import grpc
from grpc import aio

from orchestrator.broker import wire
from orchestrator.broker.attachment import StreamAttachment
from orchestrator.broker.ending import EndKind, StreamEnd
from orchestrator.broker.open_queries import QueryRefusal
from orchestrator.errors import ProtocolViolationError

_log = logging.getLogger(__name__)

# `object`, because what is read may also be `aio.EOF`, which the stubs leave out.
_Context: TypeAlias = "aio.ServicerContext[object, bytes]"

_STATUSES = {
    EndKind.CLOSED: grpc.StatusCode.OK,
    EndKind.LOST: grpc.StatusCode.OK,
    EndKind.REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    EndKind.BROKEN: grpc.StatusCode.INVALID_ARGUMENT,
    EndKind.EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_REFUSALS = {
    QueryRefusal.NO_CELL: grpc.StatusCode.FAILED_PRECONDITION,
    QueryRefusal.CANCELLED: grpc.StatusCode.CANCELLED,
}
#: Details travel as metadata, of which a peer takes 8 KB (grpc/grpc#37852); the log has the rest.
_MAX_DETAILS_CHARS = 500
#: An honest worker is refused once, and exits. A cell that dials for itself tries more often.
_MAX_STRANGERS = 16


class BrokerService:
    """Both methods, for exactly one sandbox."""

    def __init__(
        self,
        *,
        token: str,
        discard_token: Callable[[], None],
        attachment: StreamAttachment,
        last_word: Callable[[], Awaitable[None]],
    ) -> None:
        """Serves `attachment` to whoever shows `token`; the first to do so has it discarded.

        `last_word` returns when a connection that broke off has been found to break a rule, or not.
        """
        self._token = token.encode()
        self._discard_token = discard_token
        self._attachment = attachment
        self._last_word = last_word
        self._losing: asyncio.Task[None] | None = None
        self._stranger_count = 0

    def add_to(self, server: aio.Server) -> None:
        """Registers both methods."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Attach": grpc.stream_stream_rpc_method_handler(self._attach),
            "LlmQuery": grpc.unary_unary_rpc_method_handler(self._llm_query),
        }
        server.add_registered_method_handlers(wire.SERVICE_NAME, methods)
        server.add_generic_rpc_handlers((_UnknownMethods(self._refuse_method),))

    def _refuse_method(self) -> None:
        rule = f"the methods are {wire.SERVICE_NAME}'s"
        self._attachment.end(StreamEnd(kind=EndKind.BROKEN, reason=rule))

    async def _attach(self, _messages: AsyncIterator[bytes], context: _Context) -> None:
        await self._require_token(context)
        attachment = self._attachment
        if attachment.is_attached:
            await self._turn_away(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                "a stream has been attached with this token before",
            )
        self._discard_token()

        async def write(raw: bytes) -> None:
            try:
                await context.write(raw)
            except aio.BaseError:
                self._lose()

        attachment.attach(write)
        reader = asyncio.create_task(self._read(context))
        try:
            end = await attachment.ended()
        except asyncio.CancelledError:
            self._lose()
            raise
        finally:
            reader.cancel()
            await asyncio.wait({reader})
        status = _STATUSES[end.kind]
        if status is not grpc.StatusCode.OK:
            await context.abort(status, end.reason[:_MAX_DETAILS_CHARS])

    async def _read(self, context: _Context) -> None:
        """Hands on what the worker says until it stops or breaks a rule. Never raises."""
        attachment = self._attachment
        try:
            while isinstance(raw := await context.read(), bytes):
                attachment.receive(raw)
            self._lose()
        except ProtocolViolationError as violation:
            attachment.end(StreamEnd.of_violation(violation))
        except aio.BaseError:
            self._lose()
        except Exception:  # noqa: BLE001 # whatever it is, a caller must not wait for ever
            _log.exception("reading a sandbox's stream failed")
            attachment.end(StreamEnd(kind=EndKind.LOST, reason="the orchestrator failed; see log"))

    def _lose(self) -> None:
        """Ends a stream that broke off; as an attack, if that is why."""
        if self._losing is None:
            self._losing = asyncio.create_task(self._end_as_lost())

    async def _end_as_lost(self) -> None:
        await self._last_word()
        # gRPC tells the two apart to the worker only.
        reason = "its stream broke off: the worker exited, or was killed"
        self._attachment.end(StreamEnd(kind=EndKind.LOST, reason=reason))

    async def _llm_query(self, raw: bytes, context: _Context) -> bytes:
        await self._require_token(context)
        try:
            reply = await self._attachment.answer_query(raw)
        except ProtocolViolationError as violation:
            end = StreamEnd.of_violation(violation)
            self._attachment.end(end)
            await context.abort(_STATUSES[end.kind], end.reason[:_MAX_DETAILS_CHARS])
        except Exception:  # noqa: BLE001 # gRPC would send its text to the sandbox
            _log.exception("answering a query failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the orchestrator failed")
        if isinstance(reply, QueryRefusal):
            await context.abort(_REFUSALS[reply], reply.value)
        return reply

    async def _require_token(self, context: _Context) -> None:
        shown = [
            value if isinstance(value, bytes) else value.encode()
            for key, value in context.invocation_metadata() or ()
            if key == wire.TOKEN_KEY
        ]
        if len(shown) != 1 or not hmac.compare_digest(shown[0], self._token):
            await self._turn_away(
                context,
                grpc.StatusCode.UNAUTHENTICATED,
                f"the metadata entry {wire.TOKEN_KEY} is missing or wrong",
            )

    async def _turn_away(
        self, context: _Context, status: grpc.StatusCode, details: str
    ) -> NoReturn:
        self._stranger_count += 1
        _log.warning("a call from a sandbox was turned away: %s", details)
        if self._stranger_count > _MAX_STRANGERS:
            rule = f"a sandbox dials once; {self._stranger_count} calls were turned away"
            self._attachment.end(StreamEnd(kind=EndKind.BROKEN, reason=rule))
        await context.abort(status, details)


class _UnknownMethods(grpc.GenericRpcHandler):
    """Is asked for every method that nobody registered; has none, and says so."""

    def __init__(self, on_asked: Callable[[], None]) -> None:
        self._on_asked = on_asked

    def service(self, _call: grpc.HandlerCallDetails) -> None:
        self._on_asked()
