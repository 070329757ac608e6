"""What an endpoint says instead of a reply, and what to do about it.

Without it the words of a provider would reach a terminal as they came: with the key in them, with
control characters, a page of HTML long, and without a hint what to change.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

#: More of a provider's own words than this is a page, not a message.
MESSAGE_CHARS = 500

# What keys look like where only a part of one is echoed: a scheme's prefix, a bearer token, or
# characters around a run of asterisks ("Incorrect API key provided: sk-abcd****wxyz").
_KEY_LIKE = re.compile(
    r"\bsk-[\w*.-]{4,}|\bBearer\s+\S+|[\w-]*\*{3,}[\w-]*",
    re.IGNORECASE,
)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_IS_HTML = re.compile(r"\s*<(!doctype|html)", re.IGNORECASE)
_IS_CONTEXT_LENGTH = re.compile(
    r"context[ _](length|window|size)|maximum context|too many tokens|prompt is too long",
    re.IGNORECASE,
)
_IS_UNKNOWN_PARAMETER = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra|not permitted|not allowed",
    re.IGNORECASE,
)
# https://developers.openai.com/api/docs/guides/error-codes: a 429 that no waiting helps.
_NO_MONEY = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
}
_NOT_FOUND = 404
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
    TIMEOUT = "timeout"

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
    Trouble.KEY: "Set OPENAI_API_KEY to a key that {host} accepts",
    Trouble.MODEL: "Check --model; the endpoint at {host} does not know {model!r}",
    Trouble.ADDRESS: "Check OPENAI_BASE_URL; it usually ends in /v1",
    Trouble.CONTEXT_LENGTH: "Send shorter prompts, or name a model with a larger window",
    Trouble.MONEY: "Add credit or raise the spending limit of the account at {host}",
    Trouble.FILTERED: "Reword the prompt; the endpoint's content filter stopped it",
    Trouble.REQUEST: "Correct the request, or name a model that takes it",
    Trouble.RATE: "Wait and run again, or lower RLM_RUN__CONCURRENT_QUERIES",
    Trouble.SERVER: "Run again later",
    Trouble.NONSENSE: "Check OPENAI_BASE_URL; {host} may not be an OpenAI-compatible endpoint",
    Trouble.UNREACHABLE: "Check OPENAI_BASE_URL, and that {host} is up and reachable",
    Trouble.TIMEOUT: "Raise RLM_PROVIDER__REQUEST_TIMEOUT_S, or send shorter prompts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What came instead of a reply.

    Attributes:
        trouble: What is wrong.
        what_came: In a few words: the status, or what broke.
        message: The provider's own words, fit to be shown; empty where it said nothing.
        rejected_parameter: Whether the complaint is that a parameter is not known here. Which one
            is in `message`.
    """

    trouble: Trouble
    what_came: str
    message: str = ""
    rejected_parameter: bool = False

    def sentence(self, *, model: str, host: str, try_count: int) -> str:
        """Returns what was expected, what came, and what to do."""
        tries = f" after {try_count} tries" if try_count > 1 else ""
        words = f": {self.message!r}" if self.message else ""
        advice = _ADVICE[self.trouble].format(host=host, model=model)
        return (
            f"expected a reply from model {model!r} at {host}, "
            f"came {self.what_came}{tries}{words}. {advice}."
        )


def shown(text: str, *, api_key: str | None) -> str:
    """Returns a provider's words fit to be shown: one line, no key, no control characters, short.

    Args:
        text: What the provider said; untrusted.
        api_key: The key that was sent, which some endpoints echo.
    """
    # Bidirectional marks and zero-width characters are category C as well: they can make a
    # terminal show other words than those that came.
    line = " ".join(
        "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text).split()
    )
    if api_key:
        line = line.replace(api_key, "[key]")
    line = _KEY_LIKE.sub("[key]", line)
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"


def complaint_of_status(status: int, body: bytes, *, api_key: str | None) -> Complaint:
    """Returns what an HTTP status other than success means.

    Args:
        status: The status.
        body: What came with it: the OpenAI error format, some other JSON, HTML, anything.
        api_key: The key that was sent, kept out of the message.
    """
    text = body.decode("utf-8", errors="replace")
    try:
        error = _error_of(json.loads(text))
    except ValueError:
        error = _Error(message=_described(text), is_structured=False)
    return Complaint(
        trouble=_trouble(status, error),
        what_came=f"status {status}",
        message=shown(error.message, api_key=api_key),
        rejected_parameter=bool(
            error.code in {"unsupported_parameter", "unknown_parameter"}
            or _IS_UNKNOWN_PARAMETER.search(error.message)
        ),
    )


def complaint_in_body(body: object, *, api_key: str | None) -> Complaint | None:
    """Returns what a body that came with success complains of, or None where it does not.

    Routers answer 200 before they know whether the provider behind them will.
    """
    if not isinstance(body, dict) or not body.get("error") or body.get("choices"):
        return None
    error = _error_of(body)
    status = int(error.code) if error.code.isdecimal() else 0
    return Complaint(
        trouble=_trouble(status, error) if status else Trouble.SERVER,
        what_came=f"status {status}" if status else "an error instead of a reply",
        message=shown(error.message, api_key=api_key),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """An error as one of the formats in use states it."""

    message: str
    code: str = ""
    type_name: str = ""
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
    if error.code == "model_not_found":
        return Trouble.MODEL
    if status == _NOT_FOUND:
        is_about_model = error.is_structured and "model" in words
        return Trouble.MODEL if is_about_model else Trouble.ADDRESS
    if status in _MAYBE_TOO_LONG and _IS_CONTEXT_LENGTH.search(words):
        return Trouble.CONTEXT_LENGTH
    is_ours = status // 100 == 4  # noqa: PLR2004 -- RFC 9110 15.5: the client's errors
    return _BY_STATUS.get(status, Trouble.REQUEST if is_ours else Trouble.SERVER)
