"""What an endpoint says instead of a reply, and what to do about it.

Without it whoever asks would have to know the statuses, codes and sentences of each kind of
endpoint, and whoever reads the message would find no hint what to change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from enum import StrEnum

from orchestrator.models.setting_names import SettingNames
from orchestrator.models.shown_words import shown

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_IS_HTML = re.compile(r"\s*<(!doctype|html)", re.IGNORECASE)
_IS_CONTEXT_LENGTH = re.compile(
    r"context[ _](length|window|size)|maximum context|too many tokens|prompt is too long",
    re.IGNORECASE,
)
_IS_UNKNOWN_PARAMETER = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra|not permitted|not allowed"
    r"|must be verified",  # how OpenAI refuses to stream to an organization it has not verified
    re.IGNORECASE,
)
_UNKNOWN_PARAMETER_CODES = {"unsupported_parameter", "unknown_parameter", "unsupported_value"}
# https://developers.openai.com/api/docs/guides/error-codes: a 429 that no waiting helps.
_NO_MONEY = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
}
# What the Responses API says in a reply instead of a status; its other codes are about images.
_STATUS_BY_CODE = {
    "server_error": 500,
    "rate_limit_exceeded": 429,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
}
_IS_STATUS = re.compile(r"[1-9]\d\d", re.ASCII)
_FILTER_CODES = {"content_filter", "bio_policy", "misalignment_policy_violation"}
_NOT_FOUND = 404
_REFUSES_PARAMETERS = {400, 422}
_MAYBE_TOO_LONG = {400, 403, 422}  # 403 is how docs.together.ai/docs/error-codes has it


class Trouble(StrEnum):
    """What is wrong, by who can do something about it."""

    KEY = "key"
    MODEL = "model"
    ADDRESS = "address"
    CONTEXT_LENGTH = "context_length"
    MONEY = "money"
    FILTERED = "filtered"
    REQUEST = "request"
    RATE = "rate"
    SERVER = "server"
    NONSENSE = "nonsense"
    UNREACHABLE = "unreachable"
    BROKEN_OFF = "broken_off"
    TIMEOUT = "timeout"

    @property
    def may_be_billed(self) -> bool:
        """Whether the model may have done its work although nothing usable came of it."""
        return self in {Trouble.TIMEOUT, Trouble.NONSENSE, Trouble.BROKEN_OFF}

    @property
    def is_final(self) -> bool:
        """Whether asking again cannot help."""
        return self in _FINAL


_FINAL = {
    Trouble.KEY,
    Trouble.MODEL,
    Trouble.ADDRESS,
    Trouble.CONTEXT_LENGTH,
    Trouble.MONEY,
    Trouble.FILTERED,
    Trouble.REQUEST,
}

_BY_STATUS = {
    401: Trouble.KEY,
    402: Trouble.MONEY,
    403: Trouble.KEY,
    405: Trouble.ADDRESS,
    408: Trouble.SERVER,
    409: Trouble.SERVER,
    413: Trouble.CONTEXT_LENGTH,
    425: Trouble.SERVER,
    429: Trouble.RATE,
}

_ADVICE = {
    Trouble.KEY: "Set {api_key} to a key that {host} accepts",
    Trouble.MODEL: "Check {model}; the endpoint at {host} does not know {model_id!r}",
    Trouble.ADDRESS: "Check {base_url}; it usually ends in /v1",
    Trouble.CONTEXT_LENGTH: "Send shorter prompts, or name a model with a larger window",
    Trouble.MONEY: "Add credit or raise the spending limit of the account at {host}",
    Trouble.FILTERED: "Reword the prompt; the endpoint's content filter stopped it",
    Trouble.REQUEST: "Correct the request, or name a model that takes it",
    Trouble.RATE: (
        "Wait and run again, lower RLM_QUERY__CONCURRENT_QUERIES, or set {requests_per_minute}"
    ),
    Trouble.SERVER: "Run again later",
    Trouble.NONSENSE: "Check {base_url}; {host} may not be an OpenAI-compatible endpoint",
    Trouble.UNREACHABLE: "Check {base_url}, and that {host} is up and reachable",
    Trouble.BROKEN_OFF: (
        "Check {base_url}, and that nothing between here and {host} ends connections"
    ),
    Trouble.TIMEOUT: "Raise {request_timeout_s}, or send shorter prompts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What came instead of a reply.

    Attributes:
        trouble: What is wrong.
        what_came: In a few words: the status, or what broke.
        message: The provider's own words, fit to be shown; empty where it said nothing.
        parameter: The parameter that it says it is about; empty where it says none.
        is_about_parameters: Whether it may be about a parameter of the request at all.
        rejected_parameter: Whether it is that a parameter is not known here. Which one is in
            `parameter` or in `message`.
    """

    trouble: Trouble
    what_came: str
    message: str = ""
    parameter: str = ""
    is_about_parameters: bool = False
    rejected_parameter: bool = False

    def sentence(self, *, model_id: str, host: str, names: SettingNames) -> str:
        """Returns what was expected, what came, and what to do.

        Args:
            model_id: The name that was asked for.
            host: Where.
            names: What the operator calls the settings that can be changed.
        """
        words = f": {self.message!r}" if self.message else ""
        advice = _ADVICE[self.trouble].format(host=host, model_id=model_id, **asdict(names))
        if self.trouble is Trouble.ADDRESS and names.api:
            advice += f", or leave {names.api} at its default"
        return (
            f"expected a reply from model {model_id!r} at {host}, "
            f"came {self.what_came}{words}. {advice}."
        )


def complaint_of_status(status: int, body: bytes, *, secrets: Collection[str]) -> Complaint:
    """Returns what an HTTP status other than success means.

    Args:
        status: The status.
        body: What came with it: the OpenAI error format, some other JSON, HTML, anything.
        secrets: The keys that were sent, kept out of the message.
    """
    text = body.decode("utf-8", errors="replace")
    try:
        error = _error_of(json.loads(text))
    except (ValueError, RecursionError):  # the second for a body that is nothing but brackets
        error = _Error(message=_described(text), is_structured=False)
    return Complaint(
        trouble=_trouble(status, error),
        what_came=f"status {status}",
        message=shown(error.message, secrets=secrets),
        parameter=shown(error.parameter, secrets=secrets),
        is_about_parameters=status in _REFUSES_PARAMETERS,
        rejected_parameter=bool(
            error.code in _UNKNOWN_PARAMETER_CODES or _IS_UNKNOWN_PARAMETER.search(error.message)
        ),
    )


def complaint_in_body(body: object, *, secrets: Collection[str]) -> Complaint | None:
    """Returns what a body that came with success complains of, or None where it does not.

    Routers answer 200 before they know whether the provider behind them will, and streams have
    begun when they break.
    """
    if not isinstance(body, dict) or not body.get("error") or body.get("choices"):
        return None
    return complaint_of_error(body["error"], secrets=secrets)


def complaint_of_error(said: object, *, secrets: Collection[str]) -> Complaint:
    """Returns what an endpoint complains of that has answered with success before.

    Args:
        said: What stands where it reports an error.
        secrets: The keys that were sent, kept out of the message.
    """
    error = _error_of(said)
    is_status = bool(_IS_STATUS.fullmatch(error.code))
    status = int(error.code) if is_status else _STATUS_BY_CODE.get(error.code, 0)
    is_known = status or error.code in _FILTER_CODES or {error.code, error.type_name} & _NO_MONEY
    return Complaint(
        trouble=_trouble(status, error) if is_known else Trouble.SERVER,
        what_came=f"status {status}" if is_status else "an error instead of a reply",
        message=shown(error.message, secrets=secrets),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """An error as one of the formats in use states it."""

    message: str
    code: str = ""
    type_name: str = ""
    parameter: str = ""
    is_structured: bool = True


def _error_of(body: object) -> _Error:
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return _Error(message=error if isinstance(error, str) else json.dumps(error))
    words = error.get("message") or error.get("detail") or error
    return _Error(
        message=words if isinstance(words, str) else json.dumps(words),
        code=str(error.get("code") or ""),
        type_name=str(error.get("type") or ""),
        parameter=str(error.get("param") or ""),
    )


def _described(text: str) -> str:
    if not _IS_HTML.match(text):
        return text
    title = _TITLE.search(text)
    return f"an HTML page titled {title[1].strip()!r}" if title else "an HTML page"


def _trouble(status: int, error: _Error) -> Trouble:
    words = f"{error.code} {error.message}".lower()
    if {error.code, error.type_name} & _NO_MONEY:
        return Trouble.MONEY
    if error.code in _FILTER_CODES:
        return Trouble.FILTERED
    if error.code == "model_not_found":
        return Trouble.MODEL
    if status == _NOT_FOUND:
        is_about_model = error.is_structured and "model" in words
        return Trouble.MODEL if is_about_model else Trouble.ADDRESS
    if status in _MAYBE_TOO_LONG and _IS_CONTEXT_LENGTH.search(words):
        return Trouble.CONTEXT_LENGTH
    is_ours = status // 100 == 4  # noqa: PLR2004 -- RFC 9110 15.5: the client's errors
    return _BY_STATUS.get(status, Trouble.REQUEST if is_ours else Trouble.SERVER)
