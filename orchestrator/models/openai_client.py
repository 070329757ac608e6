"""Asks models behind any OpenAI-compatible endpoint; the only importer of `openai`.

Without it the SDK's errors, retries and types would be known all over the orchestrator.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import openai
from openai.types.chat import ChatCompletionMessageParam

from orchestrator.domain import Message, ModelReply
from orchestrator.errors import ModelRefusedError, ModelUnavailableError, SettingsError
from orchestrator.models.address import Address, address_of
from orchestrator.models.chat_reply import NotAReplyError, read_chat_reply
from orchestrator.models.complaint import (
    Complaint,
    Trouble,
    complaint_in_body,
    complaint_of_status,
    shown,
)
from orchestrator.models.pricing import Price, price_of
from orchestrator.models.retry import next_wait_s, retry_after_s

# The SDK insists on a key; servers without one ignore it.
_NO_KEY = "no-key"
_CONNECT_TIMEOUT_S = 10.0  # a host that does not answer a handshake by then is not there
_NEW_LIMIT, _OLD_LIMIT = "max_completion_tokens", "max_tokens"
_PARAMETER_REFUSED = {400, 422}


class OpenAiModel:
    """One model behind an OpenAI-compatible endpoint; used from one event loop only.

    Retries what is transient, with waits of at most a minute together.
    """

    is_scripted = False

    def __init__(  # noqa: PLR0913 -- keyword-only, one for each thing an operator sets
        self,
        *,
        name: str,
        api_key: str | None,
        base_url: str | None,
        request_timeout_s: float,
        max_retries: int,
        temperature: float | None,
        max_concurrent_requests: int,
        price: Price | None = None,
    ) -> None:
        """Makes a client; connects to nothing yet.

        Args:
            name: The model's name as the endpoint knows it.
            api_key: The key; None where `base_url` needs none.
            base_url: The endpoint; None means OpenAI's own.
            request_timeout_s: Wall-clock seconds one request may take, from its start to the last
                byte. A call may make `max_retries` more of them.
            max_retries: How often a transient failure is tried again.
            temperature: Sent where not None; some models accept none but their own.
            max_concurrent_requests: Further requests wait for their turn.
            price: What the model costs where that is known better than from OpenAI's list, which
                holds for OpenAI's own endpoint only.

        Raises:
            SettingsError: There is no key for OpenAI, or key or address cannot be used.
        """
        self.name = name
        address = address_of(base_url)
        self._host = address.host
        self._api_key = _checked_key(api_key, address)
        self._request_timeout_s = request_timeout_s
        self._max_retries = max_retries
        self._temperature = temperature
        self._slots = asyncio.Semaphore(max_concurrent_requests)
        self._price = price or (price_of(name) if address.is_openai else None)
        # OpenAI deprecates the old name, and its reasoning models answer it with 400. Elsewhere the
        # new one is the risk: llama-cpp-python (#1907), llamafile (#701) and llama.cpp before
        # February 2026 (#13700) ignore it without a word, and the reply has no limit then.
        self._limit_name = _NEW_LIMIT if address.is_openai else _OLD_LIMIT
        self._client = openai.AsyncOpenAI(
            api_key=self._api_key or _NO_KEY,
            base_url=address.base_url,
            timeout=openai.Timeout(
                request_timeout_s, connect=min(_CONNECT_TIMEOUT_S, request_timeout_s)
            ),
            max_retries=0,  # ours, because the SDK's would retry a used-up quota and wait minutes
            http_client=_loopback_client(address) if address.is_loopback else None,
        )

    async def complete(
        self, messages: Sequence[Message], *, max_completion_tokens: int | None = None
    ) -> ModelReply:
        """Asks the model; see `ModelClient.complete`.

        Raises:
            ModelUnavailableError: No connection, a timeout, a busy or broken endpoint, or nonsense;
                retries are used up, or the endpoint asks to wait for more than a minute.
            ModelRefusedError: Key, model name, account, length or form of the request was refused.
        """
        retry_count, waited_s = 0, 0.0
        while True:
            outcome = await self._ask_once(messages, max_completion_tokens)
            if isinstance(outcome, ModelReply):
                return outcome
            wait_s = (
                None
                if outcome.complaint.trouble.is_final
                else next_wait_s(
                    retry_count=retry_count,
                    max_retries=self._max_retries,
                    waited_s=waited_s,
                    asked_for_s=outcome.asked_for_s,
                    jitter=random.random(),  # noqa: S311 -- spreads retries, guards nothing
                )
            )
            if wait_s is None:
                raise self._error(outcome, try_count=retry_count + 1) from outcome.cause
            await asyncio.sleep(wait_s)
            retry_count += 1
            waited_s += wait_s

    async def aclose(self) -> None:
        """Closes the connections; see `ModelClient.aclose`."""
        await self._client.close()

    async def _ask_once(
        self, messages: Sequence[Message], max_completion_tokens: int | None
    ) -> ModelReply | _Failure:
        async with self._slots:
            limit_name = self._limit_name
            outcome = await self._send(messages, limit_name, max_completion_tokens)
            if (
                max_completion_tokens is not None
                and isinstance(outcome, _Failure)
                and outcome.complaint.rejected_parameter
                and limit_name in outcome.complaint.message
            ):
                self._limit_name = _OLD_LIMIT if limit_name == _NEW_LIMIT else _NEW_LIMIT
                outcome = await self._send(messages, self._limit_name, max_completion_tokens)
            return outcome

    async def _send(
        self, messages: Sequence[Message], limit_name: str, max_completion_tokens: int | None
    ) -> ModelReply | _Failure:
        chat = cast(
            "list[ChatCompletionMessageParam]",
            [{"role": message.role, "content": message.content} for message in messages],
        )
        try:
            # The SDK's own limit is on each read; this one is on the whole request.
            async with asyncio.timeout(self._request_timeout_s):
                # Raw, because the SDK fills its types without checking: a page of HTML comes back
                # as a str, and a completion without choices as one whose choices are None.
                response = await self._client.chat.completions.with_raw_response.create(
                    model=self.name,
                    messages=chat,
                    temperature=openai.omit if self._temperature is None else self._temperature,
                    extra_body={limit_name: max_completion_tokens}
                    if max_completion_tokens is not None
                    else None,
                )
            return self._reply(json.loads(response.content))
        except (openai.APITimeoutError, TimeoutError) as err:
            what_came = f"nothing whole within {self._request_timeout_s:g} s"
            return _failure(err, Trouble.TIMEOUT, what_came)
        except openai.APIStatusError as err:
            complaint = complaint_of_status(
                err.status_code, err.response.content, api_key=self._api_key
            )
            _redact(err, complaint)
            return _Failure(
                complaint=complaint, cause=err, asked_for_s=retry_after_s(err.response.headers)
            )
        except openai.APIConnectionError as err:
            reason = shown(str(err.__cause__ or err), api_key=self._api_key)
            return _failure(err, Trouble.UNREACHABLE, "no connection", message=reason)
        except UnicodeEncodeError as err:
            return _failure(err, Trouble.REQUEST, "text that UTF-8 cannot carry, in the prompt")
        except (NotAReplyError, ValueError) as err:
            what_came = str(err) if isinstance(err, NotAReplyError) else "a body that is not JSON"
            return _failure(err, Trouble.NONSENSE, what_came)

    def _reply(self, body: object) -> ModelReply | _Failure:
        complaint = complaint_in_body(body, api_key=self._api_key)
        if complaint is not None:
            return _Failure(complaint=complaint)
        reply = read_chat_reply(body)
        if reply.was_filtered:
            return _Failure(
                complaint=Complaint(trouble=Trouble.FILTERED, what_came="a filtered completion")
            )
        cost_usd = None
        if self._price is not None:
            cost_usd = self._price.cost_usd(
                prompt_tokens=reply.prompt_tokens,
                cached_prompt_tokens=reply.cached_prompt_tokens,
                cache_write_tokens=reply.cache_write_tokens,
                completion_tokens=reply.completion_tokens,
            )
        return ModelReply(
            text=reply.text,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            cost_usd=cost_usd,
            was_cut=reply.was_cut,
        )

    def _error(
        self, failure: _Failure, *, try_count: int
    ) -> ModelUnavailableError | ModelRefusedError:
        complaint = failure.complaint
        sentence = complaint.sentence(model=self.name, host=self._host, try_count=try_count)
        if failure.asked_for_s:
            sentence += f" The endpoint asks to wait {failure.asked_for_s:g} s."
        kind = ModelRefusedError if complaint.trouble.is_final else ModelUnavailableError
        return kind(sentence, model=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """One request that brought no reply."""

    complaint: Complaint
    cause: Exception | None = None
    asked_for_s: float | None = None


def _failure(cause: Exception, trouble: Trouble, what_came: str, *, message: str = "") -> _Failure:
    complaint = Complaint(trouble=trouble, what_came=what_came, message=message)
    return _Failure(complaint=complaint, cause=cause)


def _redact(err: openai.APIStatusError, complaint: Complaint) -> None:
    """Replaces the provider's words in the SDK's error, which a traceback prints as the cause."""
    err.message = f"{complaint.what_came}: {complaint.message}"
    err.args = (err.message,)
    err.body = None


def _checked_key(api_key: str | None, address: Address) -> str | None:
    """Returns the key, or None where none is needed."""
    if not api_key:
        if address.is_openai:
            message = (
                f"no key for {address.hostname}: set OPENAI_API_KEY, or OPENAI_BASE_URL to an "
                "endpoint that needs none, or run with --model local"
            )
            raise SettingsError(message)
        return None
    # Sent as a header, where a line break left over from a file would fail with the key in the
    # error's text.
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        message = (
            "OPENAI_API_KEY holds a space, a line break or a character that is not ASCII; "
            "set it again, the key alone"
        )
        raise SettingsError(message)
    return api_key


def _loopback_client(address: Address) -> openai.DefaultAsyncHttpxClient:
    """Returns an HTTP client for an endpoint on this machine, which no proxy can reach."""
    if address.base_url.lower().startswith("https:"):
        return openai.DefaultAsyncHttpxClient(trust_env=False)
    # Trusts no certificate: plain HTTP shows none, and reading the usual ones takes 30 ms.
    trust_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return openai.DefaultAsyncHttpxClient(trust_env=False, verify=trust_nobody)
