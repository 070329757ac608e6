"""Attacks an endpoint of the real broker from a process of its own, and sees what that does.

The attacker is the one that runs in a sandbox as well; here it is a plain process of this host, so
that every attack can be tried in a second.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from support import http2_attacker
from support.broker_host import EchoQueries, short_directory
from support.scripted_worker import WALLS, hello

from orchestrator.broker.attachment import StreamAttachment
from orchestrator.broker.ending import StreamEnd
from orchestrator.broker.listener import UnixEndpoint
from orchestrator.broker.open_queries import OpenQueries
from orchestrator.broker.peer_rules import PeerRules, peer_rules
from orchestrator.broker.wire import limits_of
from orchestrator.domain import LanguagePolicy, SandboxId, Walls
from orchestrator.limits import CellLimits, QueryLimits, SandboxLimits
from rlm_sandbox.v1 import sandbox_pb2 as pb

#: The attacker's source, as a sandbox is handed it.
SOURCE = Path(http2_attacker.__file__).read_text(encoding="utf-8")
RULES = peer_rules(cell=CellLimits(), run=QueryLimits())


def hello_message(said: pb.WorkerHello | None = None) -> bytes:
    """Returns an honest worker's first message."""
    return pb.WorkerMessage(sequence=1, hello=said or hello()).SerializeToString()


def claimed_hello(walls: Walls) -> pb.WorkerHello:
    """Returns the hello of whoever claims to have found these walls."""
    claimed = pb.Walls(
        network_interfaces=sorted(walls.network_interfaces),
        supplementary_gids=sorted(walls.supplementary_gids),
        kernel_release=platform.release() if walls.is_host_kernel else "claimed",
        open_calls=pb.CallNames(names=sorted(walls.open_calls or ())),
        repl_open_calls=pb.CallNames(names=sorted(walls.repl_open_calls or ())),
        ceilings=[pb.Ceiling(name=name, most=most) for name, most in walls.ceilings.items()],
        scratch_options=sorted(walls.scratch_options or ()),
    )
    for name in (
        "seccomp_mode",
        "has_no_new_privileges",
        "effective_capabilities",
        "bounding_capabilities",
        "uid",
        "gid",
        "is_root_read_only",
        "repl_seccomp_mode",
        "is_repl_inspectable",
        "landlock_abi",
    ):
        if (found := getattr(walls, name)) is not None:
            setattr(claimed, name, found)
    return pb.WorkerHello(min_version=1, max_version=1, image_release="claimed", walls=claimed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An endpoint to attack.

    Attributes:
        endpoint: As the broker makes it.
        attachment: Its stream.
        server_socket: Where the server behind the gate listens, for controls.
    """

    endpoint: UnixEndpoint
    attachment: StreamAttachment
    server_socket: Path

    @property
    def gate_socket(self) -> Path:
        """What a sandbox dials."""
        return self.endpoint.socket_directory / "broker.sock"


@asynccontextmanager
async def open_target(rules: PeerRules = RULES) -> AsyncIterator[Target]:
    """Yields an endpoint nobody has dialled yet, with rules of the test's own."""
    with short_directory() as directory, short_directory() as server_directory:
        cell, run = CellLimits(), QueryLimits()
        attachment = StreamAttachment(
            sandbox_id=SandboxId("attacked"),
            promised_walls=WALLS,
            cell_limits=cell,
            told_limits=limits_of(
                cell=cell,
                run=run,
                sandbox=SandboxLimits(),
                language_policy=LanguagePolicy.GUARDED,
            ),
            queries=OpenQueries(handler=EchoQueries(), limits=run),
            stop_margin_s=5.0,
        )
        endpoint = UnixEndpoint(
            directory=directory / "d",
            server_directory=server_directory / "d",
            attachment=attachment,
            rules=rules,
        )
        for made in (directory / "d", server_directory / "d"):
            made.mkdir()
        try:
            await endpoint.listen()
            yield Target(
                endpoint=endpoint,
                attachment=attachment,
                server_socket=server_directory / "d" / "s",
            )
        finally:
            await endpoint.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """What an attack did.

    Attributes:
        end: How the stream ended, or None if it goes on.
        is_closed: Whether the server's side closed the attacker's connection.
        sent_bytes: What the attacker could send; of `connection_flood`, how many connections.
        growth_bytes: By how much this process was larger at most than before.
        descriptor_growth: How many descriptors this process holds more than before.
    """

    end: StreamEnd | None
    is_closed: bool
    sent_bytes: int
    growth_bytes: int
    descriptor_growth: int


async def strike(
    target: Target,
    attack: str,
    *,
    past_the_gate: bool = False,
    share: float = 1.0,
    patience_s: float = 1.0,
) -> Strike:
    """Has an endpoint attacked once.

    Args:
        target: What is attacked; an endpoint is attacked once.
        attack: A name in `http2_attacker.ATTACKS`.
        past_the_gate: Dials the gRPC server itself: the control.
        share: Of the attack's usual amount.
        patience_s: How long the attacker waits for its connection to be closed.
    """
    socket_path = target.server_socket if past_the_gate else target.gate_socket
    token_path = target.endpoint.socket_directory / "token"
    here = psutil.Process()
    descriptor_count = here.num_fds()
    size_bytes = peak_bytes = here.memory_info().rss
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", SOURCE, str(socket_path), str(token_path)),
        *(hello_message().hex(), attack, str(share), str(patience_s)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    attacking = asyncio.create_task(process.communicate())
    while not attacking.done():
        await asyncio.wait({attacking}, timeout=0.01)
        peak_bytes = max(peak_bytes, here.memory_info().rss)
    out, error = await attacking
    assert process.returncode == 0, error.decode()
    report: dict[str, Any] = json.loads(out)
    ending = asyncio.create_task(target.attachment.ended())
    await asyncio.wait({ending}, timeout=0 if past_the_gate else 0.5)
    end = ending.result() if ending.done() else None
    ending.cancel()
    return Strike(
        end=end,
        is_closed=report["is_closed"],
        sent_bytes=report["sent_bytes"],
        growth_bytes=peak_bytes - size_bytes,
        descriptor_growth=here.num_fds() - descriptor_count,
    )
