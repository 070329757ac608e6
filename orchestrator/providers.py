"""Where models are asked, and how.

Without it a run would have one provider for all its models, and each of the ways in which endpoints
differ would be a setting of its own at the top. Each default has its reason on its line;
`docs/providers.md` has them for operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import SecretStr

from orchestrator.price import Price

#: How an endpoint is asked: `/chat/completions` or `/responses`.
Api: TypeAlias = Literal["chat", "responses"]
#: How an endpoint is given the schema of an answer.
Structured: TypeAlias = Literal["json_schema", "json_object", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """One OpenAI-compatible endpoint, and what it may be asked.

    Attributes:
        base_url: Its address; None means OpenAI's own.
        api_key: Its key.
        api_key_env: The environment variable that holds the key, instead of `api_key`.
        headers: Sent with each request beside the key.
        query: Added to each request's address: what some gateways want their version in.
        request_timeout_s: Wall-clock seconds one request may take, from its start to the last byte.
        max_retries: Further tries of a request after the first.
        temperature: Sent where not None.
        concurrent_requests: Requests under way at once, of all runs and models together.
        requests_per_minute: Requests begun within any 60 seconds.
        tokens_per_minute: Tokens of the requests begun within any 60 seconds, replies included.
        local_base_url: Where the local model is served already; of `[provider]` alone.
    """

    base_url: str | None = None
    api_key: SecretStr | None = None  # a local server needs none
    api_key_env: str | None = None
    headers: Mapping[str, SecretStr] = field(default_factory=dict)  # a key may be one of them
    query: Mapping[str, SecretStr] = field(default_factory=dict)  # likewise
    request_timeout_s: float = 600.0  # reasoning models take minutes for one reply
    max_retries: int = 4  # rides out the window of a rate limit
    temperature: float | None = None  # the provider's own; reasoning models refuse any other
    concurrent_requests: int = 32  # two runs' queries; more wait, each run as long as the other
    requests_per_minute: int | None = None  # what an account may is known to its owner alone
    tokens_per_minute: int | None = None
    local_base_url: str | None = None  # `--model local` starts a server for the run


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What is known of one model, and how it is asked.

    Attributes:
        provider: The name of one of `[providers]`; None means `[provider]`.
        id: The name its endpoint knows it by, where that differs.
        api: How its endpoint is asked.
        window_tokens: Prompt and completion together; None takes what a list of prices says.
        max_completion_tokens: Its longest reply; likewise.
        price: What its tokens cost; likewise.
        concurrent_requests: Requests to it under way at once, within what its provider takes.
        reasoning_effort: Sent where not None; which words are taken differs from model to model.
        temperature: Sent where not None, instead of the provider's.
        extra_body: Added to each request as it stands.
        structured: How its endpoint is given the schema of an answer; None means as a JSON schema
            at OpenAI's own endpoint and not at all elsewhere. The prompt holds it in any case.
        streams: Whether it may be asked for its reply piece by piece.
    """

    provider: str | None = None
    id: str | None = None
    api: Api = "chat"  # what every compatible endpoint has
    window_tokens: int | None = None
    max_completion_tokens: int | None = None
    price: Price | None = None
    concurrent_requests: int | None = None
    reasoning_effort: str | None = None  # the model's own
    temperature: float | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    structured: Structured | None = None
    streams: bool = True  # whatever refuses it is asked again without
