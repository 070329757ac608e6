"""Decides which containers nobody will ever destroy, and leaves all others alone.

Without it an orchestrator that was killed would leave its sandboxes running for ever; with it done
carelessly, one orchestrator would destroy another one's.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.errors import SandboxError
from orchestrator.ports import ContainerBackend
from orchestrator.sandbox.lease import Lease

OWNER_LABEL: Final = "rlm-sandbox.owner"
REALM_LABEL: Final = "rlm-sandbox.realm"
EXPIRES_LABEL: Final = "rlm-sandbox.expires"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledContainer:
    """A container as the engine lists it."""

    container_id: str
    labels: Mapping[str, str]


def lease_labels(lease: Lease, *, expires_s: float) -> dict[str, str]:
    """Returns the labels by which a sweep judges a container.

    Args:
        lease: Whose container it is; held already, or a sweep would take it for a dead owner's.
        expires_s: When its lifetime is over, in seconds since 1970.
    """
    return {
        OWNER_LABEL: lease.owner,
        REALM_LABEL: lease.runtime_directory.realm,
        EXPIRES_LABEL: str(round(expires_s)),
    }


def plan_sweep(
    found: Sequence[LabelledContainer],
    *,
    realm: str,
    is_alive: Callable[[str], bool],
    now_s: float,
) -> tuple[str, ...]:
    """Returns the ids of the containers to destroy: those without a living owner, or too old.

    `found` must have been listed before the owners are asked for: an owner takes its lock before
    its first container, so whoever is in the list had a lock by then. The other way round, an
    orchestrator that starts in between would lose its sandbox.

    Args:
        found: Containers of anybody's.
        realm: Containers of another realm are judged by their age alone: the locks of their owners
            are in a directory that cannot be seen from here.
        is_alive: Tells whether an owner of this realm still runs.
        now_s: Seconds since 1970.
    """
    return tuple(
        container.container_id
        for container in found
        if OWNER_LABEL in container.labels
        and EXPIRES_LABEL in container.labels
        and (
            _is_expired(container.labels[EXPIRES_LABEL], now_s)
            or (
                container.labels.get(REALM_LABEL) == realm
                and not is_alive(container.labels[OWNER_LABEL])
            )
        )
    )


def _is_expired(expires: str, now_s: float) -> bool:
    # One that does not say when it ends has been tampered with; it is not kept for that.
    return not expires.isdecimal() or int(expires) <= now_s


async def keep_swept(backend: ContainerBackend, *, interval_s: float) -> None:
    """Sweeps at once and then every `interval_s`, until cancelled. A sweep that fails is logged."""
    while True:
        try:
            destroyed_count = await backend.sweep()
        except (SandboxError, OSError) as error:
            _log.warning("the sweep failed and will be tried again: %s", error)
        else:
            if destroyed_count:
                _log.info("the sweep destroyed %d abandoned sandboxes", destroyed_count)
        await asyncio.sleep(interval_s)
