from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.scripted_worker import WALLS

from orchestrator.broker_process.fields import Fields, FrameError
from orchestrator.broker_process.setup_frames import (
    SetUp,
    read_set_up,
    read_walls,
    set_up_fields,
    wall_fields,
)
from orchestrator.domain import LanguagePolicy, SandboxId, Walls
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits

#: Every wall with a value, and every wall that can be unknown without one.
_UNKNOWN: dict[str, Any] = {
    name: None for name, kind in Walls.__annotations__.items() if kind.endswith("| None")
}
NO_WALLS = replace(WALLS, **_UNKNOWN)


def crossed(fields: object) -> Fields:
    """Returns fields as they come out at the other end."""
    return Fields(json.loads(json.dumps(fields)))


@pytest.mark.parametrize("walls", [WALLS, NO_WALLS])
def test_every_wall_crosses(walls: Walls) -> None:
    """What a worker found reaches the orchestrator whole, also a wall that is added one day."""
    assert read_walls(crossed(wall_fields(walls))) == walls


def test_wall_that_is_not_promised_crosses() -> None:
    """Of any wall nothing may be promised; found it must be, where a kernel can tell."""
    told = crossed(wall_fields(WALLS) | {"supplementary_gids": None})

    assert not read_walls(told, is_promise=True).differences(WALLS)
    with pytest.raises(FrameError, match="supplementary_gids is a list"):
        read_walls(told)


def test_set_up_crosses() -> None:
    """A broker's process enforces the limits that the orchestrator was configured with."""
    set_up = SetUp(
        sandbox_id=SandboxId("s"),
        promised_walls=WALLS,
        cell_limits=CellLimits(wall_s=1.5, output_bytes=7),
        query_limits=QueryLimits(batch_prompts=3),
        sandbox_limits=SandboxLimits(cpu_count=0.5),
        language_policy=LanguagePolicy.OPEN,
        stop_margin_s=0.25,
        log_level=30,
    )

    assert read_set_up(crossed(set_up_fields(set_up))) == set_up


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "0"},
        {"uid": True},
        {"is_root_read_only": 1},
        {"network_interfaces": None},
        {"network_interfaces": [1]},
        {"network_interfaces": ["x" * 201]},
        {"network_interfaces": ["lo"] * 2000},
        {"supplementary_gids": ["0"]},
        {"ceilings": []},
        {"ceilings": {"RLIMIT_CORE": -1}},
    ],
)
def test_wall_of_another_kind_is_refused(change: dict[str, object]) -> None:
    """A wall is what it is declared to be, or the link ends."""
    with pytest.raises(FrameError):
        read_walls(crossed(wall_fields(WALLS) | change))
