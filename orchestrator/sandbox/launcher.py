"""Joins a container and its endpoint into one sandbox, and sees to it that neither is left over.

Without it the engine's and the broker's views of one death would race: a run would read "stream
closed" where the kernel had ended the container for want of memory, or wait for a worker that died
before it ever dialled.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from orchestrator.context import longest_unread_bytes
from orchestrator.controls import Controls
from orchestrator.domain import CellResult, ContextKind, EncodedContext, RunOffer, SandboxId
from orchestrator.errors import (
    InputError,
    ProtocolViolationError,
    SandboxLostError,
    SandboxStartError,
)
from orchestrator.limits import SandboxLimits
from orchestrator.ports import (
    Attachment,
    Broker,
    Container,
    ContainerBackend,
    Endpoint,
    OutputSink,
    QueryHandler,
)
from orchestrator.run_to_end import run_to_end
from orchestrator.sandbox.lifetime import Lifetime

#: What a sandbox keeps for itself beside contexts: 96 MiB that the REPL process leaves to the
#: worker and its spares, and its own interpreter (30 MiB are resident before the first context).
IDLE_BYTES: Final = 128 * 2**20

# Beside a context that just fits, a cell could not so much as keep what it has found.
_WORKING_SHARE = 1 / 8
_WIDEST_CHAR_BYTES = 4  # of a str with a character beyond the Basic Multilingual Plane in it
_SANDBOX_ID_BYTES = 6  # short, because the path of a socket holds 108 bytes at most (unix(7))
# How long the stream may take to end, or to say what went wrong, after its container has stopped:
# what was in the socket is still delivered, so this is the time of one read.
_LAST_WORDS_S = 1.0
_EXIT_S = 2.0  # for a worker to exit after its stream has ended: it takes milliseconds
_STOP_WAIT_S = 30.0  # for a cancelled cell to end: the default grace of a cell, fifteen times

_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True, eq=False)
class LaunchedSandbox:
    """One running sandbox. Made by `SandboxLauncher.open`.

    Attributes:
        sandbox_id: Names it in logs, labels and events.
        image_id: The image by digest.
        limits: What it may use.
        controls: Every control in force for it.
        container: Its one half, which this may destroy.
        attachment: Its other half.
        end: Ends with the container, and says why it ended.
        lifetime: Counts from the container's start, or from when a session was given it.
    """

    sandbox_id: SandboxId
    image_id: str
    limits: SandboxLimits
    controls: Controls
    container: Container
    attachment: Attachment
    end: "asyncio.Task[str]"
    lifetime: Lifetime
    _resident_bytes: dict[str, int] = field(default_factory=dict)  # by name of a context

    @property
    def runtime(self) -> str:
        """The engine's runtime it runs under: `runc`, `runsc`."""
        return self.container.runtime

    async def wait_for_end(self) -> None:
        """Returns when the container has stopped or its stream has ended, whichever is first."""
        stream = asyncio.create_task(self.attachment.wait_for_end())
        try:
            await asyncio.wait({stream, self.end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stream.cancel()

    async def begin_run(self, offer: RunOffer) -> None:
        """Begins a run; see `ports.Sandbox.begin_run`.

        Raises:
            SandboxLostError: The container died and has been destroyed.
            ProtocolViolationError: It broke the contract and has been destroyed.
        """
        await self._until_lost(self.attachment.begin_run(offer))

    async def bind_context(
        self, name: str, context: EncodedContext, *, aliases: Sequence[str] = ()
    ) -> None:
        """Sends a context and binds it to `name` in the REPL process before the next cell.

        One that cannot fit is refused before anything is sent: `needed_bytes` of it, the contexts
        bound before, and `IDLE_BYTES` have to fit into `SandboxLimits.memory_bytes`.

        Raises:
            InputError: The sandbox's memory cannot hold it.
            SandboxLostError: The container died on it and has been destroyed.
            ProtocolViolationError: It broke the contract and has been destroyed.
        """
        others_bytes = sum(size for bound, size in self._resident_bytes.items() if bound != name)
        context_bytes = needed_bytes(context)
        room_bytes = self.limits.memory_bytes - IDLE_BYTES - others_bytes
        if context_bytes > room_bytes:
            raise InputError(
                _describe_shortage(
                    context,
                    context_bytes=context_bytes,
                    room_bytes=room_bytes,
                    memory_bytes=self.limits.memory_bytes,
                )
            )
        await self._until_lost(self.attachment.bind_context(name, context, aliases=aliases))
        self._resident_bytes[name] = context.resident_bytes

    async def run_cell(
        self, source: str, *, timeout_s: float, on_output: OutputSink | None = None
    ) -> CellResult:
        """Runs `source` in the sandbox's REPL process; see `ports.Sandbox.run_cell`.

        Raises:
            SandboxLostError: The container died, or its engine, or its lifetime is over. It has
                been destroyed; the message says why, for the operator.
            ProtocolViolationError: It broke the contract and has been destroyed.
        """
        return await self._until_lost(
            self.attachment.run_cell(source, timeout_s=timeout_s, on_output=on_output)
        )

    def stop_cell(self) -> None:
        """Stops the cell that runs, if one does; see `ports.Sandbox.stop_cell`."""
        self.attachment.stop_cell()

    async def _until_lost(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Awaits what the attachment does, or the end of the container, whichever is first."""
        doing = asyncio.create_task(work)
        doing.add_done_callback(_mark_seen)
        try:
            await asyncio.wait({doing, self.end}, return_when=asyncio.FIRST_COMPLETED)
            # A result, or a broken rule, that was on its way when the container stopped counts.
            await asyncio.wait({doing}, timeout=_LAST_WORDS_S)
        except asyncio.CancelledError:
            await self._stop(doing)
            raise
        try:
            if doing.done():
                return doing.result()
        except ProtocolViolationError:
            await self.container.destroy()
            raise
        except SandboxLostError as error:
            raise SandboxLostError(await self._bury(str(error))) from error
        await self._stop(doing)
        raise SandboxLostError(await self._bury("The sandbox stopped while it was in use."))

    async def _stop(self, doing: "asyncio.Task[Any]") -> None:
        """Cancels what the attachment does and waits for it, or for the container, to end."""
        doing.cancel()
        await asyncio.wait(
            {doing, self.end}, timeout=_STOP_WAIT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not doing.done():
            # Whatever still runs in there would meet the next cell.
            await self.container.destroy()

    async def _bury(self, what_happened: str) -> str:
        """Destroys the container and returns what is known of its end, for the operator."""
        last_words = await _read_last_words(self.container, self.end)
        await self.container.destroy()
        return _two_sentences(what_happened, last_words)


class SandboxLauncher:
    """Hands out sandboxes, fresh, each to one session, and destroys them after."""

    def __init__(self, *, backend: ContainerBackend, broker: Broker, limits: SandboxLimits) -> None:
        """Takes its two halves.

        Args:
            backend: Starts containers, with `limits`.
            broker: Opens endpoints.
            limits: What each sandbox may use.
        """
        self._backend = backend
        self._broker = broker
        self._limits = limits

    @property
    def image_id(self) -> str:
        """The image by digest that every sandbox it starts runs."""
        return self._backend.image_id

    @asynccontextmanager
    async def open(self, queries: QueryHandler) -> AsyncIterator[LaunchedSandbox]:
        """Starts a sandbox whose queries `queries` answers; leaving the context destroys it.

        However the context is left, and cancelled during the start as well, the container is
        destroyed first and the endpoint closed after.

        Raises:
            SandboxStartError: No engine, no image, a wall not as promised, or the worker did not
                attach within `SandboxLimits.start_s`; the message holds what the worker logged.
            ProtocolViolationError: It broke the contract while saying hello.
        """
        sandbox_id = SandboxId(secrets.token_hex(_SANDBOX_ID_BYTES))
        async with self._broker.open(
            sandbox_id=sandbox_id, queries=queries, promised_walls=self._backend.promised_walls
        ) as endpoint:
            container = await self._backend.start(
                sandbox_id=sandbox_id,
                socket_directory=endpoint.socket_directory,
                listening=endpoint.listening,
            )
            lifetime = Lifetime(self._limits.lifetime_s)
            end = asyncio.create_task(lifetime.learn_end(container))
            parting: asyncio.Task[None] | None = None
            try:
                attachment = await _attach(endpoint, container, end, start_s=self._limits.start_s)
                parting = asyncio.create_task(_end_with_stream(attachment, container, end))
                yield LaunchedSandbox(
                    sandbox_id=sandbox_id,
                    image_id=self._backend.image_id,
                    limits=self._limits,
                    controls=Controls(
                        sandbox_id=sandbox_id,
                        lifetime_s=self._limits.lifetime_s,
                        container=container.statement,
                        broker=self._broker.statement,
                        walls=attachment.walls,
                    ),
                    container=container,
                    attachment=attachment,
                    end=end,
                    lifetime=lifetime,
                )
            finally:
                if parting is not None:
                    parting.cancel()
                await run_to_end(_clear_away(container, end))


async def _end_with_stream(
    attachment: Attachment, container: Container, end: "asyncio.Task[str]"
) -> None:
    """Destroys a container whose stream has ended, also while nobody wants anything of it.

    An honest worker exits then, and what it logged is read first. A hostile one does not.
    """
    await attachment.wait_for_end()
    await asyncio.wait({end}, timeout=_EXIT_S)
    await container.destroy()


async def _attach(
    endpoint: Endpoint, container: Container, end: "asyncio.Task[str]", *, start_s: float
) -> Attachment:
    """Waits for the worker to attach, or for its container to stop, whichever is first."""
    attaching = asyncio.create_task(endpoint.attached(timeout_s=start_s))
    attaching.add_done_callback(_mark_seen)
    try:
        await asyncio.wait({attaching, end}, return_when=asyncio.FIRST_COMPLETED)
        # A worker that was refused exits: then the endpoint's own reason is the better one.
        await asyncio.wait({attaching}, timeout=_LAST_WORDS_S)
        if attaching.done():
            return attaching.result()
    except SandboxStartError as error:
        last_words = await _read_last_words(container, end)
        raise SandboxStartError(_two_sentences(str(error), last_words)) from error
    finally:
        attaching.cancel()
    last_words = await _read_last_words(container, end)
    raise SandboxStartError(f"The sandbox stopped before its worker had attached. {last_words}")


def _two_sentences(first: str, second: str) -> str:
    """Joins what the broker says, which is a phrase, and what is known of the container."""
    return f"{first.removesuffix('.')}. {second}"


async def _read_last_words(container: Container, end: "asyncio.Task[str]") -> str:
    await asyncio.wait({end}, timeout=_LAST_WORDS_S)
    return end.result() if end.done() and not end.cancelled() else await container.obituary()


def _mark_seen(task: "asyncio.Task[Any]") -> None:
    """Keeps asyncio from reporting the error of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


async def _clear_away(container: Container, end: "asyncio.Task[str]") -> None:
    end.cancel()
    await container.destroy()
    await asyncio.wait({end})


def needed_bytes(context: EncodedContext) -> int:
    """Returns what a context takes: its value, and what it is made from or what works on it.

    A text grows in place. One that is not ASCII is held a second time, half as wide or as ASCII,
    when its first wider character comes. A part of a list or dict waits as text for its end.
    """
    resident_bytes = context.resident_bytes
    is_ascii = context.data.isascii()
    if context.kind is not ContextKind.TEXT:
        char_bytes = 1 if is_ascii else _WIDEST_CHAR_BYTES
        waiting_bytes = char_bytes * longest_unread_bytes(context.data)
        made_from_bytes = min(waiting_bytes, resident_bytes)
    elif is_ascii:
        made_from_bytes = 0
    else:
        made_from_bytes = resident_bytes // (2 if _char_bytes(context) > 1 else 1)
    return resident_bytes + max(made_from_bytes, round(_WORKING_SHARE * resident_bytes))


def _char_bytes(context: EncodedContext) -> int:
    """Returns what each character of a text takes: as much as its widest."""
    return context.resident_bytes // max(context.total_chars, 1)


def _describe_shortage(
    context: EncodedContext, *, context_bytes: int, room_bytes: int, memory_bytes: int
) -> str:
    # A sandbox smaller than what it needs idle has less room than none, which counts here.
    enough_mib = -(-(memory_bytes + context_bytes - room_bytes) // 2**20)
    room_mib = max(room_bytes, 0) / 2**20
    shortage = (
        f"The context needs about {context_bytes / 2**20:,.0f} MiB, and a sandbox with "
        f"{memory_bytes / 2**20:,.0f} MiB of memory has room for {room_mib:,.0f} MiB; "
        f"pass --memory {enough_mib}m or more, or a smaller context."
    )
    if context.kind is ContextKind.TEXT and 1 < _char_bytes(context) <= _WIDEST_CHAR_BYTES:
        return (
            f"{shortage} It is one text with a character in it that takes {_char_bytes(context)} "
            "bytes, and so each does; of many texts or documents only those with such a one do."
        )
    return shortage
