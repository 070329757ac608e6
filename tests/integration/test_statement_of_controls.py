"""The statement of controls that comes with a real sandbox, strong and weakened."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.docker_sandboxes import CELL_LIMITS, LIMITS, Weakening, open_sandbox
from support.weakenings import (
    DEFAULT_CAPABILITIES,
    HOST_NETWORK,
    NEW_PRIVILEGES,
    NO_SECCOMP,
    ROOT_USER,
    WRITABLE_ROOT,
)

from orchestrator.controls import BrokerIsolation, Controls
from orchestrator.domain import LanguagePolicy
from orchestrator.sandbox.spec import SANDBOX_GID, SANDBOX_UID

pytestmark = pytest.mark.docker


async def test_real_sandbox_states_its_controls() -> None:
    """What the engine set, the broker enforces and the worker found agree, and are JSON."""
    async with open_sandbox() as sandbox:
        controls = sandbox.controls

    container, walls = controls.container, controls.walls
    assert controls.sandbox_id == sandbox.sandbox_id
    assert container.runtime == sandbox.runtime
    assert container.image_id == sandbox.image_id
    assert len(container.image_inputs_sha256) == 64
    assert container.engine.version
    assert container.engine.kernel_release
    assert container.limits.memory_bytes == LIMITS.memory_bytes
    assert container.limits.memory_and_swap_bytes == LIMITS.memory_bytes
    assert container.user == f"{SANDBOX_UID}:{SANDBOX_GID}" == f"{walls.uid}:{walls.gid}"
    assert container.masked_paths
    assert [mount.target for mount in container.mounts if not mount.is_writable] == ["/run/rlm"]
    assert controls.broker.isolation in BrokerIsolation
    assert controls.broker.language_policy is LanguagePolicy.OPEN
    assert controls.broker.cell_limits == CELL_LIMITS
    assert json.loads(json.dumps(controls.to_json()))["walls"]["uid"] == SANDBOX_UID


WEAKER: dict[str, tuple[Weakening, Callable[[Controls], object], Callable[[Controls], object]]] = {
    "network": (
        HOST_NETWORK,
        lambda controls: controls.container.network == "none",
        lambda controls: controls.walls.network_interfaces == frozenset({"lo"}),
    ),
    "user": (
        ROOT_USER,
        lambda controls: controls.container.user == f"{SANDBOX_UID}:{SANDBOX_GID}",
        lambda controls: controls.walls.uid == SANDBOX_UID,
    ),
    "capabilities": (
        DEFAULT_CAPABILITIES,
        lambda controls: controls.container.capabilities_dropped == ("ALL",),
        lambda controls: controls.walls.bounding_capabilities == 0,
    ),
    "privileges": (
        NEW_PRIVILEGES,
        lambda controls: controls.container.has_no_new_privileges,
        lambda controls: controls.walls.has_no_new_privileges,
    ),
    "seccomp": (
        NO_SECCOMP,
        lambda controls: controls.container.seccomp_profile != "unconfined",
        lambda controls: controls.walls.seccomp_mode == 2,
    ),
    "root": (
        WRITABLE_ROOT,
        lambda controls: controls.container.is_root_read_only,
        lambda controls: controls.walls.is_root_read_only,
    ),
}


@pytest.mark.parametrize("wall", WEAKER)
async def test_weakened_sandbox_states_its_weakness(wall: str) -> None:
    """A wall that is down is down in the statement, both as set and as found."""
    weakening, is_set, is_found = WEAKER[wall]

    async with open_sandbox(weakening=weakening) as sandbox:
        controls = sandbox.controls

    assert not is_set(controls)
    assert not is_found(controls)


async def test_sound_sandbox_states_no_weakness() -> None:
    """The control: the same questions are answered well of a sandbox as the product makes it."""
    async with open_sandbox() as sandbox:
        controls = sandbox.controls

    assert all(is_set(controls) for _, is_set, _ in WEAKER.values())
    assert all(is_found(controls) for _, _, is_found in WEAKER.values())
