"""How the operator wants one model to be asked.

Without it a request would be put together from settings that are about other things as well: keys,
addresses, prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """What every request to a model says, whatever is asked.

    Attributes:
        model_id: The name its endpoint knows it by.
        temperature: Sent where not None; some models accept none but their own.
        reasoning_effort: Sent where not None.
        extra_body: Further parameters, as they stand.
    """

    model_id: str
    temperature: float | None = None
    reasoning_effort: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def added_to(self, body: dict[str, object]) -> dict[str, object]:
        """Returns a request's body with the further parameters in it, tables joined key by key."""
        joined = dict(body)
        for key, value in self.extra_body.items():
            ours = joined.get(key)
            if isinstance(ours, dict) and isinstance(value, Mapping):
                joined[key] = {**ours, **value}
            else:
                joined[key] = value
        return joined
