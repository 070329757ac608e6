from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from pathlib import Path

import grpc
import pytest
from support.broker_host import (
    PATIENCE_S,
    EchoQueries,
    attached,
    broker_in,
    chosen,
    listening,
    short_directory,
)
from support.scripted_worker import WALLS, HungUpError, ScriptedWorker, hello, output

from orchestrator.broker.attachment import StreamAttachment
from orchestrator.broker.listener import UnixEndpoint
from orchestrator.broker.peer_rules import peer_rules
from orchestrator.context import encode_context
from orchestrator.controls import BrokerIsolation
from orchestrator.domain import SandboxId
from orchestrator.errors import ProtocolViolationError, SandboxStartError, SettingsError
from orchestrator.limits import CellLimits, QueryLimits
from rlm_sandbox.v1 import sandbox_pb2 as pb

pytestmark = pytest.mark.usefixtures("broker_home")


def mode_of(path: Path) -> int:
    """Returns the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_directory_is_open_to_one_sandbox_only() -> None:
    """Any user may connect to the socket, and nobody but the owner reaches its directory."""
    umask = os.umask(0o077)
    try:
        async with listening() as endpoint:
            directory = endpoint.socket_directory
            assert sorted(path.name for path in directory.iterdir()) == ["broker.sock", "token"]
            assert mode_of(directory / "broker.sock") == 0o666
            assert mode_of(directory / "token") == 0o444
            assert mode_of(directory) == 0o755
            assert mode_of(directory.parent) == 0o700
            assert len(bytes.fromhex((directory / "token").read_text())) == 32
    finally:
        os.umask(umask)

    assert not directory.exists()


async def test_hello_tells_the_limits() -> None:
    """The worker reads version and limits in the answer to its hello, and the token is gone."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        told = await worker.greet()
        await endpoint.attached(timeout_s=PATIENCE_S)

        assert not (endpoint.socket_directory / "token").exists()
    assert told.version == 1
    assert told.limits.output_bytes == 64 * 2**10
    assert told.limits.grace.ToSeconds() == 2
    assert told.limits.language_policy == pb.LANGUAGE_POLICY_GUARDED


@pytest.mark.parametrize("token", ["", "0" * 64, "0" * 63])
async def test_wrong_token_is_refused(token: str) -> None:
    """Without the token nobody attaches, and the token stays for the one who has it."""
    async with listening() as endpoint:
        async with ScriptedWorker(endpoint.socket_directory, token="") as stranger:
            stranger.token = token
            assert (await stranger.attach().status())[0] is grpc.StatusCode.UNAUTHENTICATED
        async with ScriptedWorker(endpoint.socket_directory) as worker:
            await worker.greet()
            await endpoint.attached(timeout_s=PATIENCE_S)


async def test_token_of_another_sandbox_is_refused() -> None:
    """A token opens its own socket and no other."""
    async with (
        listening() as one,
        listening() as another,
        ScriptedWorker(one.socket_directory) as worker,
    ):
        worker.token = (another.socket_directory / "token").read_text()

        assert (await worker.attach().status())[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_second_attach_is_refused() -> None:
    """One sandbox has one stream; the first goes on."""
    async with attached() as pair:
        async with ScriptedWorker(pair.endpoint.socket_directory, token=pair.worker.token) as other:
            code, details = await other.attach().status()
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        await pair.worker.finish(await pair.worker.hear_cell())
        await cell

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "attached with this token before" in details


async def test_dialling_without_end_ends_the_sandbox() -> None:
    """A cell that guesses tokens gets a bounded number of guesses."""
    async with attached() as pair:
        cell = asyncio.create_task(pair.attachment.run_cell("pass", timeout_s=60))
        await pair.worker.hear_cell()
        async with ScriptedWorker(pair.endpoint.socket_directory, token="") as stranger:
            for _ in range(17):
                await stranger.attach().status()
        with pytest.raises(ProtocolViolationError, match="a sandbox dials once"):
            await cell


async def test_missing_wall_is_refused_by_name() -> None:
    """A worker that finds other walls than promised is refused before any cell, and each named."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        said = hello()
        said.walls.seccomp_mode = 0
        said.walls.network_interfaces.append("eth0")
        worker.attach()
        await worker.say(hello=said)
        code, details = await worker.status()
        with pytest.raises(SandboxStartError) as caught:
            await endpoint.attached(timeout_s=PATIENCE_S)

    assert code is grpc.StatusCode.FAILED_PRECONDITION
    for text in (details, str(caught.value)):
        assert "seccomp_mode: promised 2, found 0" in text
        assert "eth0" in text


@pytest.mark.parametrize(("found", "is_refused"), [(2**30 + 1, True), (2**29, False)])
async def test_ceiling_may_be_lower_than_promised_and_not_higher(
    *, found: int, is_refused: bool
) -> None:
    """An engine that bounds less than it was told is found out; a tighter bound is no gap."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        said = hello()
        said.walls.ceilings[1].most = found
        worker.attach()
        await worker.say(hello=said)
        if not is_refused:
            await endpoint.attached(timeout_s=PATIENCE_S)
            return
        with pytest.raises(SandboxStartError, match=f"at most {2**30}, found {found}"):
            await endpoint.attached(timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        ("is_root_read_only", "is_root_read_only: promised True, found None"),
        ("open_calls", r"open_calls: promised frozenset\(\), found None"),
        ("ceilings", "memory.max: promised at most 1073741824, found None"),
        ("scratch_options", r"scratch_options: promised frozenset\(\{'/tmp noexec'\}\), found"),
    ],
)
async def test_wall_that_is_not_reported_counts_as_absent(wall: str, expected: str) -> None:
    """A wall left unset is not as promised: a worker that tried no call has found none refused."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        said = hello()
        said.walls.ClearField(wall)  # type: ignore[arg-type] # each is a field's name
        worker.attach()
        await worker.say(hello=said)
        with pytest.raises(SandboxStartError, match=expected):
            await endpoint.attached(timeout_s=PATIENCE_S)


async def test_unknown_version_is_refused() -> None:
    """A worker that speaks only later versions is refused with what to do."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        said = hello()
        said.min_version, said.max_version = 2, 3
        worker.attach()
        await worker.say(hello=said)
        code, _ = await worker.status()
        with pytest.raises(SandboxStartError, match="build the image anew"):
            await endpoint.attached(timeout_s=PATIENCE_S)

    assert code is grpc.StatusCode.FAILED_PRECONDITION


async def test_hello_comes_first() -> None:
    """A worker that says anything before hello breaks the contract."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        worker.attach()
        await worker.say(cell_output=output(1, b"x"))
        with pytest.raises(ProtocolViolationError, match="hello is said first"):
            await endpoint.attached(timeout_s=PATIENCE_S)

        assert (await worker.status())[0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("is_dialled", "words"), [(False, "nobody dialled"), (True, "said nothing")]
)
async def test_silence_is_a_failed_start(*, is_dialled: bool, words: str) -> None:
    """A worker that does not attach in time is a failed start that says how far it came."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        if is_dialled:
            await worker.attach().call.wait_for_connection()
        with pytest.raises(SandboxStartError, match=words):
            await endpoint.attached(timeout_s=0.3)


async def test_worker_that_dies_before_hello_is_a_failed_start() -> None:
    """A worker that goes away before its hello is reported at once, not after the time allowed."""
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory) as worker,
    ):
        await worker.attach().call.done_writing()
        with pytest.raises(SandboxStartError, match="lost before its first cell"):
            await endpoint.attached(timeout_s=PATIENCE_S)


async def test_closing_survives_cancellation() -> None:
    """A cancelled caller leaves no socket, token or directory behind."""
    entered = asyncio.Event()
    paths: list[Path] = []

    async def hold() -> None:
        async with attached() as pair:
            paths.append(pair.endpoint.socket_directory)
            entered.set()
            await asyncio.Event().wait()

    with short_directory():
        holder = asyncio.create_task(hold())
        await entered.wait()
        for _ in range(3):
            holder.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await holder

    assert not paths[0].exists()


async def test_closing_twice_is_closing_once() -> None:
    """Closing again, or at the same time, does nothing."""
    async with attached() as pair:
        await asyncio.gather(pair.endpoint.close(), pair.endpoint.close())
        await pair.endpoint.close()

        assert not pair.endpoint.socket_directory.exists()


async def test_socket_that_cannot_be_made_is_a_failed_start(tmp_path: Path) -> None:
    """A directory that takes no socket is reported as what it is, and closing still works."""
    with chosen(BrokerIsolation.IN_PROCESS):
        async with attached() as pair:
            assert isinstance(pair.attachment, StreamAttachment)
            endpoint = UnixEndpoint(
                directory=tmp_path / "gone",
                server_directory=tmp_path / "gone too",
                attachment=pair.attachment,
                rules=peer_rules(cell=CellLimits(), run=QueryLimits()),
            )
            with pytest.raises(SandboxStartError, match="no socket could be made"):
                await endpoint.listen()
            await endpoint.close()


async def test_worker_that_does_not_read_cannot_hold_up_the_end() -> None:
    """A hostile worker that never reads its stream delays nothing but its own status."""
    async with attached() as pair:
        binding = asyncio.create_task(
            pair.attachment.bind_context("context", encode_context("x" * (32 * 2**20)))
        )
        await asyncio.wait({binding}, timeout=0.3)
        assert not binding.done()
        async with asyncio.timeout(5):
            await pair.endpoint.close()
        with pytest.raises(Exception, match="has been closed"):
            await binding


async def test_path_that_is_too_long_is_refused_before_anything(tmp_path: Path) -> None:
    """A runtime directory that no socket fits in is a setting to correct, and is not made."""
    directory = tmp_path / ("d" * 100)
    broker = broker_in(directory)
    with pytest.raises(SettingsError, match=r"unix\(7\) allows 107.*bytes shorter"):
        async with broker.open(
            sandbox_id=SandboxId("s"), queries=EchoQueries(), promised_walls=WALLS
        ):
            pass

    assert not directory.exists()


async def test_longest_path_control() -> None:
    """A path of exactly the longest length works, so the refusal is not too early."""
    with short_directory() as parent:
        rest = 107 - len(str(parent / "x" / "12345678" / "broker.sock")) + 1
        broker = broker_in(parent / ("d" * rest))
        async with broker.open(
            sandbox_id=SandboxId("s"), queries=EchoQueries(), promised_walls=WALLS
        ) as endpoint:
            assert len(str(endpoint.socket_directory / "broker.sock")) == 107


@pytest.mark.parametrize("name", ["100%41", "a#b", "a b", "ü"])
async def test_path_is_taken_as_it_is(name: str) -> None:
    """A path that would mean something else as a URI still means itself."""
    with short_directory() as parent:
        broker = broker_in(parent / name)
        async with broker.open(
            sandbox_id=SandboxId("s"), queries=EchoQueries(), promised_walls=WALLS
        ) as endpoint:
            assert stat.S_ISSOCK((endpoint.socket_directory / "broker.sock").stat().st_mode)


async def test_shared_runtime_directory_is_refused() -> None:
    """A runtime directory that others may enter is refused, not closed behind the owner's back."""
    with short_directory() as directory:
        directory.chmod(0o755)
        with pytest.raises(SettingsError, match="chmod 700"):
            async with broker_in(directory).open(
                sandbox_id=SandboxId("s"), queries=EchoQueries(), promised_walls=WALLS
            ):
                pass

        assert mode_of(directory) == 0o755


async def test_compressed_messages_are_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that compresses is not unpacked: its stream ends without a hello."""
    caplog.set_level(logging.CRITICAL)
    async with (
        listening() as endpoint,
        ScriptedWorker(endpoint.socket_directory, compression=grpc.Compression.Gzip) as worker,
    ):
        worker.attach()
        said = hello()
        said.image_release = "x" * 1000
        with contextlib.suppress(HungUpError):
            await worker.say(hello=said)
        code, _ = await worker.status()
        # The latter where the rule that was broken is known by then.
        with pytest.raises((SandboxStartError, ProtocolViolationError)):
            await endpoint.attached(timeout_s=0.5)

    assert code is not grpc.StatusCode.OK
