"""Sends requests to OpenAI-compatible endpoints; the only importer of `openai`.

Without it the SDK's errors and types, and those of the HTTP client below it, would be known all
over the orchestrator.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import openai

from orchestrator.chat import TextSink
from orchestrator.models.address import Address
from orchestrator.models.complaint import (
    Complaint,
    Trouble,
    complaint_in_body,
    complaint_of_error,
    complaint_of_status,
)
from orchestrator.models.endpoint_reply import EndpointFailedError, EndpointReply, NotAReplyError
from orchestrator.models.failure import Failure, failure
from orchestrator.models.formats import FORMATS, StreamReader
from orchestrator.models.provider import Provider
from orchestrator.models.retry_after import retry_after_s
from orchestrator.models.shown_words import shown
from orchestrator.providers import Api

# The SDK insists on a key; servers without one ignore it.
_NO_KEY = "no-key"
_CONNECT_TIMEOUT_S = 10.0  # a host that does not answer a handshake by then is not there
#: What is left of a stream once the answer is whole is its usage, which follows at once.
_USAGE_GRACE_S = 5.0
#: Nothing of a request has left the machine, so that nothing of it can be billed.
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_NAMED = ("model", "messages", "input", "stream")
_NO_STREAM_TYPES = ("application/json", "text/html")


class _UnreadableError(Exception):
    """What came is no JSON."""


class OpenAiTransport:
    """The connections of one client; used from one event loop only."""

    def __init__(self, provider: Provider) -> None:
        """Connects to nothing yet."""
        self._provider = provider
        timeout_s = provider.request_timeout_s
        address = provider.address
        self._client = openai.AsyncOpenAI(
            api_key=provider.api_key or _NO_KEY,
            base_url=address.base_url,
            timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s)),
            max_retries=0,  # whoever pays decides whether to ask again
            default_headers=dict(provider.headers),
            default_query=dict(provider.query),
            http_client=_loopback_client(address) if address.is_loopback else None,
        )
        # An endpoint that is shown its key in a header of its own is shown no other.
        has_own_way = bool(provider.headers) and provider.api_key is None
        self._headers = {"Authorization": openai.Omit()} if has_own_way else {}
        if not address.is_openai:
            # Read from the environment by the SDK, and of nobody's business but OpenAI's.
            self._client.organization = None
            self._client.project = None

    async def ask(self, api: Api, body: dict[str, object]) -> EndpointReply | Failure:
        """Sends a request and reads the reply as a whole."""
        try:
            # The SDK's own limit is on each read; this one is on the whole request.
            async with asyncio.timeout(self._provider.request_timeout_s):
                # Raw, because the SDK fills its types without checking: a page of HTML comes back
                # as a str, and a completion without choices as one whose choices are None.
                response = await self._resource(api).with_raw_response.create(
                    **self._arguments(body)
                )
            return self._read(api, response.content)
        except _EXPECTED as err:
            return self._failure(err)

    async def stream(
        self,
        api: Api,
        body: dict[str, object],
        *,
        on_text: TextSink,
        begins_in_reasoning: bool,
    ) -> EndpointReply | Failure:
        """Sends a request and hands on the reply as it comes.

        Args:
            api: How the endpoint is asked.
            body: The request.
            on_text: As in `ModelClient.complete`.
            begins_in_reasoning: Whether the model is known to begin with reasoning that no tag
                opens.
        """
        reader = FORMATS[api].stream_reader(begins_in_reasoning=begins_in_reasoning)
        try:
            async with (
                asyncio.timeout(self._provider.request_timeout_s) as deadline,
                self._resource(api).with_streaming_response.create(
                    **self._arguments(body)
                ) as response,
            ):
                if response.headers.get("content-type", "").startswith(_NO_STREAM_TYPES):
                    reply = self._read(api, await response.read())
                    if isinstance(reply, EndpointReply):
                        on_text(reply.text)
                    return reply
                async for event in _events(await response.parse(to=openai.AsyncStream[object])):
                    was_complete = reader.is_complete
                    piece = reader.take(event)
                    if piece and not on_text(piece):
                        return _cut(reader)
                    if reader.is_complete and not was_complete:
                        _hurry(deadline)
        except _EXPECTED as err:
            # An answer that is whole lacks its usage at most, and is not asked for a second time.
            if not reader.is_complete:
                return self._failure(err, received_text=reader.text.everything, is_stream=True)
        if not reader.is_complete:
            return _broken_off(reader)
        rest = reader.text.finish()
        if rest:
            on_text(rest)
        return reader.reply()

    async def aclose(self) -> None:
        """Closes the connections. Idempotent."""
        await self._client.close()

    def _resource(self, api: Api) -> Any:  # noqa: ANN401 - the SDK's two are of unrelated types
        return self._client.chat.completions if api == "chat" else self._client.responses

    def _arguments(self, body: dict[str, object]) -> dict[str, Any]:
        """Returns a body as the SDK takes it: a few parameters by name, the rest as they stand."""
        named = {key: value for key, value in body.items() if key in _NAMED}
        rest = {key: value for key, value in body.items() if key not in _NAMED}
        return named | {"extra_body": rest or None, "extra_headers": self._headers}

    def _read(self, api: Api, content: bytes) -> EndpointReply | Failure:
        try:
            body: object = json.loads(content)
        except (ValueError, RecursionError) as err:
            raise _UnreadableError from err
        complaint = complaint_in_body(body, secrets=self._provider.secrets)
        if complaint is not None:
            return Failure(complaint=complaint)
        return FORMATS[api].read(body)

    def _failure(
        self, err: Exception, *, received_text: str = "", is_stream: bool = False
    ) -> Failure:
        """Returns what an error means; what is billed depends on how far the request had come."""
        match err:
            case openai.APIStatusError():
                return self._refusal(err)
            case openai.APIConnectionError() if isinstance(err.__cause__, _NEVER_SENT):
                reason = shown(str(err.__cause__), secrets=self._provider.secrets)
                return failure(Trouble.UNREACHABLE, "no connection", message=reason, cause=err)
            case openai.APITimeoutError() | TimeoutError():
                what_came = f"nothing whole within {self._provider.request_timeout_s:g} s"
                trouble, message = Trouble.TIMEOUT, ""
            case openai.APIConnectionError() | httpx2.RequestError() | ssl.SSLError():
                what_came = "a reply that broke off" if is_stream else "no connection"
                trouble = Trouble.BROKEN_OFF
                message = shown(str(err.__cause__ or err), secrets=self._provider.secrets)
            case openai.APIError():
                return self._error_in_stream(err, err.body, received_text)
            case EndpointFailedError():
                return self._error_in_stream(err, err.error, received_text)
            case UnicodeEncodeError():
                what_came = "text that UTF-8 cannot carry, in the prompt"
                trouble, message = Trouble.REQUEST, ""
            case _:
                what_came = (
                    str(err) if isinstance(err, NotAReplyError) else "a body that is not JSON"
                )
                trouble, message = Trouble.NONSENSE, ""
        return failure(trouble, what_came, message=message, cause=err, received_text=received_text)

    def _refusal(self, err: openai.APIStatusError) -> Failure:
        complaint = complaint_of_status(
            err.status_code, err.response.content, secrets=self._provider.secrets
        )
        _redact(err, complaint)
        return Failure(
            complaint=complaint, cause=err, asked_for_s=retry_after_s(err.response.headers)
        )

    def _error_in_stream(self, err: Exception, error: object, received_text: str) -> Failure:
        complaint = complaint_of_error(error or "no reason", secrets=self._provider.secrets)
        if isinstance(err, openai.APIError):
            _redact(err, complaint)
        return Failure(
            complaint=complaint,
            cause=err,
            may_be_billed=complaint.trouble.may_be_billed or bool(received_text),
            received_text=received_text,
        )


_EXPECTED = (
    openai.APIError,
    httpx2.RequestError,
    ssl.SSLError,
    TimeoutError,
    NotAReplyError,
    EndpointFailedError,
    UnicodeEncodeError,
    _UnreadableError,
)


async def _events(stream: openai.AsyncStream[object]) -> AsyncIterator[object]:
    """Yields a stream's events; what is no JSON is told apart from what a sink may raise."""
    while True:
        try:
            event = await anext(stream)
        except StopAsyncIteration:
            return
        except (ValueError, RecursionError) as err:
            raise _UnreadableError from err
        yield event


def _hurry(deadline: asyncio.Timeout) -> None:
    """Leaves a stream that may end now no longer than its usage takes."""
    soon_s = asyncio.get_running_loop().time() + _USAGE_GRACE_S
    when_s = deadline.when()
    if when_s is None or soon_s < when_s:
        deadline.reschedule(soon_s)


def _cut(reader: StreamReader) -> EndpointReply:
    """Returns what has come of a reply that nobody wants more of."""
    return replace(reader.reply(), was_cut=True)


def _broken_off(reader: StreamReader) -> Failure:
    """Returns the failure of a stream that ended in good order, and too early."""
    if reader.has_begun:
        return failure(
            Trouble.BROKEN_OFF, "a reply that broke off", received_text=reader.text.everything
        )
    return failure(Trouble.NONSENSE, "a stream without a reply")


def _redact(err: openai.APIError, complaint: Complaint) -> None:
    """Replaces the provider's words in the SDK's error, which a traceback prints as the cause."""
    err.message = f"{complaint.what_came}: {complaint.message}"
    err.args = (err.message,)
    err.body = None


def _loopback_client(address: Address) -> openai.DefaultAsyncHttpxClient:
    """Returns an HTTP client for an endpoint on this machine, which no proxy can reach."""
    if address.base_url.lower().startswith("https:"):
        return openai.DefaultAsyncHttpxClient(trust_env=False)
    # Trusts no certificate: plain HTTP shows none, and reading the usual ones takes 30 ms.
    trust_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return openai.DefaultAsyncHttpxClient(trust_env=False, verify=trust_nobody)
