"""A cell that goes to the broker itself: its socket, its token, other sandboxes' sockets.

All of it is tried where the second stage is off: with it a cell gets no socket to begin with.
"""

import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import Weakening, open_sandbox, told_in_another
from support.probes import goes_on, probe, run
from support.runtimes import RuntimeUnderTest, under_test
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import ROOT_USER, WRITABLE_SOCKET_DIRECTORY

from orchestrator.context import encode_context
from orchestrator.controls import BrokerIsolation
from orchestrator.errors import ProtocolViolationError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Every way to change a directory or what is in it.
MEDDLE = """
os.chdir("/run/rlm")
tell([
    attempt(lambda: os.close(os.open("new", os.O_CREAT | os.O_WRONLY))),
    attempt(os.symlink, "/etc/passwd", "link"),
    attempt(os.mkfifo, "fifo"),
    attempt(socket.socket(socket.AF_UNIX).bind, "own.sock"),
    attempt(os.link, "broker.sock", "hard"),
    attempt(os.chmod, "broker.sock", 0o600),
    attempt(os.chmod, ".", 0o777),
    attempt(os.rename, "broker.sock", "moved"),
    attempt(os.unlink, "moved"),
    attempt(os.unlink, "broker.sock"),
])
for name in os.listdir():
    attempt(os.unlink, name)
"""
#: Dials the broker as a worker does; tells the status, or how many messages came.
DIAL = """
import grpc

def dial(token):
    channel = grpc.insecure_channel(
        "unix:/run/rlm/broker.sock", options=[("grpc.use_local_subchannel_pool", 1)]
    )
    attach = channel.stream_stream("/rlm_sandbox.v1.SandboxBroker/Attach")
    try:
        return len(list(attach(iter([b""]), metadata=[("rlm-session-token", token)], timeout=10)))
    except grpc.RpcError as error:
        return error.code().name
    finally:
        channel.close()
"""
#: Looks through all of the process's memory for a token with a certain digest.
SEARCH_MEMORY = """
import hashlib, re
token = re.compile(rb"(?<![0-9a-f])[0-9a-f]{{64}}(?![0-9a-f])")
digests = set()
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
    for line in maps.readlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if line.split()[1].startswith("rw"):
            memory.seek(first)
            try:
                found = token.findall(memory.read(last - first))
            except OSError:
                continue
            digests |= {{hashlib.sha256(text).hexdigest() for text in found}}
tell({digest!r} in digests)
"""


@dataclass(frozen=True, slots=True)
class Spied:
    """A sandbox, and what lay in its socket directory before its worker was there."""

    sandbox: Sandbox
    directory: Path
    names: frozenset[str]
    token: str


class Spy:
    """Reads the socket directory in between; takes no wall down."""

    def __init__(self) -> None:
        """Begins with nothing seen."""
        self.directory = Path()
        self.names: frozenset[str] = frozenset()
        self.token = ""

    def __call__(self, config: dict[str, Any]) -> None:
        """Looks at the directory that is about to be mounted."""
        [bind] = config["HostConfig"]["Binds"]
        self.directory = Path(bind.partition(":")[0])
        self.names = frozenset(path.name for path in self.directory.iterdir())
        self.token = (self.directory / "token").read_text()


async def open_spied(stack: AsyncExitStack) -> Spied:
    spy = Spy()
    weakening = together(NO_SECOND_STAGE, Weakening(change=spy))
    sandbox = await stack.enter_async_context(open_sandbox(weakening=weakening))
    return Spied(sandbox=sandbox, directory=spy.directory, names=spy.names, token=spy.token)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spied(runtime: RuntimeUnderTest) -> AsyncIterator[Spied]:
    """A sandbox whose token the test knows."""
    assert runtime == under_test()
    async with AsyncExitStack() as stack:
        yield await open_spied(stack)


async def test_directory_holds_the_socket_alone(spied: Spied) -> None:
    """The token is gone from the host's disk and from the cell's view once it has been used."""
    assert spied.names == {"broker.sock", "token"}
    assert [path.name for path in spied.directory.iterdir()] == ["broker.sock"]
    assert await probe(spied.sandbox, "tell(os.listdir('/run/rlm'))") == ["broker.sock"]


async def test_context_is_there_until_it_is_open(spied: Spied) -> None:
    """A context that is a file is gone from host's disk and cell's view before a cell has it."""
    context = encode_context("a line of a text\n" * 200_000)
    told = "tell([len(context), os.listdir('/run/rlm'), sorted(os.listdir('/proc/self/fd'))])"
    _, names, descriptors = await probe(spied.sandbox, f"context = ''\n{told}")

    await spied.sandbox.bind_context("context", context)

    assert [path.name for path in spied.directory.iterdir()] == ["broker.sock"]
    assert await probe(spied.sandbox, told) == [context.total_chars, names, descriptors]
    assert names == ["broker.sock"]


async def test_directory_cannot_be_changed(spied: Spied) -> None:
    """Nothing that the host opens later can be put there, moved or taken away by a cell."""
    before = spied.directory.stat(), (spied.directory / "broker.sock").stat()

    told = await probe(spied.sandbox, MEDDLE)

    # The second for what was not moved; gVisor looks at a folder's owner before its mount.
    assert set(told) <= {"EROFS", "ENOENT", "EACCES", "EPERM"}
    assert (spied.directory.stat(), (spied.directory / "broker.sock").stat()) == before
    assert await goes_on(spied.sandbox)


@pytest.mark.runc_only("gVisor's root is asked for rights of its own before the mount is")
async def test_directory_cannot_be_changed_by_root_either() -> None:
    """It is the mount that refuses, not the directory's owner."""
    assert set(await told_in_another(MEDDLE, weakening=together(NO_SECOND_STAGE, ROOT_USER))) <= {
        "EROFS",
        "ENOENT",
    }


async def test_directory_control() -> None:
    """The same root changes all of it where the mount can be written to, and is root's own."""
    told = await told_in_another(
        MEDDLE,
        weakening=together(NO_SECOND_STAGE, WRITABLE_SOCKET_DIRECTORY),
        # Another process's directory is another user's, and root in a sandbox may do nothing there.
        broker=BrokerIsolation.IN_PROCESS,
    )

    assert told == ["done"] * 9 + ["ENOENT"]


async def test_token_is_not_in_the_processs_memory(spied: Spied) -> None:
    """The process that runs cells was there before the token was read."""
    digest = hashlib.sha256(spied.token.encode()).hexdigest()

    assert not await probe(spied.sandbox, SEARCH_MEMORY.format(digest=digest))


async def test_token_in_memory_control(spied: Spied) -> None:
    """A token that a cell did hold would be found."""
    held = "0123456789abcdef" * 4
    digest = hashlib.sha256(held.encode()).hexdigest()

    assert await probe(
        spied.sandbox,
        f"held = bytes.fromhex({held!r}).hex()\n{SEARCH_MEMORY.format(digest=digest)}",
    )


async def test_guessed_token_is_refused(spied: Spied) -> None:
    """Whoever dials without the token is turned away, and the session goes on."""
    told = await probe(spied.sandbox, f"{DIAL}\ntell([dial(''), dial('0' * 64), dial('x')])")

    assert told == ["UNAUTHENTICATED"] * 3
    assert await goes_on(spied.sandbox)


async def test_own_token_opens_no_second_stream(spied: Spied) -> None:
    """A token is spent when the worker attaches: it is known, and refused for that.

    It is the control of the two tests around it as well: this probe's token is not a wrong one.
    """
    told = await probe(spied.sandbox, f"{DIAL}\ntell(dial({spied.token!r}))")

    assert told == "FAILED_PRECONDITION"
    assert await goes_on(spied.sandbox)


async def test_another_sandboxs_token_is_refused(spied: Spied) -> None:
    """A token opens its own sandbox's socket, and is a wrong one at any other."""
    async with AsyncExitStack() as stack:
        other = await open_spied(stack)

        assert await probe(spied.sandbox, f"{DIAL}\ntell(dial({other.token!r}))") == (
            "UNAUTHENTICATED"
        )
        assert await goes_on(other.sandbox)


async def test_guessing_on_is_an_attack(
    provider: SandboxProvider, bare_provider: SandboxProvider
) -> None:
    """A cell that goes on guessing loses its sandbox; nobody else notices."""
    async with bare_provider.open(EchoQueries()) as sandbox:
        with pytest.raises(ProtocolViolationError, match=r"turned away|16 connections in its life"):
            await run(sandbox, f"{DIAL}\nfor _ in range(50): dial('0' * 64)")

    async with provider.open(EchoQueries()) as next_sandbox:
        assert await goes_on(next_sandbox)


@pytest.mark.parametrize(
    ("act", "rule"),
    [
        ("line.sendall(os.urandom(2**16))", "begins with HTTP/2's preface"),
        ("pass", "at most 4 connections at once"),
    ],
)
async def test_noise_is_an_attack(
    provider: SandboxProvider, bare_provider: SandboxProvider, act: str, rule: str
) -> None:
    """Bytes that are no gRPC, and connections that say nothing, cost their sender the sandbox."""
    async with bare_provider.open(EchoQueries()) as sandbox:
        with pytest.raises(ProtocolViolationError, match=rule):
            await run(
                sandbox,
                "held = []\n"
                "for number in range(60):\n"
                "    line = socket.socket(socket.AF_UNIX)\n"
                "    line.connect('/run/rlm/broker.sock')\n"
                "    held.append(line)\n"
                f"    {act}\n"
                "time.sleep(20)",
            )

    async with provider.open(EchoQueries()) as next_sandbox:
        assert await goes_on(next_sandbox)


def may_somebody_else_dial(path: Path) -> bool:
    """Whether another user of this host gets to a socket, and may write to it (unix(7))."""
    ended = subprocess.run(
        ["/bin/sh", "-c", 'test -w "$1"', "sh", path],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        check=False,
    )
    return ended.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as another user")
async def test_other_users_of_the_host_cannot_dial() -> None:
    """The socket is open to any user, so that the sandbox's is one; the way to it is not."""
    async with AsyncExitStack() as stack:
        opened = await open_spied(stack)
        path = opened.directory / "broker.sock"

        assert not may_somebody_else_dial(path)

        closed = [parent for parent in path.parents if parent.stat().st_mode & 0o077 == 0]
        for parent in closed:
            parent.chmod(0o711)  # the control: with the parents open, the same user is let in
        try:
            assert may_somebody_else_dial(path)
        finally:
            for parent in closed:
                parent.chmod(0o700)
