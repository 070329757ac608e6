"""What of the host an attack is told and may reach, and what the host sees of it.

Without it an attack on the host's network would have nothing to connect to, and "refused" would be
the attacker's word alone.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from orchestrator.domain import Json
from orchestrator.limits import SandboxLimits

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
_SHM_BYTES = 2**20  # of /dev/shm, as the specification of a sandbox has it
_SHM_INODES = 256


@dataclass(slots=True, kw_only=True)
class Scene:
    """Listeners of the host, and what arrived at them. Made by `open_scene`.

    Attributes:
        tcp_port: Listens on every address of the host, takes connections and drops them.
        udp_port: Likewise for datagrams.
        abstract_name: Of a Unix socket that lies in no file system, without its leading NUL.
        limits: What a sandbox may use.
        arrived: What has reached the host since the last `collect`, in words.
    """

    tcp_port: int
    udp_port: int
    abstract_name: str
    limits: SandboxLimits
    arrived: list[str] = field(default_factory=list)

    def collect(self) -> tuple[str, ...]:
        """Returns what has reached the host since the last call."""
        arrived = tuple(dict.fromkeys(self.arrived))
        self.arrived.clear()
        return arrived

    def to_json(self) -> dict[str, Json]:
        """Returns what a probe finds as `SCENE`: nothing that a sandbox may not know."""
        limits = self.limits
        return {
            "addresses": list[Json](_addresses_of_this_host()),
            "tcp_port": self.tcp_port,
            "udp_port": self.udp_port,
            "abstract_name": self.abstract_name,
            "host_name": socket.gethostname(),
            "namespaces": _namespaces_of_this_host(),
            "memory_bytes": limits.memory_bytes,
            "process_count": limits.process_count,
            "cpu_count": limits.cpu_count,
            "file_bytes": limits.file_bytes,
            "open_files": limits.open_files,
            "scratch_bytes": {"/tmp": limits.tmp_bytes, "/dev/shm": _SHM_BYTES},  # noqa: S108 - the sandbox's
            "scratch_inodes": {"/tmp": limits.tmp_inodes, "/dev/shm": _SHM_INODES},  # noqa: S108 - likewise
        }


class _Datagrams(asyncio.DatagramProtocol):
    """Notes each datagram."""

    def __init__(self, arrived: list[str]) -> None:
        self._arrived = arrived

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Notes that one came, not what it says."""
        del data, addr
        self._arrived.append("a datagram arrived")


@asynccontextmanager
async def open_scene(limits: SandboxLimits) -> AsyncIterator[Scene]:
    """Opens the listeners; leaving the context closes them.

    They take nothing and answer nothing. They listen on every address, because a sandbox that has
    a network by mistake reaches the host at the address of a bridge.

    Args:
        limits: What a sandbox may use.
    """
    arrived: list[str] = []
    name = f"rlm-{secrets.token_hex(8)}"

    def accept_tcp(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append("a TCP connection arrived")
        writer.close()

    def accept_unix(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append("a connection to an abstract name arrived")
        writer.close()

    tcp = await asyncio.start_server(accept_tcp, "0.0.0.0", 0)  # noqa: S104 - what is attacked
    unix = await asyncio.start_unix_server(accept_unix, f"\0{name}")
    udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(arrived),
        local_addr=("0.0.0.0", 0),  # noqa: S104 - likewise
    )
    try:
        yield Scene(
            tcp_port=tcp.sockets[0].getsockname()[1],
            udp_port=udp.get_extra_info("sockname")[1],
            abstract_name=name,
            limits=limits,
            arrived=arrived,
        )
    finally:
        tcp.close()
        unix.close()
        udp.close()


def _addresses_of_this_host() -> list[str]:
    """Returns every IPv4 address that a listener of this host answers on, its bridges' among them.

    At most the first sixteen: hosts of many containers have hundreds, all alike.
    """
    addresses = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family is socket.AF_INET
    ]
    return addresses[:16]


def _namespaces_of_this_host() -> dict[str, Json]:
    found: dict[str, Json] = {}
    for kind in _NAMESPACES:
        with suppress(OSError):
            found[kind] = str(Path(f"/proc/self/ns/{kind}").readlink())
    return found
