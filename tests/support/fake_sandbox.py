"""A sandbox whose cells are functions of the test, held to the contract of `Sandbox`.

What a cell does is written by the test as a coroutine function, or given as a finished result; the
rest (order, limits, cancellation, destruction) is as the port promises.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

from support.statements import controls_of

from orchestrator.domain import (
    CellError,
    CellId,
    CellResult,
    CellUsage,
    Draft,
    EncodedContext,
    Outcome,
    OutputStream,
    Printed,
    QueryAnswer,
    QueryId,
    QueryKind,
    QueryRequest,
    RunOffer,
    SandboxId,
    VariableState,
)
from orchestrator.errors import SandboxError, SandboxLostError, SandboxStartError
from orchestrator.limits import CellLimits
from orchestrator.ports import OutputSink, QueryHandler


class CellRun:
    """What a cell of a test can do while it runs.

    Attributes:
        source: The source that was handed over.
        contexts: What was bound before.
    """

    def __init__(
        self,
        *,
        source: str,
        contexts: Mapping[str, EncodedContext],
        answer: Draft,
        ask: Callable[[QueryRequest], Awaitable[Sequence[QueryAnswer]]],
        on_output: OutputSink | None,
    ) -> None:
        """Made by `FakeSandbox.run_cell`."""
        self.source = source
        self.contexts = contexts
        self.answer = answer
        self.printed = {OutputStream.STDOUT: "", OutputStream.STDERR: ""}
        self.query_count = 0
        self.waiting_s = 0.0
        self.open_query_count = 0
        self._ask = ask
        self._on_output = on_output

    def print(self, text: str, *, stream: OutputStream = OutputStream.STDOUT) -> None:
        """Prints `text` and a line feed."""
        line = f"{text}\n"
        self.printed[stream] += line
        if self._on_output:
            self._on_output(stream, line.encode())

    def draft(self, content: str) -> None:
        """Sets `answer["content"]`."""
        self.answer = replace(self.answer, content=content)

    def final(self, content: str) -> None:
        """Makes `content` the final answer."""
        self.answer = Draft(content=content, is_ready=True)

    async def ask(self, *prompts: str, model_alias: str | None = None) -> Sequence[QueryAnswer]:
        """Sends prompts as one request; the cell's clock stops meanwhile."""
        return await self._send(_request(prompts, model_alias=model_alias))

    async def ask_child(self, question: str, context: EncodedContext) -> QueryAnswer:
        """Has a child run answer."""
        request = _request((question,), kind=QueryKind.CHILD_RUN, child_context=context)
        [answer] = await self._send(request)
        return answer

    async def call_tool(self, name: str, arguments_json: str = "{}") -> QueryAnswer:
        """Calls a tool."""
        request = _request((arguments_json,), kind=QueryKind.TOOL, tool_name=name)
        [answer] = await self._send(request)
        return answer

    async def _send(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        self.query_count += len(request.prompts)
        started_s = time.monotonic()
        self.open_query_count += 1
        try:
            return await self._ask(request)
        finally:
            self.open_query_count -= 1
            self.waiting_s += time.monotonic() - started_s


def _request(prompts: tuple[str, ...], **fields: Any) -> QueryRequest:  # noqa: ANN401 - any of its fields
    return QueryRequest(query_id=QueryId(""), cell_id=CellId(0), prompts=prompts, **fields)


#: A cell: what it does, or its finished result, whose `cell_id` is replaced by the right one.
FakeCell = CellResult | Callable[[CellRun], Awaitable[None]]


async def _silent(_run: CellRun) -> None:
    """Does nothing."""


class FakeSandbox:
    """A `Sandbox` that runs the cells of a script in order, and nothing once it runs out.

    Attributes:
        sources: Every source that was run.
        contexts: Every context that was bound.
        offers: What each run was begun with.
        is_destroyed: Whether it is gone.
        was_stopped: Whether a cell was ended from outside, by its clock or by the caller.
    """

    image_id = "sha256:" + "0" * 64
    runtime = "fake"

    def __init__(
        self,
        *,
        sandbox_id: SandboxId,
        cells: Sequence[FakeCell],
        queries: QueryHandler,
        limits: CellLimits,
        bind_error: SandboxError | None,
        bind_gate: asyncio.Event | None,
    ) -> None:
        """Made by `FakeProvider.open`."""
        self.sandbox_id = sandbox_id
        self.controls = controls_of(sandbox_id)
        self.sources: list[str] = []
        self.contexts: dict[str, EncodedContext] = {}
        self.offers: list[RunOffer] = []
        self.is_destroyed = False
        self.was_stopped = False
        self._cells = list(cells)
        self._queries = queries
        self._limits = limits
        self._bind_error = bind_error
        self._bind_gate = bind_gate
        self._answer = Draft()
        self._last_cell_id = 0
        self._query_numbers = itertools.count(1)
        self._is_running = False
        self._stop = asyncio.Event()

    async def begin_run(self, offer: RunOffer) -> None:
        """See `Sandbox.begin_run`."""
        self._check_alive()
        self.offers.append(offer)
        self._answer = Draft()

    async def bind_context(
        self, name: str, context: EncodedContext, *, aliases: Sequence[str] = ()
    ) -> None:
        """See `Sandbox.bind_context`."""
        self._check_alive()
        if self._bind_error:
            self.is_destroyed = True
            raise self._bind_error
        await (self._bind_gate.wait() if self._bind_gate else asyncio.sleep(0))
        for bound in (name, *aliases):
            self.contexts[bound] = context

    async def run_cell(
        self, source: str, *, timeout_s: float, on_output: OutputSink | None = None
    ) -> CellResult:
        """See `Sandbox.run_cell`."""
        self._check_alive()
        if self._is_running:
            message = "calls on one sandbox must not overlap"
            raise RuntimeError(message)
        self._last_cell_id += 1
        cell_id = CellId(self._last_cell_id)
        self.sources.append(source)
        refusal = self._refusal(source)
        if refusal:
            return CellResult(
                cell_id=cell_id,
                outcome=Outcome.REJECTED,
                state=VariableState.KEPT,
                error=refusal,
                answer=self._answer,
            )
        cell = self._cells.pop(0) if self._cells else _silent
        if isinstance(cell, CellResult):
            self._answer = cell.answer
            return replace(cell, cell_id=cell_id)
        self._is_running = True
        try:
            return await self._run(cell, cell_id, source, timeout_s, on_output)
        finally:
            self._is_running = False

    def stop_cell(self) -> None:
        """See `Sandbox.stop_cell`."""
        if self._is_running:
            self._stop.set()

    async def _run(
        self,
        cell: Callable[[CellRun], Awaitable[None]],
        cell_id: CellId,
        source: str,
        timeout_s: float,
        on_output: OutputSink | None,
    ) -> CellResult:
        async def ask(request: QueryRequest) -> Sequence[QueryAnswer]:
            query_id = QueryId(f"q{next(self._query_numbers)}")
            return await self._queries.answer(replace(request, query_id=query_id, cell_id=cell_id))

        run = CellRun(
            source=source,
            contexts=self.contexts,
            answer=self._answer,
            ask=ask,
            on_output=on_output,
        )
        started_s = time.monotonic()
        self._stop.clear()
        task = asyncio.ensure_future(cell(run))
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            while not task.done() and not stop.done():
                left_s = timeout_s - (time.monotonic() - started_s - run.waiting_s)
                if left_s <= 0 and not run.open_query_count:
                    break
                # Time in which a query is open does not count, so it is looked at again.
                await asyncio.wait(
                    {task, stop},
                    timeout=0.01 if run.open_query_count else left_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            stop.cancel()
            if not task.done():
                self.was_stopped = True
                task.cancel()
                await asyncio.wait({task})
        return self._result(task, run, cell_id, wall_s=time.monotonic() - started_s)

    def _result(
        self, task: asyncio.Future[None], run: CellRun, cell_id: CellId, *, wall_s: float
    ) -> CellResult:
        outcome, state, error = Outcome.SUCCEEDED, VariableState.KEPT, None
        if task.cancelled() and self._stop.is_set():
            # An interrupt has reached it: what it had bound by then is there.
            outcome = Outcome.STOPPED
            error = CellError(type_name="KeyboardInterrupt", message="the cell was stopped")
        elif task.cancelled():
            outcome, state = Outcome.TIMED_OUT, VariableState.ROLLED_BACK
            error = CellError(type_name="TimeoutError", message="the cell ran too long")
        elif failure := task.exception():
            if isinstance(failure, SandboxError):
                self.is_destroyed = True
                raise failure
            outcome = Outcome.RAISED
            error = CellError(type_name=type(failure).__name__, message=str(failure))
        if state is VariableState.KEPT:
            self._answer = run.answer
        return CellResult(
            cell_id=cell_id,
            outcome=outcome,
            state=state,
            stdout=self._printed(run.printed[OutputStream.STDOUT]),
            stderr=self._printed(run.printed[OutputStream.STDERR]),
            error=error,
            answer=self._answer,
            usage=CellUsage(wall_s=wall_s, query_count=run.query_count),
        )

    def _printed(self, text: str) -> Printed:
        data = text.encode()
        half = self._limits.output_bytes // 2
        if len(data) <= 2 * half:
            return Printed(head=text, total_bytes=len(data))
        return Printed(
            head=data[:half].decode(errors="replace"),
            tail=data[-half:].decode(errors="replace"),
            total_bytes=len(data),
            dropped_bytes=len(data) - 2 * half,
        )

    def _refusal(self, source: str) -> CellError | None:
        try:
            size_bytes = len(source.encode())
        except UnicodeEncodeError as error:
            return CellError(type_name="UnicodeEncodeError", message=str(error))
        if size_bytes > self._limits.source_bytes:
            message = f"the cell has {size_bytes:,} bytes, at most {self._limits.source_bytes:,}"
            return CellError(type_name="ValueError", message=message)
        return None

    def _check_alive(self) -> None:
        if self.is_destroyed:
            message = "the sandbox has been destroyed"
            raise SandboxLostError(message)


class FakeProvider:
    """A `SandboxProvider` that hands out fake sandboxes, all with the same script.

    Attributes:
        opened: Every sandbox that was handed out.
        bind_gate: What is bound waits for it, if there is one.
    """

    def __init__(
        self,
        *cells: FakeCell,
        limits: CellLimits | None = None,
        start_error: SandboxStartError | None = None,
        bind_error: SandboxError | None = None,
        bind_gate: asyncio.Event | None = None,
    ) -> None:
        """Makes a provider for a script."""
        self.opened: list[FakeSandbox] = []
        self.bind_gate = bind_gate
        self._cells = cells
        self._limits = limits or CellLimits()
        self._start_error = start_error
        self._bind_error = bind_error

    def refuse(self, error: SandboxStartError) -> None:
        """Hands out nothing from now on."""
        self._start_error = error

    def open(self, queries: QueryHandler) -> AbstractAsyncContextManager[FakeSandbox]:
        """See `SandboxProvider.open`."""
        return self._open(queries)

    @asynccontextmanager
    async def _open(self, queries: QueryHandler) -> AsyncIterator[FakeSandbox]:
        if self._start_error:
            raise self._start_error
        sandbox = FakeSandbox(
            sandbox_id=SandboxId(f"fake-{len(self.opened) + 1}"),
            cells=self._cells,
            queries=queries,
            limits=self._limits,
            bind_error=self._bind_error,
            bind_gate=self.bind_gate,
        )
        self.opened.append(sandbox)
        try:
            yield sandbox
        finally:
            sandbox.is_destroyed = True
