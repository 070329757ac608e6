"""A cell that makes of the one way out more than it was given: tools, models, child runs, money.

What answers here is the engine's own desk with a ledger; only models and functions are the test's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.desks import Desk
from support.docker_sandboxes import open_provider
from support.fake_models import FakeModel
from support.probes import run
from support.runtimes import RuntimeUnderTest, under_test

from orchestrator.domain import Outcome, RunOffer
from orchestrator.engine.child_runs import ChildOrder
from orchestrator.engine.result import RunResult
from orchestrator.engine.tools import Toolbox
from orchestrator.errors import ProtocolViolationError, SandboxLostError, SandboxStartError
from orchestrator.limits import QueryLimits, RunLimits
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Reaches what is behind the names of a cell, as any program in the process can.
ASKER = "asker = llm_query.__self__\n"
#: 40 child runs, 10 at a time; says how many were refused.
START_40 = """
from concurrent.futures import ThreadPoolExecutor
def start(n):
    try:
        rlm_query(f"question {n}", "x")
    except QueryError as error:
        return str(error)
with ThreadPoolExecutor(10) as pool:
    print(len([answer for answer in pool.map(start, range(40)) if "none left" in answer]))
"""
#: 100 calls of a function, 30 at a time; says how many were answered.
CALL_100 = """
from concurrent.futures import ThreadPoolExecutor
def call(n):
    try:
        return wait(n)
    except QueryError:
        return None
with ThreadPoolExecutor(30) as pool:
    print(len([answer for answer in pool.map(call, range(100)) if answer is not None]))
"""
SAY = """
try:
    print(repr({call}))
except Exception as error:
    print(type(error).__name__, error)
"""


class Host:
    """The functions and models of one host, and what was asked of them.

    Attributes:
        called: Every argument that a function was called with.
        most_at_once: The most calls that were under way at the same time.
        children: Every child run that was started.
    """

    def __init__(self, *, limits: RunLimits | None = None) -> None:
        """Opens a desk in front of them."""
        self.called: list[object] = []
        self.most_at_once = 0
        self.children: list[ChildOrder] = []
        self.model = FakeModel(["an answer"], name="sub")
        self._open = 0
        self._lock = threading.Lock()
        self.tools: list[Callable[..., Any]] = [self.double, self.wait]
        self.desk = Desk(
            self.model,
            limits=limits,
            tools=self.tools,
            start_child=self._start_child,
        )

    def double(self, number: int) -> int:
        """Doubles a number."""
        self.called.append(number)
        return 2 * number

    async def wait(self, number: int) -> int:
        """Takes a while."""
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        await asyncio.sleep(0.01)
        self._open -= 1
        return number

    async def _start_child(self, order: ChildOrder) -> RunResult:
        self.children.append(order)
        raise SandboxStartError("no sandbox for this one")  # the attempt is what is counted


@asynccontextmanager
async def serving(provider: SandboxProvider, host: Host) -> AsyncIterator[Sandbox]:
    """Yields a sandbox whose queries go to a host's desk, in a run that offers its tools."""
    async with provider.open(host.desk.desk) as sandbox:
        await sandbox.begin_run(RunOffer(tools=Toolbox(host.tools).offered))
        yield sandbox


async def said(sandbox: Sandbox, call: str) -> str:
    """Returns what a call comes to in a cell."""
    result = await run(sandbox, ASKER + SAY.format(call=call))
    assert result.outcome is Outcome.SUCCEEDED, result.error
    return str(result.stdout).strip()


async def test_function_that_is_not_offered_is_not_called(provider: SandboxProvider) -> None:
    """A name is looked up among the tools of the run, and nowhere else on the host."""
    host = Host()
    async with serving(provider, host) as sandbox:
        control = await said(sandbox, "asker.tool('double', '', '')(21)")
        unlisted = [
            await said(sandbox, f"asker.tool({name!r}, '', '')(21)")
            for name in ("eval", "_start_child", "double.__globals__", "Host", "budget2")
        ]

    assert control == "42"
    assert host.called == [21]
    assert all("42" not in answer and "Error" in answer for answer in unlisted), unlisted


@pytest.mark.parametrize(
    "arguments", ["'x'", "[1]", "{'number': 1}", "1.5", "1, 2", "", "number=1, other=2", "None"]
)
async def test_arguments_of_another_type_do_not_reach_a_function(
    provider: SandboxProvider, arguments: str
) -> None:
    """They are checked against its type hints before it is called."""
    host = Host()
    async with serving(provider, host) as sandbox:
        refused = await said(sandbox, f"double({arguments})")
        control = await said(sandbox, "double(4)")

    assert refused.startswith("ToolError double(number: int) -> int: ")
    assert (control, host.called) == ("8", [4])


async def test_model_that_is_not_offered_is_not_asked(provider: SandboxProvider) -> None:
    """A cell names models by the aliases of its run; a provider's name is none."""
    host = Host()
    async with serving(provider, host) as sandbox:
        control = await said(sandbox, "llm_query('a', model='sub')")
        other = await said(sandbox, "llm_query('b', model='gpt-5')")

    assert control == "'an answer'"
    assert len(host.model.requests) == 1
    assert "Error" in other


async def test_limits_of_the_sandbox_s_side_are_not_what_counts(provider: SandboxProvider) -> None:
    """A cell that takes away its own limits meets those of the broker and of the ledger."""
    host = Host(limits=RunLimits(queries=3))
    async with serving(provider, host) as sandbox:
        await run(sandbox, ASKER + "asker._limits = {}")
        asked = await said(sandbox, "[llm_query(str(n)) for n in range(3)]")
        beyond = await said(sandbox, "llm_query('3')")

    assert asked.count("an answer") == 3
    assert "no query left" in beyond
    assert len(host.model.requests) == 3


async def test_context_of_a_child_run_is_bounded_at_the_host(runtime: RuntimeUnderTest) -> None:
    """What an honest program is told early costs a dishonest one its sandbox."""
    assert runtime == under_test()
    host = Host()
    async with (
        open_provider(queries=QueryLimits(child_context_bytes=1_000)) as provider,
        serving(provider, host) as sandbox,
    ):
        early = await said(sandbox, "rlm_query('q', 'x' * 1_001)")
        control = await said(sandbox, "rlm_query('q', 'x' * 1_000)")
        with pytest.raises((ProtocolViolationError, SandboxLostError)):
            await run(sandbox, ASKER + "asker._limits = {}\nrlm_query('q', 'x' * 100_000)")

    assert "at most 1,000 bytes" in early
    assert "could not be started" in control
    assert [len(order.context.data) for order in host.children] == [1_000]


async def test_child_runs_are_counted(provider: SandboxProvider) -> None:
    """No loop, thread or batch of a cell starts one more than the run may have."""
    host = Host(limits=RunLimits(child_runs=3))
    async with serving(provider, host) as sandbox:
        result = await run(sandbox, START_40)

    assert str(result.stdout).strip() == "37"
    assert len(host.children) == 3


async def test_calls_of_functions_are_counted_and_few_at_once(provider: SandboxProvider) -> None:
    """A flood of calls is neither a flood of threads here, nor more calls than were granted."""
    host = Host(limits=RunLimits(tool_calls=60))
    async with serving(provider, host) as sandbox:
        result = await run(sandbox, CALL_100)

    assert str(result.stdout).strip() == "60"
    assert 1 < host.most_at_once <= 8


async def test_control_nothing_but_the_ledger_stands_in_the_way(provider: SandboxProvider) -> None:
    """With more to spend, the same cells start all their child runs and have all their answers."""
    host = Host(limits=RunLimits(child_runs=40, tool_calls=100))
    async with serving(provider, host) as sandbox:
        started = await run(sandbox, START_40)
        called = await run(sandbox, CALL_100)

    assert (str(started.stdout).strip(), len(host.children)) == ("0", 40)
    assert str(called.stdout).strip() == "100"


async def test_result_of_a_function_is_data(provider: SandboxProvider) -> None:
    """What a function returns is read as JSON in the cell, and never run as Python."""
    host = Host()
    host.tools.append(malicious)
    host.desk = Desk(host.model, tools=host.tools)
    async with serving(provider, host) as sandbox:
        answer = await said(sandbox, "malicious()")

    assert answer == "\"__import__('os').abort()\""


def malicious() -> str:
    """Returns what would end the process if it were run."""
    return "__import__('os').abort()"
