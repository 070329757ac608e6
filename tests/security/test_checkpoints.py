"""A cell that ends its interpreter costs that cell alone: variables are as before, and all goes on.

And what keeps them, the checkpoints, never costs a cell the memory that it may have.
"""

from __future__ import annotations

import asyncio

import pytest
from support.docker_sandboxes import limits_under_test, open_sandbox
from support.probes import probe, run
from support.runtimes import RuntimeUnderTest, under_test

from orchestrator.context import encode_context
from orchestrator.domain import CellResult, Outcome, VariableState
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

MIB = 2**20
BEFORE = "kept = 'before'\nnumbers = list(range(1000))"
SPOIL = "kept = 'spoilt'\nnumbers.clear()\n"
#: Ends the interpreter, or keeps it from ever ending the cell.
DEADLY = {
    "a signal to itself": ("os.kill(os.getpid(), signal.SIGKILL)", Outcome.KILLED),
    "an abort": ("os.abort()", Outcome.KILLED),
    "an exit": ("os._exit(0)", Outcome.KILLED),
    "a wild pointer": ("import ctypes\nctypes.string_at(1)", Outcome.KILLED),
    "a loop in C": ("sum(range(10**13))", Outcome.TIMED_OUT),
    "an interrupt that is caught": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        Outcome.TIMED_OUT,
    ),
    "a lock that nobody opens": (
        (
            "signal.signal(signal.SIGINT, signal.SIG_IGN)\nimport threading\n"
            "lock = threading.Lock()\nlock.acquire()\nlock.acquire()"
        ),
        Outcome.TIMED_OUT,
    ),
}
#: More than half of what a cell may have: two of it do not fit beside each other.
HOARD_SHARE = 0.55


@pytest.fixture
def hoard_bytes(runtime: RuntimeUnderTest) -> int:
    """Memory that a cell may have, and that no checkpoint may have as well."""
    assert runtime == under_test()
    return int(HOARD_SHARE * limits_under_test().memory_bytes)


async def say(sandbox: Sandbox, expression: str) -> str:
    """Returns what an expression comes to in a cell."""
    result = await run(sandbox, f"print({expression})")
    assert result.outcome is Outcome.SUCCEEDED, result.error
    return str(result.stdout).strip()


@pytest.mark.parametrize("name", DEADLY)
async def test_variables_are_as_before_a_deadly_cell(shared_sandbox: Sandbox, name: str) -> None:
    """What it bound and what it changed in place is undone, and the next cell runs."""
    source, outcome = DEADLY[name]
    await run(shared_sandbox, BEFORE)
    result = await run(shared_sandbox, SPOIL + source, timeout_s=1)

    assert (result.outcome, result.state) == (outcome, VariableState.ROLLED_BACK)
    assert result.error is not None
    assert await say(shared_sandbox, "kept, len(numbers), sum(numbers)") == "before 1000 499500"


async def test_control_cell_that_does_not_die_is_not_undone(shared_sandbox: Sandbox) -> None:
    """It is its death that undoes a cell."""
    await run(shared_sandbox, BEFORE)
    result = await run(shared_sandbox, SPOIL + "1 / 0")

    assert (result.outcome, result.state) == (Outcome.RAISED, VariableState.KEPT)
    assert await say(shared_sandbox, "kept, len(numbers)") == "spoilt 0"


async def test_deaths_may_follow_each_other(sandbox: Sandbox) -> None:
    """A checkpoint that has taken over leaves another one."""
    await run(sandbox, BEFORE)
    results = [await run(sandbox, f"{SPOIL}os.abort()") for _ in range(5)]
    await run(sandbox, "kept = 'later'")
    results.append(await run(sandbox, f"{SPOIL}os.abort()"))

    assert {result.state for result in results} == {VariableState.ROLLED_BACK}
    assert await say(sandbox, "kept, len(numbers)") == "later 1000"


LEAVE_RUNNING = {
    "a thread": "import threading\nthreading.Thread(target=time.sleep, args=(600,)).start()",
    "an executor": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n"
        "pool.submit(str).result()"
    ),
}


async def test_dead_checkpoint_is_nobodys_child(sandbox: Sandbox) -> None:
    """A cell that waits for any child of its own is not told of a checkpoint that was let go."""
    for _ in range(3):
        await run(sandbox, "kept = 1")
        await asyncio.sleep(0.2)  # the one before it dies meanwhile

    assert await say(sandbox, "os.waitpid(-1, os.WNOHANG)") == "(0, 0)"


@pytest.mark.parametrize("left", LEAVE_RUNNING.values(), ids=LEAVE_RUNNING)
async def test_live_threads_cost_the_checkpoint_and_not_the_context(
    sandbox: Sandbox, left: str
) -> None:
    """A fork would lose them and hang; the death of a cell then costs the variables, in words."""
    await sandbox.bind_context("context", encode_context("a context"))
    await run(sandbox, BEFORE)
    await run(sandbox, left)
    alive = await say(sandbox, "kept")
    died = await run(sandbox, "os.abort()")

    assert alive == "before"
    assert (died.outcome, died.state) == (Outcome.KILLED, VariableState.LOST)
    assert await say(sandbox, "context, 'kept' in globals()") == "a context False"


async def test_threads_that_ended_cost_nothing(sandbox: Sandbox) -> None:
    """Whoever joins a thread, or closes an executor, has a checkpoint."""
    await run(sandbox, BEFORE)
    await run(
        sandbox,
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    found = list(pool.map(str, range(9)))",
    )
    died = await run(sandbox, SPOIL + "os.abort()")

    assert died.state is VariableState.ROLLED_BACK
    assert await say(sandbox, "kept, len(found)") == "before 9"


def touch(name: str) -> str:
    """Returns a cell that writes to every page of a bytearray, and needs nothing beside it."""
    return f"for place in range(0, len({name}), 4096):\n    {name}[place] += 1"


#: Of what was there before the first cell, and of what a cell made: are its holders counted?
COUNTED = """
import json, sys, threading
own = lambda: None
def is_counted(item):
    before = sys.getrefcount(item)
    held = [item] * 10
    return sys.getrefcount(item) == before + 10
tell([is_counted(item) for item in (
    json, json.loads, json.loads.__code__, json.JSONDecoder, threading.__dict__, own, own.__code__,
    [], cell_made_before
)])
"""


async def test_what_was_there_before_the_first_cell_is_not_written_to(
    shared_sandbox: Sandbox,
) -> None:
    """To use modules and functions copies no page of theirs; what cells make is freed as ever."""
    await run(shared_sandbox, "cell_made_before = {'a': object()}")

    assert await probe(shared_sandbox, COUNTED) == [False] * 5 + [True] * 4


async def test_checkpoint_does_not_cost_a_cell_its_memory(hoard_bytes: int) -> None:
    """What a cell may have it has, although a checkpoint shares it: that one is given up."""
    results: list[CellResult] = []
    async with open_sandbox() as sandbox:
        await sandbox.bind_context("context", encode_context("a context"))
        results.append(await run(sandbox, f"hoard = bytearray({hoard_bytes})"))
        results += [await run(sandbox, touch("hoard"), timeout_s=60) for _ in range(3)]
        found = await say(sandbox, "len(hoard), hoard[0], hoard[-4096], context")

    assert [(result.outcome, result.state) for result in results] == (
        [(Outcome.SUCCEEDED, VariableState.KEPT)] * 4
    )
    assert found.startswith(f"{hoard_bytes} 3 ")
    assert found.endswith("a context")


async def test_checkpoints_come_back_with_the_memory(hoard_bytes: int) -> None:
    """A session that had to go without for a while has one again once there is room."""
    async with open_sandbox() as sandbox:
        await run(sandbox, f"hoard = bytearray({hoard_bytes})")
        await run(sandbox, touch("hoard"), timeout_s=60)
        await run(sandbox, "del hoard\n" + BEFORE)
        died = await run(sandbox, SPOIL + "os.abort()")
        found = await say(sandbox, "kept, len(numbers)")

    assert died.state is VariableState.ROLLED_BACK
    assert found == "before 1000"


async def test_large_variables_that_are_only_read_keep_their_checkpoint(hoard_bytes: int) -> None:
    """What is shared is held once: a death costs the cell, and not the large variable either."""
    async with open_sandbox() as sandbox:
        await run(sandbox, f"hoard = bytes({hoard_bytes})\nkept = 'before'")
        read = await run(sandbox, "print(hoard.count(0) == len(hoard))")
        died = await run(sandbox, "kept = 'spoilt'\nos.abort()")
        found = await say(sandbox, "kept, len(hoard)")

    assert str(read.stdout) == "True\n"
    assert died.state is VariableState.ROLLED_BACK
    assert found == f"before {hoard_bytes}"
