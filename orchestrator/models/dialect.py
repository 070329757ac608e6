"""What an endpoint takes of the parameters that not every one knows.

Without it one parameter that an endpoint refuses would end a run that could do without it, or be
refused again with every request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from orchestrator.models.complaint import Complaint
from orchestrator.providers import Structured

#: OpenAI's reasoning models refuse the old name; some other endpoints ignore the new one.
NEW_LIMIT, OLD_LIMIT = "max_completion_tokens", "max_tokens"

_NAMES_SCHEMA = re.compile(
    r"response_format|json_schema|json_object|text\.format|structured.output|(?<![a-z_])grammar",
    re.IGNORECASE,
)
_NAMES_STREAM_USAGE = re.compile(r"stream_options|include_usage", re.IGNORECASE)
_NAMES_STREAM = re.compile(r"(?<![a-z_])stream(?:ing)?(?![a-z_])", re.IGNORECASE)
_NAMES_STORE = re.compile(r"(?<![a-z_])store(?![a-z_])", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one model at one endpoint is asked.

    Attributes:
        limit_name: What the bound of a reply is called, for endpoints that have two names for it.
        streams: Whether a reply may be asked for piece by piece.
        counts_streams: Whether a stream may be asked to end with its usage.
        structured: How the schema of an answer is given.
        forbids_storage: Whether it may be told not to keep what it is sent.
    """

    limit_name: str
    streams: bool = True
    counts_streams: bool = True
    structured: Structured = "none"
    forbids_storage: bool = True

    def without_refused(
        self, complaint: Complaint, *, sent: frozenset[str]
    ) -> tuple[Dialect, Dialect] | None:
        """Returns how to ask again, and how to ask from then on; None where that cannot help.

        Args:
            complaint: What the endpoint said to a request in this dialect.
            sent: The parameters that the request had.
        """
        if not complaint.is_about_parameters:
            return None
        words = f"{complaint.parameter} {complaint.message}"
        if {"response_format", "text"} & sent and _NAMES_SCHEMA.search(words):
            # A schema that this endpoint cannot read says nothing about the next one.
            plain = replace(self, structured="none")
            return plain, plain if complaint.rejected_parameter else self
        if not complaint.rejected_parameter:
            return None
        changed = self
        if "stream_options" in sent and _NAMES_STREAM_USAGE.search(words):
            changed = replace(self, counts_streams=False)
        elif "stream" in sent and _NAMES_STREAM.search(words):
            changed = replace(self, streams=False)
        elif "store" in sent and _NAMES_STORE.search(words):
            changed = replace(self, forbids_storage=False)
        elif self.limit_name in sent and self.limit_name in words:
            other = OLD_LIMIT if self.limit_name == NEW_LIMIT else NEW_LIMIT
            changed = replace(self, limit_name=other)
        return None if changed == self else (changed, changed)
