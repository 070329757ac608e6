"""A sub-model for the legitimate programs: it answers by rule, and knows a few ways to fail.

Without it a program that parses, votes on or retries answers would have nothing to work on. It
keeps nothing, so what it answers is a matter of the prompt alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from orchestrator.domain import QueryAnswer, QueryFailure, QueryFailureReason, QueryRequest

_MENTIONS = re.compile(r'mentions? "([^"]+)"')
_COUNT = re.compile(r'how many times .*?"([^"]+)"', re.IGNORECASE)
_LABELS = re.compile(r"one of: ([a-z, ]+)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_NAME = re.compile(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b")


def reply_to(prompt: str) -> str:
    """Returns the answer to a prompt; the text it is about stands after the last `Text:`."""
    text = prompt.rpartition("Text:")[2].strip()
    if mention := _MENTIONS.search(prompt):
        return "Yes." if mention[1].lower() in text.lower() else "No, it does not."
    if count := _COUNT.search(prompt):
        return f"It occurs {text.count(count[1])} times."
    if labels := _LABELS.search(prompt):
        names = [name.strip() for name in labels[1].split(",")]
        return next((name for name in names if name in text.lower()), names[-1]).title()
    if "JSON" in prompt:
        return _json_reply(prompt, text)
    if "Summarize" in prompt:
        return f"Summary: {text.split('.')[0][:80]}."
    return f"I have read {len(prompt)} characters."


def _json_reply(prompt: str, text: str) -> str:
    found = {"dates": sorted(set(_DATE.findall(text))), "names": sorted(set(_NAME.findall(text)))}
    if "was not JSON" in prompt:
        return json.dumps(found)
    if "strictly JSON" in prompt:
        return '{"dates": [unquoted'
    return f"Here it is:\n```json\n{json.dumps(found, indent=1)}\n```\nAnything else?"


class ScriptedQueries:
    """Answers by `reply_to`; what is marked UNANSWERABLE fails, as a provider would."""

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers at once."""
        return [
            QueryFailure(reason=QueryFailureReason.MODEL_REFUSED, message="The model refused.")
            if "UNANSWERABLE" in prompt
            else reply_to(prompt)
            for prompt in request.prompts
        ]
