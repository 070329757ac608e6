"""A model behind an OpenAI-compatible endpoint.

Without it the ways in which endpoints differ would be the engine's business: what they take, what
they answer instead of a reply, and how many requests at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from orchestrator.chat import ModelFacts, ModelReply, ModelRequest, TextSink
from orchestrator.errors import ModelRefusedError, ModelUnavailableError
from orchestrator.models.complaint import Complaint, Trouble
from orchestrator.models.dialect import Dialect
from orchestrator.models.endpoint_reply import EndpointReply
from orchestrator.models.failure import Failure, failure
from orchestrator.models.formats import FORMATS
from orchestrator.models.manner import Manner
from orchestrator.models.openai_transport import OpenAiTransport
from orchestrator.models.provider import Provider
from orchestrator.models.setting_names import SettingNames
from orchestrator.models.turnstile import Turnstile
from orchestrator.providers import Api

#: As many parameters as an endpoint can refuse one after the other.
_MOST_ADAPTATIONS = 5
# What a provider's own estimate before it has counted comes to, about; corrected once it has.
_BYTES_PER_TOKEN = 4
_USUAL_COMPLETION_TOKENS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToAsk:
    """How one model is asked, and what is known of it.

    Attributes:
        api: How its endpoint is asked.
        manner: What every request says.
        dialect: What its endpoint is believed to take.
        facts: See `ModelClient.facts`.
        names: What the operator calls the settings that a message is about.
    """

    api: Api
    manner: Manner
    dialect: Dialect
    facts: ModelFacts
    names: SettingNames


class OpenAiModel:
    """One model behind an OpenAI-compatible endpoint; used from one event loop only.

    Asks once; whoever pays decides whether to ask again. What the endpoint turns out not to take is
    left out from then on.
    """

    is_scripted = False

    def __init__(
        self, *, name: str, provider: Provider, how: HowToAsk, turnstiles: Sequence[Turnstile]
    ) -> None:
        """Makes a client; connects to nothing yet.

        Args:
            name: What usage and prices are reported under.
            provider: Where it is asked.
            how: How.
            turnstiles: What each request passes, in this order; shared with other clients.
        """
        self.name = name
        self.facts = how.facts
        self._provider = provider
        self._how = how
        self._dialect = how.dialect
        self._turnstiles = tuple(turnstiles)
        self._begins_in_reasoning = False
        self._transport = OpenAiTransport(provider)

    async def complete(
        self, request: ModelRequest, *, on_text: TextSink | None = None
    ) -> ModelReply:
        """Asks the model once; see `ModelClient.complete`.

        Raises:
            ModelUnavailableError: No connection, a timeout, a busy or broken endpoint, or nonsense.
            ModelRefusedError: Key, model name, account, length or form of the request was refused.
        """
        dialect, adaptation_count = self._dialect, 0
        while True:
            sent, outcome = await self._send_in_turn(request, dialect, on_text)
            if isinstance(outcome, ModelReply):
                return outcome
            adapted = dialect.without_refused(outcome.complaint, sent=sent)
            if adapted is None or adaptation_count == _MOST_ADAPTATIONS:
                raise self._error(outcome) from outcome.cause
            dialect, self._dialect = adapted
            adaptation_count += 1

    async def aclose(self) -> None:
        """Closes the connections; see `ModelClient.aclose`."""
        await self._transport.aclose()

    async def _send_in_turn(
        self, request: ModelRequest, dialect: Dialect, on_text: TextSink | None
    ) -> tuple[frozenset[str], ModelReply | Failure]:
        """Sends a request when it is its turn; returns its parameters and what came of it."""
        streams = on_text is not None and dialect.streams
        try:
            body = FORMATS[self._how.api].body(
                request, manner=self._how.manner, dialect=dialect, streams=streams
            )
        except (ValueError, RecursionError) as err:  # the second for nothing but brackets
            what_came = "a schema that is no JSON, with the prompt"
            return frozenset(), failure(Trouble.REQUEST, what_came, cause=err)
        async with AsyncExitStack() as stack:
            passages = [
                await stack.enter_async_context(
                    turnstile.passed(
                        on_behalf_of=request.on_behalf_of, tokens=_expected_tokens(request)
                    )
                )
                for turnstile in self._turnstiles
            ]
            reply = await self._send(body, on_text if streams else None)
            if isinstance(reply, EndpointReply):
                for passage in passages:
                    if reply.prompt_tokens:
                        passage.settle(tokens=reply.prompt_tokens + reply.completion_tokens)
            elif reply.complaint.trouble is Trouble.RATE and reply.asked_for_s:
                self._turnstiles[-1].shut_for(reply.asked_for_s)
        outcome = self._outcome(reply)
        if on_text is not None and not streams and isinstance(outcome, ModelReply):
            on_text(outcome.text)
        return frozenset(body), outcome

    async def _send(
        self, body: dict[str, object], on_text: TextSink | None
    ) -> EndpointReply | Failure:
        if on_text is None:
            reply = await self._transport.ask(self._how.api, body)
        else:
            reply = await self._transport.stream(
                self._how.api,
                body,
                on_text=on_text,
                begins_in_reasoning=self._begins_in_reasoning,
            )
        if isinstance(reply, EndpointReply) and reply.begins_in_reasoning:
            self._begins_in_reasoning = True  # its chat template opens the reasoning: it will again
        return reply

    def _outcome(self, reply: EndpointReply | Failure) -> ModelReply | Failure:
        if isinstance(reply, Failure):
            return reply
        if reply.was_filtered:
            complaint = Complaint(trouble=Trouble.FILTERED, what_came="a filtered completion")
            return Failure(complaint=complaint, may_be_billed=True)
        price, cost_usd = self.facts.price, None
        if price is not None:
            cost_usd = price.cost_usd(
                prompt_tokens=reply.prompt_tokens,
                cached_prompt_tokens=reply.cached_prompt_tokens,
                cache_write_tokens=reply.cache_write_tokens,
                completion_tokens=reply.completion_tokens,
            )
        return ModelReply(
            text=reply.text,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            cached_prompt_tokens=min(reply.cached_prompt_tokens, reply.prompt_tokens),
            cost_usd=cost_usd,
            was_cut=reply.was_cut,
        )

    def _error(self, came: Failure) -> ModelUnavailableError | ModelRefusedError:
        sentence = came.complaint.sentence(
            model_id=self._how.manner.model_id,
            host=self._provider.address.host,
            names=self._how.names,
        )
        if came.complaint.trouble.is_final:
            return ModelRefusedError(sentence, model=self.name, may_be_billed=came.may_be_billed)
        if came.asked_for_s:
            sentence += f" The endpoint asks to wait {came.asked_for_s:g} s."
        return ModelUnavailableError(
            sentence,
            model=self.name,
            retry_after_s=came.asked_for_s,
            may_be_billed=came.may_be_billed,
            received_text=came.received_text,
        )


def _expected_tokens(request: ModelRequest) -> int:
    size_bytes = sum(len(one.content.encode(errors="replace")) for one in request.messages)
    completion_tokens = request.max_completion_tokens or _USUAL_COMPLETION_TOKENS
    return size_bytes // _BYTES_PER_TOKEN + completion_tokens
