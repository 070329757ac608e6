"""A cell that looks for a way out: devices, addresses, the host's own listeners.

Whatever needs a socket is tried where the second stage is off: with it there are no sockets.
"""

import secrets
import socket
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest
from support.docker_sandboxes import told_in_another
from support.probes import probe
from support.runtimes import RuntimeUnderTest
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import BRIDGE_NETWORK, HOST_NETWORK, OPEN_SOCKETS

from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

DEVICES = """
lines = open("/proc/net/dev").read().splitlines()[2:]
tell(sorted(line.partition(":")[0].strip() for line in lines))
"""
ROUTES = "tell(len(open('/proc/net/route').read().splitlines()) - 1)"
RESOLVER = "tell(open('/etc/resolv.conf').read())"
SOCKET_FILES = """
import stat
found = []
for folder, _, names in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        continue
    for path in (os.path.join(folder, name) for name in names):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            found.append(path)
tell(found)
"""


#: Each family of sockets there is, and still no network.
WITH_SOCKETS = together(NO_SECOND_STAGE, OPEN_SOCKETS)
BARE_IN_HOST_NETWORK = together(NO_SECOND_STAGE, HOST_NETWORK)


def no_way(runtime: RuntimeUnderTest) -> str:
    """Returns what a kernel answers when no route leads to an address: Linux's, or gVisor's."""
    return "EHOSTUNREACH" if runtime.is_gvisor else "ENETUNREACH"


def addresses_of_this_host() -> list[str]:
    """Returns every address that a listener of this host answers on, its bridges' among them."""
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family is socket.AF_INET
    ]


async def test_there_is_no_device_but_loopback(shared_sandbox: Sandbox) -> None:
    """Nothing leads out of a sandbox: no device, and no route that one could be hoped behind."""
    assert await probe(shared_sandbox, DEVICES) == ["lo"]
    assert await probe(shared_sandbox, ROUTES) == 0


async def test_there_is_no_device_but_loopback_control() -> None:
    """With a network the same probes find a device and a route."""
    assert len(await told_in_another(DEVICES, weakening=BRIDGE_NETWORK)) > 1
    assert await told_in_another(ROUTES, weakening=BRIDGE_NETWORK) > 0


@pytest.fixture
def tcp_listener() -> Iterator[socket.socket]:
    """Listens on every address of this host."""
    with closing(socket.create_server(("0.0.0.0", 0))) as listener:  # noqa: S104 - what is attacked
        listener.settimeout(0)
        yield listener


def connect_everywhere(listener: socket.socket) -> str:
    """Returns a cell that tries every address of this host."""
    port = listener.getsockname()[1]
    return (
        f"tell([attempt(lambda: socket.create_connection((address, {port}), 2).close())"
        f" for address in {addresses_of_this_host()}])"
    )


async def test_connection_to_the_host_is_refused(
    tcp_listener: socket.socket, runtime: RuntimeUnderTest
) -> None:
    """A cell cannot reach even an address the host itself listens on, had it a socket for it."""
    told = await told_in_another(connect_everywhere(tcp_listener), weakening=WITH_SOCKETS)

    assert set(told) == {no_way(runtime), "ECONNREFUSED"}  # the latter by its own loopback
    with pytest.raises(BlockingIOError):
        tcp_listener.accept()


async def test_connection_to_the_host_control(tcp_listener: socket.socket) -> None:
    """The same cell connects once the wall is down, so the probe itself works."""
    told = await told_in_another(connect_everywhere(tcp_listener), weakening=BARE_IN_HOST_NETWORK)

    assert set(told) == {"done"}
    tcp_listener.accept()[0].close()


@pytest.fixture
def udp_listener() -> Iterator[socket.socket]:
    """Takes datagrams on every address of this host."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as listener:
        listener.bind(("0.0.0.0", 0))  # noqa: S104 - what is attacked
        listener.settimeout(5)
        yield listener


def send_everywhere(listener: socket.socket) -> str:
    """Returns a cell that sends a datagram to every address of this host but loopback."""
    port = listener.getsockname()[1]
    addresses = [name for name in addresses_of_this_host() if not name.startswith("127.")]
    return (
        "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"tell([attempt(out.sendto, b'leak', (address, {port})) for address in {addresses}])"
    )


async def test_datagram_does_not_leave(
    udp_listener: socket.socket, runtime: RuntimeUnderTest
) -> None:
    """Nor is there a way out for what needs no connection, as a name server's question."""
    told = await told_in_another(send_everywhere(udp_listener), weakening=WITH_SOCKETS)

    assert set(told) == {no_way(runtime)}


async def test_datagram_control(udp_listener: socket.socket) -> None:
    """The same datagram arrives once the wall is down."""
    assert set(
        await told_in_another(send_everywhere(udp_listener), weakening=BARE_IN_HOST_NETWORK)
    ) == {"done"}
    assert udp_listener.recv(100) == b"leak"


@pytest.fixture
def abstract_listener() -> Iterator[socket.socket]:
    """Listens on a name that is in no file system (unix(7)), as some container engines do."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"\0rlm-{secrets.token_hex(8)}")
        listener.listen()
        yield listener


def connect_to(listener: socket.socket) -> str:
    """Returns a cell that dials an abstract name of this host."""
    return f"tell(attempt(socket.socket(socket.AF_UNIX).connect, {listener.getsockname()!r}))"


async def test_abstract_socket_of_the_host_is_out_of_reach(
    bare_sandbox: Sandbox, abstract_listener: socket.socket
) -> None:
    """Abstract names belong to a network, not to a file system (CVE-2020-15257)."""
    assert await probe(bare_sandbox, connect_to(abstract_listener)) == "ECONNREFUSED"


async def test_abstract_socket_control(abstract_listener: socket.socket) -> None:
    """In the host's network the same name is answered."""
    assert (
        await told_in_another(connect_to(abstract_listener), weakening=BARE_IN_HOST_NETWORK)
        == "done"
    )


async def test_the_only_socket_file_is_the_brokers(shared_sandbox: Sandbox) -> None:
    """No engine's socket, and no other's, is to be found; the one that is there is."""
    assert await probe(shared_sandbox, SOCKET_FILES) == ["/run/rlm/broker.sock"]


async def test_the_hosts_name_servers_are_not_told(shared_sandbox: Sandbox) -> None:
    """Where the host asks for names says what network it is in."""
    lines: list[str] = (await probe(shared_sandbox, RESOLVER)).splitlines()

    # Under gVisor the engine writes the one that it was told of, at which nobody listens.
    servers = {line for line in lines if line.startswith("nameserver")}
    assert servers <= {"nameserver 127.0.0.1"}


async def test_the_hosts_name_servers_control() -> None:
    """With a network the engine copies them, so their absence is the wall's doing."""
    told = await told_in_another(RESOLVER, weakening=BRIDGE_NETWORK)

    assert "nameserver" in told.replace("nameserver 127.0.0.1", "")
