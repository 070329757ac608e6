"""One sandbox out of a container and an endpoint, in every order the two can end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from support.broker_host import until
from support.fake_container import FakeBackend, FakeBroker, FakeContainer, never_end

from orchestrator.context import encode_context
from orchestrator.domain import (
    CellResult,
    ContextKind,
    EncodedContext,
    Outcome,
    QueryAnswer,
    QueryRequest,
)
from orchestrator.errors import (
    InputError,
    ProtocolViolationError,
    SandboxError,
    SandboxLostError,
    SandboxStartError,
)
from orchestrator.limits import SandboxLimits
from orchestrator.sandbox.launcher import IDLE_BYTES, LaunchedSandbox, SandboxLauncher, needed_bytes

MIB = 2**20
WHOLE_LIFE = ["endpoint opened", "container started", "container destroyed", "endpoint closed"]


class NoQueries:
    """Answers nothing: the cells of these tests ask nothing."""

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Fails the test."""
        raise AssertionError(request)


@dataclass
class Bench:
    """A launcher between two fakes."""

    limits: SandboxLimits = field(default_factory=SandboxLimits)
    diary: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Joins the launcher and the fakes."""
        self.backend = FakeBackend(self.diary)
        self.broker = FakeBroker(self.diary, Path("/run/x"))
        self.launcher = SandboxLauncher(
            backend=self.backend, broker=self.broker, limits=self.limits
        )

    @property
    def container(self) -> FakeContainer:
        """The one container that was started."""
        return self.backend.containers[0]

    @asynccontextmanager
    async def sandbox(self) -> AsyncIterator[LaunchedSandbox]:
        """Opens a sandbox whose worker attaches at once."""
        self.broker.endpoint.may_attach.set()
        async with self.launcher.open(NoQueries()) as sandbox:
            yield sandbox

    async def open_only(self) -> None:
        """Opens a sandbox and leaves it again; its worker attaches when the test says so."""
        async with self.launcher.open(NoQueries()):
            pass


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def context_of(
    size_bytes: int,
    *,
    kind: ContextKind = ContextKind.TEXT,
    resident_bytes: int | None = None,
    fill: bytes = b"x",
) -> EncodedContext:
    return EncodedContext(
        kind=kind,
        data=fill * (size_bytes // len(fill)),
        part_lengths=(size_bytes,),
        total_chars=size_bytes,
        sha256_hex="00",
        resident_bytes=size_bytes if resident_bytes is None else resident_bytes,
    )


async def test_sandbox_is_both_halves(bench: Bench) -> None:
    """What a session gets runs cells, and says which image and which runtime it is."""
    async with bench.sandbox() as sandbox:
        result = await sandbox.run_cell("1", timeout_s=1)

        assert result.outcome is Outcome.SUCCEEDED
        assert (sandbox.image_id, sandbox.runtime) == ("sha256:0123", "runc")
        assert bench.backend.mounted == [Path("/run/x")]
        assert bench.broker.promised == [bench.backend.promised_walls]

    assert bench.diary == WHOLE_LIFE


async def test_every_sandbox_has_a_name_of_its_own(bench: Bench) -> None:
    """No two sandboxes share an id, so that a log line means one of them."""
    async with bench.sandbox() as first, bench.sandbox() as second:
        assert first.sandbox_id != second.sandbox_id


async def test_error_of_the_session_destroys_the_sandbox(bench: Bench) -> None:
    """However a session ends, its container goes first and its socket after."""
    with pytest.raises(ZeroDivisionError):
        async with bench.sandbox():
            raise ZeroDivisionError

    assert bench.diary == WHOLE_LIFE


async def test_backend_that_cannot_start_leaves_no_endpoint(bench: Bench) -> None:
    """Without a container there is no use for a socket."""
    bench.backend.start_error = SandboxStartError("no image")

    with pytest.raises(SandboxStartError, match="no image"):
        await bench.open_only()

    assert bench.diary == ["endpoint opened", "endpoint closed"]


async def test_broker_that_cannot_listen_leaves_nothing(bench: Bench) -> None:
    """A socket that cannot be made is the error, and no container runs that would look for it."""
    bench.broker.endpoint.listening_error = SandboxStartError("the disk is full")

    with pytest.raises(SandboxStartError, match="the disk is full"):
        await bench.open_only()
    assert bench.diary == ["endpoint opened", "endpoint closed"]


async def test_worker_that_dies_at_the_start_says_why(bench: Bench) -> None:
    """A container that stops before it attached is not waited for; the error holds its log."""
    opening = asyncio.create_task(bench.open_only())
    await bench.broker.endpoint.is_waiting.wait()
    bench.container.stop("exit code 1\n  | no token")

    with pytest.raises(SandboxStartError, match=r"(?s)had attached.*exit code 1.*no token"):
        await opening

    assert bench.diary == WHOLE_LIFE


async def test_refused_worker_is_reported_by_the_refusal(bench: Bench) -> None:
    """Where the endpoint knows the reason, it comes first, and the container's end after it."""
    opening = asyncio.create_task(bench.open_only())
    await bench.broker.endpoint.is_waiting.wait()
    bench.broker.endpoint.attach_error = SandboxStartError("seccomp_mode: promised 2, found 0")
    bench.container.stop("exit code 1")
    bench.broker.endpoint.may_attach.set()

    with pytest.raises(SandboxStartError, match=r"promised 2, found 0.*exit code 1"):
        await opening

    assert bench.diary == WHOLE_LIFE


async def test_violation_at_the_start_is_passed_on(bench: Bench) -> None:
    """A worker that breaks the contract in its hello is an attack, not a failed start."""
    bench.broker.endpoint.attach_error = ProtocolViolationError("hello first")
    bench.broker.endpoint.may_attach.set()

    with pytest.raises(ProtocolViolationError):
        await bench.open_only()

    assert bench.diary == WHOLE_LIFE


async def cancelled(task: "asyncio.Task[None]") -> bool:
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


async def test_cancel_while_the_container_starts_closes_the_endpoint(bench: Bench) -> None:
    """A Ctrl-C during the start leaves no socket; the backend undoes its own half."""
    bench.backend.start_gate.clear()
    opening = asyncio.create_task(bench.open_only())
    await bench.backend.is_starting.wait()

    assert await cancelled(opening)
    assert bench.diary == ["endpoint opened", "endpoint closed"]


async def test_cancel_while_the_worker_attaches_destroys_the_container(bench: Bench) -> None:
    """A Ctrl-C between start and attach leaves no container."""
    opening = asyncio.create_task(bench.open_only())
    await bench.broker.endpoint.is_waiting.wait()

    assert await cancelled(opening)
    assert bench.diary == WHOLE_LIFE


async def test_cancelled_cell_is_stopped_and_waited_for(bench: Bench) -> None:
    """Cancelling a cell reaches the attachment, and the sandbox can be used on."""
    attachment = bench.broker.endpoint.attachment
    attachment.body = never_end
    async with bench.sandbox() as sandbox:
        running = asyncio.create_task(sandbox.run_cell("1", timeout_s=1))
        await attachment.is_running.wait()
        running.cancel()
        await asyncio.wait({running})

        assert running.cancelled()
        assert attachment.was_cancelled
        assert not bench.container.is_destroyed


async def test_container_that_stops_during_a_cell_is_lost(bench: Bench) -> None:
    """A cell in a container that died ends with an error that says why, not with a hang."""
    attachment = bench.broker.endpoint.attachment
    attachment.body = never_end
    async with bench.sandbox() as sandbox:
        running = asyncio.create_task(sandbox.run_cell("1", timeout_s=1))
        await attachment.is_running.wait()
        bench.container.stop("for want of memory")

        with pytest.raises(SandboxLostError, match="for want of memory"):
            await running

        assert bench.container.is_destroyed
        assert attachment.was_cancelled


async def test_lost_engine_during_a_cell_is_a_lost_sandbox(bench: Bench) -> None:
    """An engine that goes away takes its sandboxes with it, and whoever waits hears of it."""
    attachment = bench.broker.endpoint.attachment
    attachment.body = never_end
    async with bench.sandbox() as sandbox:
        running = asyncio.create_task(sandbox.run_cell("1", timeout_s=1))
        await attachment.is_running.wait()
        bench.container.lose_engine(SandboxLostError("The Docker engine went away"))

        with pytest.raises(SandboxLostError, match="engine went away"):
            await running


async def raises_at_the_end(bench: Bench, error: SandboxError) -> None:
    """Runs a cell whose stream ends with `error` because its container stopped."""

    async def end_with_the_container(_source: str) -> CellResult:
        await bench.container.wait_for_exit()
        raise error

    bench.broker.endpoint.attachment.body = end_with_the_container
    async with bench.sandbox() as sandbox:
        running = asyncio.create_task(sandbox.run_cell("1", timeout_s=1))
        await bench.broker.endpoint.attachment.is_running.wait()
        bench.container.stop("exit code 137")
        try:
            await running
        finally:
            assert bench.container.is_destroyed


async def test_lost_stream_is_explained_by_the_container(bench: Bench) -> None:
    """A stream that ends is a symptom; the operator reads the container's end with it."""
    with pytest.raises(SandboxLostError, match=r"stream ended\. .*exit code 137"):
        await raises_at_the_end(bench, SandboxLostError("the stream ended"))


async def test_violation_wins_over_a_dead_container(bench: Bench) -> None:
    """An attack that also ends the container is reported as the attack."""
    with pytest.raises(ProtocolViolationError, match="out of order"):
        await raises_at_the_end(bench, ProtocolViolationError("out of order"))


async def test_result_that_was_on_its_way_counts(bench: Bench) -> None:
    """A cell that ended before its container did has a result; the next cell is lost."""
    attachment = bench.broker.endpoint.attachment
    succeed = attachment.body

    async def last_gasp(source: str) -> CellResult:
        await bench.container.wait_for_exit()
        return await succeed(source)

    attachment.body = last_gasp
    async with bench.sandbox() as sandbox:
        running = asyncio.create_task(sandbox.run_cell("1", timeout_s=1))
        await attachment.is_running.wait()
        bench.container.stop("exit code 0")
        assert (await running).outcome is Outcome.SUCCEEDED

        attachment.body = never_end
        with pytest.raises(SandboxLostError, match="exit code 0"):
            await sandbox.run_cell("2", timeout_s=1)


async def test_idle_sandbox_whose_stream_ended_is_destroyed(bench: Bench) -> None:
    """A worker that broke a rule between two cells does not live on until the next one."""
    async with bench.sandbox():
        bench.broker.endpoint.attachment.has_ended.set()
        await until(lambda: bench.container.is_destroyed)


async def test_idle_sandbox_with_a_stream_control(bench: Bench) -> None:
    """While its stream goes on, an idle sandbox is left alone for longer than that."""
    async with bench.sandbox():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bench.broker.endpoint.attachment.wait_for_end(), 3)

        assert not bench.container.is_destroyed


async def test_lifetime_ends_a_sandbox_in_use() -> None:
    """A sandbox that is kept for longer than its lifetime is destroyed, whatever runs in it."""
    bench = Bench(limits=replace(SandboxLimits(), lifetime_s=0.05))
    bench.broker.endpoint.attachment.body = never_end
    async with bench.sandbox() as sandbox:
        with pytest.raises(SandboxLostError, match="lifetime"):
            await sandbox.run_cell("1", timeout_s=1)

        assert bench.container.is_destroyed


async def test_context_that_cannot_fit_is_refused_before_it_is_sent() -> None:
    """The caller reads what is needed, what there is, and what to pass; nothing was sent."""
    bench = Bench(limits=SandboxLimits(memory_bytes=IDLE_BYTES + 40 * MIB))
    async with bench.sandbox() as sandbox:
        with pytest.raises(InputError, match=r"needs about 45 MiB.*168 MiB.*room for 40 MiB.*173m"):
            await sandbox.bind_context("context", context_of(40 * MIB))

    assert bench.broker.endpoint.attachment.bound == {}


async def test_context_that_just_fits_is_bound() -> None:
    """The memory that the refusal asks for is enough."""
    bench = Bench(limits=SandboxLimits(memory_bytes=IDLE_BYTES + 45 * MIB))
    async with bench.sandbox() as sandbox:
        await sandbox.bind_context("context", context_of(40 * MIB))

    assert set(bench.broker.endpoint.attachment.bound) == {"context"}


async def test_memory_asked_for_counts_what_a_sandbox_needs_idle() -> None:
    """A sandbox that has no room even for itself is told a size that is enough for both."""
    bench = Bench(limits=SandboxLimits(memory_bytes=IDLE_BYTES // 2))
    enough_mib = (IDLE_BYTES + 45 * MIB) // MIB
    async with bench.sandbox() as sandbox:
        with pytest.raises(InputError, match=f"room for 0 MiB; pass --memory {enough_mib}m or"):
            await sandbox.bind_context("context", context_of(40 * MIB))


async def test_contexts_of_a_session_share_its_memory() -> None:
    """What was bound before is counted, and a name bound again counts once."""
    bench = Bench(limits=SandboxLimits(memory_bytes=IDLE_BYTES + 45 * MIB))
    async with bench.sandbox() as sandbox:
        await sandbox.bind_context("context_0", context_of(15 * MIB))
        await sandbox.bind_context("context_0", context_of(20 * MIB))

        with pytest.raises(InputError, match="room for 25 MiB"):
            await sandbox.bind_context("context_1", context_of(24 * MIB))


async def test_refused_text_says_what_makes_it_large() -> None:
    """One emoji makes each character of a text take four bytes; whoever reads that can cut it."""
    bench = Bench(limits=SandboxLimits(memory_bytes=IDLE_BYTES + 40 * MIB))
    text = encode_context("x" * (20 * MIB) + "😀")
    async with bench.sandbox() as sandbox:
        with pytest.raises(InputError, match=r"needs about 120 MiB.*takes 4 bytes, and so each"):
            await sandbox.bind_context("context", text)
        with pytest.raises(InputError, match=r"or a smaller context\.$"):
            await sandbox.bind_context("context", context_of(40 * MIB))


@pytest.mark.parametrize(
    ("context", "needed_mib"),
    [
        # A text grows in place; an eighth of it is left for what works on it.
        (context_of(16 * MIB), 18),
        # Beside its value, all of it half as wide, where its first wide character is its last one.
        (context_of(16 * MIB, resident_bytes=64 * MIB, fill=b"\xf0"), 96),
        (context_of(16 * MIB, resident_bytes=32 * MIB, fill=b"\xe4"), 48),
        # Likewise as ASCII, where its first other character is, of Latin-1.
        (context_of(16 * MIB, fill=b"\xe9"), 32),
        # Beside the values, the part that waits longest for its end, which may be the only one.
        (context_of(4 * MIB, kind=ContextKind.JSON, resident_bytes=20 * MIB), 24),
        (context_of(4 * MIB, kind=ContextKind.JSON, resident_bytes=20 * MIB, fill=b"\xf0"), 36),
        (context_of(4 * MIB, kind=ContextKind.DOCUMENTS, resident_bytes=5 * MIB, fill=b"\xe9"), 10),
        # Of parts that are small no more than a piece waits: the eighth is what counts.
        (context_of(16 * MIB, kind=ContextKind.TEXTS, fill=b",\n" + b"x" * 30), 18),
    ],
)
def test_needed_memory_counts_value_and_text(context: EncodedContext, needed_mib: int) -> None:
    """A value and what it is made from are in memory together, each as wide as it is."""
    assert needed_bytes(context) == needed_mib * MIB
