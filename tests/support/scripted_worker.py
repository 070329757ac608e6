"""A worker in a test's hand: says what the test says, honest or not, over a real socket."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from orchestrator.domain import Walls
from rlm_sandbox.v1 import sandbox_pb2 as pb
from rlm_sandbox.v1 import sandbox_pb2_grpc

#: What `ScriptedWorker.hello` claims, and so what a test promises.
WALLS = Walls(
    seccomp_mode=2,
    has_no_new_privileges=True,
    effective_capabilities=0,
    bounding_capabilities=0,
    network_interfaces=frozenset({"lo"}),
    uid=65534,
    gid=65534,
    supplementary_gids=frozenset(),
    is_root_read_only=True,
    open_calls=frozenset(),
    repl_open_calls=frozenset(),
    repl_seccomp_mode=2,
    is_repl_inspectable=False,
    is_host_kernel=False,
    landlock_abi=7,
    ceilings={"RLIMIT_CORE": 0, "memory.max": 2**30},
    scratch_options=frozenset({"/tmp noexec"}),
)


def walls_found() -> pb.Walls:
    """Returns `WALLS` as a worker says them."""
    return pb.Walls(
        seccomp_mode=2,
        has_no_new_privileges=True,
        effective_capabilities=0,
        bounding_capabilities=0,
        network_interfaces=["lo"],
        uid=65534,
        gid=65534,
        is_root_read_only=True,
        kernel_release="6.1",
        open_calls=pb.CallNames(),
        repl_open_calls=pb.CallNames(),
        repl_seccomp_mode=2,
        is_repl_inspectable=False,
        landlock_abi=7,
        ceilings=[
            pb.Ceiling(name="RLIMIT_CORE", most=0),
            pb.Ceiling(name="memory.max", most=2**30),
        ],
        scratch_options=["/tmp noexec"],
    )


def hello() -> pb.WorkerHello:
    """Returns an honest hello."""
    return pb.WorkerHello(min_version=1, max_version=1, image_release="test", walls=walls_found())


def result(cell_id: int, **fields: object) -> pb.CellResult:
    """Returns an honest result of a cell that did nothing."""
    told = pb.CellResult(
        cell_id=cell_id,
        outcome=pb.OUTCOME_SUCCEEDED,
        state=pb.VARIABLE_STATE_KEPT,
        answer=pb.Answer(),
        usage=pb.CellUsage(),
    )
    told.MergeFrom(pb.CellResult(**fields))  # type: ignore[arg-type] # the test's own fields
    return told


def output(cell_id: int, data: bytes, *, offset_bytes: int = 0) -> pb.CellOutput:
    """Returns a piece of standard output."""
    return pb.CellOutput(
        cell_id=cell_id, stream=pb.OUTPUT_STREAM_STDOUT, data=data, offset_bytes=offset_bytes
    )


class HungUpError(Exception):
    """The broker had ended the stream when the worker wanted to say something.

    Its status may be lost: gRPC's own client reports INTERNAL when a write meets the end.
    """


class ScriptedWorker:
    """One connection to one endpoint; several of them in a test are several connections."""

    def __init__(
        self,
        directory: Path,
        *,
        token: str | None = None,
        compression: grpc.Compression | None = None,
    ) -> None:
        """Dials the socket in `directory`, with the token beside it unless told another."""
        self.directory = directory
        self.token = (directory / "token").read_text() if token is None else token
        self._channel = aio.insecure_channel(
            f"unix:{directory / 'broker.sock'}",
            options=[
                # A hostile worker has no limits of its own, and shares no connection.
                ("grpc.max_send_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ],
            compression=compression,
        )
        # gRPC takes bytes as they are where there is no serializer; the generated stub has one.
        self._attach: aio.StreamStreamMultiCallable[bytes, pb.BrokerMessage]
        self._attach = self._channel.stream_stream(
            "/rlm_sandbox.v1.SandboxBroker/Attach",
            response_deserializer=pb.BrokerMessage.FromString,
        )
        self._stub = sandbox_pb2_grpc.SandboxBrokerStub(self._channel)
        self._sequence = 0
        self._call: aio.StreamStreamCall[bytes, pb.BrokerMessage] | None = None

    async def __aenter__(self) -> Self:
        """Does nothing; nothing is dialled before the first call."""
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Hangs up."""
        await self._channel.close()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What authenticates a call; nothing where the token is empty."""
        return (("rlm-session-token", self.token),) if self.token else ()

    @property
    def call(self) -> aio.StreamStreamCall[bytes, pb.BrokerMessage]:
        """The attached stream."""
        assert self._call is not None, "attach() first"
        return self._call

    def attach(self) -> Self:
        """Opens the stream and says nothing."""
        self._call = self._attach(metadata=self.metadata)
        return self

    async def greet(self) -> pb.BrokerHello:
        """Opens the stream, says an honest hello and returns the answer."""
        self.attach()
        await self.say(hello=hello())
        return (await self.hear()).hello

    async def say(self, *, sequence: int | None = None, **payload: object) -> None:
        """Sends one message; counts the sequence unless told one."""
        self._sequence = self._sequence + 1 if sequence is None else sequence
        message = pb.WorkerMessage(sequence=self._sequence, **payload)  # type: ignore[arg-type] # as above
        await self.say_bytes(message.SerializeToString())

    async def say_bytes(self, raw: bytes) -> None:
        """Sends anything.

        Raises:
            HungUpError: The stream has ended, before the call or in the middle of it.
        """
        try:
            await self.call.write(raw)
        except (aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise HungUpError from error

    async def hear(self) -> pb.BrokerMessage:
        """Returns the next message of the broker."""
        message = await self.call.read()
        assert isinstance(message, pb.BrokerMessage), await self.status()
        return message

    async def hear_cell(self) -> int:
        """Returns the id of the cell the broker wants run next."""
        message = await self.hear()
        assert message.WhichOneof("payload") == "run_cell", message
        return message.run_cell.cell_id

    async def hear_context(self) -> tuple[str, int, bytes]:
        """Returns name, number of pieces and bytes of one context, its digest checked."""
        data = bytearray()
        for count in range(1, 10_000):
            chunk = (await self.hear()).context_chunk
            assert chunk.offset_bytes == len(data)
            data += chunk.data
            if chunk.sha256:
                assert chunk.sha256 == hashlib.sha256(data).digest()
                assert chunk.total_bytes == len(data)
                return chunk.name, count, bytes(data)
        raise AssertionError("no end of the context")

    async def open_context(self) -> tuple[str, bytes]:
        """Opens the file of a context, says so, and returns its name and what is in it."""
        message = await self.hear()
        assert message.WhichOneof("payload") == "context_file", message
        with await asyncio.to_thread((self.directory / "context").open, "rb") as file:
            await self.say(context_opened=pb.ContextOpened())
            data = file.read()
        assert len(data) == message.context_file.total_bytes
        return message.context_file.name, data

    async def finish(self, cell_id: int, **fields: object) -> None:
        """Sends an honest result."""
        await self.say(cell_result=result(cell_id, **fields))

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Reads what is left and returns how the stream ended."""
        try:
            while await self.call.read() is not aio.EOF:
                pass
        except aio.AioRpcError:
            pass
        return await self.call.code(), await self.call.details() or ""

    def query(
        self,
        prompts: Sequence[str],
        *,
        cell_id: int,
        query_id: str = "q1",
        change: Callable[[pb.LlmQueryRequest], None] = lambda _request: None,
    ) -> aio.UnaryUnaryCall[pb.LlmQueryRequest, pb.LlmQueryReply]:
        """Asks; await the call for the reply."""
        request = pb.LlmQueryRequest(query_id=query_id, cell_id=cell_id, prompts=prompts)
        change(request)
        return self._stub.LlmQuery(request, metadata=self.metadata)
