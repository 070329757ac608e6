"""A recorded run as one JSON value, nested as it was.

Without it a program would have to put the lines of a trajectory together itself.
"""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.domain import Json
from orchestrator.trajectory.efficiency import efficiency_of
from orchestrator.trajectory.spending import elapsed_s, run_money, time_shares, usage_by_model
from orchestrator.trajectory.tree import RecordedRun


def run_to_json(run: RecordedRun) -> dict[str, Json]:
    """Returns a run with everything in it, and its figures.

    Keys are the fields of `RecordedRun` and of what it holds, and the fields of events; `figures`
    are added to each run. Child runs are in the queries that they answer.
    """
    money = run_money(run)
    figures: dict[str, Json] = {
        "cost_usd": None if money.has_unpriced else money.usd,
        "known_usd": money.usd,
        "wall_s": elapsed_s(run),
        "usage": {model: asdict(usage) for model, usage in usage_by_model(run).items()},
        "time": asdict(time_shares(run)),
        "efficiency": {**asdict(efficiency_of(run)), "sent_share": efficiency_of(run).sent_share},
    }
    return {**_fields_to_json(run), "figures": figures}


def _fields_to_json(value: Any) -> dict[str, Json]:  # noqa: ANN401 - any dataclass of a tree
    return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}


def _to_json(value: object) -> Json:
    match value:
        case RecordedRun():
            json: Json = run_to_json(value)
        case StrEnum() | datetime():
            json = value.value if isinstance(value, StrEnum) else value.isoformat()
        case None | str() | int() | float():
            json = value
        case tuple() | list():
            json = [_to_json(item) for item in value]
        case frozenset():
            json = [_to_json(item) for item in sorted(value)]
        case dict():
            json = {str(key): _to_json(item) for key, item in value.items()}
        case _ if is_dataclass(value):
            json = _fields_to_json(value)
        case _:
            raise TypeError(f"a trajectory holds no {type(value).__name__}")
    return json
