"""A cell that speaks to the worker in place of the platform, over its own process's channel."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import CELL_LIMITS, LIMITS, open_provider
from support.probes import goes_on, probe, run

from orchestrator.domain import Outcome, QueryAnswer, QueryRequest, VariableState
from orchestrator.errors import ProtocolViolationError, SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: Finds the channel among the process's descriptors: the one socket there is.
CHANNEL = """
import struct
globals().pop("channel", None)  # that of a cell before
[fd] = [int(name) for name in os.listdir("/proc/self/fd")
        if "socket:" in os.path.realpath(f"/proc/self/fd/{name}")]
channel = socket.socket(fileno=os.dup(fd))
channel.setblocking(True)
CELL = llm_query.__self__._cell_id
QUERY, RESULT, SPARE, RUN = 17, 16, 18, 5

def frame(kind, payload):
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return struct.pack(">IB", len(data), kind) + data

def result(**changes):
    return frame(RESULT, {"cell_id": CELL, "outcome": "succeeded", "error": None, "content": "",
                          "is_ready": False, "variables": []} | changes)

def spare(descriptor, *, pid, is_base=False):
    socket.send_fds(channel, [frame(SPARE, {"pid": pid, "is_base": is_base})], [descriptor])
"""

#: Each is no frame, or one that nobody may send: the interpreter that sent it is ended.
BROKEN = {
    "noise": "channel.sendall(b'\\xff' * 100)",
    "length over the limit": "channel.sendall(struct.pack('>IB', 2**32 - 1, RESULT))",
    "unknown kind": "channel.sendall(frame(99, {}))",
    "command to itself": "channel.sendall(frame(RUN, {'cell_id': CELL, 'source': 'print(1)'}))",
    "not json": "channel.sendall(frame(RESULT, b'{'))",
    "nested too deep": "channel.sendall(frame(RESULT, b'[' * 10**6))",
    "number too long": "channel.sendall(frame(RESULT, b'{\"cell_id\":' + b'1' * 10**6 + b'}'))",
    "JSON that swells 24 times": "channel.sendall(frame(QUERY, b'[' + b'{},' * 10**7 + b'{}]'))",
    "half a surrogate pair": "channel.sendall(result(content=1).replace(b' 1', b' \"\\\\ud800\"'))",
    "result of another cell": "channel.sendall(result(cell_id=CELL + 1))",
    "result of another form": "print('z' * 10**5); channel.sendall(result(variables=7))",
    "size that no field holds": (
        "channel.sendall(result(variables=[{'name': 'a', 'type': 'b', 'size': 2**70}]))"
    ),
    "a size that is negative": (
        "channel.sendall(result(variables=[{'name': 'a', 'type': 'b', 'size': -1}]))"
    ),
    "more variables than a message holds": (
        "channel.sendall(result(variables=[{'name': 'a' * 200, 'type': 'b', 'size': 1}] * 10**5))"
    ),
    "an answer larger than a message": "channel.sendall(result(content='a' * 5 * 2**20))",
    "a model's name longer than any": (
        "channel.sendall(frame(QUERY, {'cell_id': CELL, 'query_id': 'a', 'prompts': ['a'],"
        " 'model': 'm' * 65}))"
    ),
    "query without prompts": "channel.sendall(frame(QUERY, {'cell_id': CELL, 'query_id': 'a'}))",
    "spare without a channel": "channel.sendall(frame(SPARE, {'pid': 5, 'is_base': True}))",
    "spare with the worker's pid": "spare(fd, pid=1, is_base=True)",
    "spare with a pid that no kernel gives": "spare(fd, pid=2**40, is_base=True)",
    "spare whose channel is a file": "spare(os.open('/etc/passwd', 0), pid=77, is_base=True)",
    "spare whose channel is a pipe": "spare(os.pipe()[0], pid=77)",
    "more descriptors than any frame has": (
        "[socket.send_fds(channel, [result()[:1]], [fd] * 3) for _ in range(9)]"
    ),
}


@pytest.mark.parametrize("attack", BROKEN.values(), ids=BROKEN)
async def test_broken_frame_ends_its_interpreter_alone(
    shared_sandbox: Sandbox, attack: str
) -> None:
    """What cannot be a message of the platform costs the cell that sent it, and nothing else."""
    await run(shared_sandbox, "before = 41")

    result = await run(shared_sandbox, f"{CHANNEL}\nbefore = 0\n{attack}\ntime.sleep(60)")

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert result.error is not None
    assert "wrote to the platform's own channel" in result.error.message
    assert await probe(shared_sandbox, "tell(before)") == 41
    assert await goes_on(shared_sandbox)


async def test_honest_frame_control(sandbox: Sandbox) -> None:
    """A frame of the right form is taken, so the frames above were refused for what they were.

    It gains nothing: the answer it claims is one the cell could have given with `FINAL`.
    """
    result = await run(
        sandbox, f"{CHANNEL}\nchannel.sendall(result(content='mine', is_ready=True))"
    )

    assert (result.outcome, result.answer.content) == (Outcome.SUCCEEDED, "mine")


UNFINISHED = {
    "half a frame": "channel.sendall(struct.pack('>IB', 1000, RESULT) + b'{')",
    "a frame that never ends": (
        "channel.sendall(struct.pack('>IB', 33 * 2**20, QUERY) + b' ' * 32 * 2**20)"
    ),
    "a stopped process": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("attack", UNFINISHED.values(), ids=UNFINISHED)
async def test_result_that_never_comes_is_waited_for_in_vain_no_longer_than_the_cell_may_run(
    shared_sandbox: Sandbox, attack: str
) -> None:
    """A cell that swallows its own result runs into its timeout, and the session goes on."""
    result = await run(shared_sandbox, f"{CHANNEL}\n{attack}", timeout_s=1)

    assert (result.outcome, result.state) == (Outcome.TIMED_OUT, VariableState.ROLLED_BACK)
    assert await goes_on(shared_sandbox)


@pytest.mark.parametrize("attack", ["os.close(fd); channel.close()", "channel.shutdown(2)"])
async def test_closed_channel_ends_the_interpreter(shared_sandbox: Sandbox, attack: str) -> None:
    """A process that nobody can speak to is ended, not waited for."""
    result = await run(shared_sandbox, f"{CHANNEL}\n{attack}\nwhile True: time.sleep(1)")

    assert (result.outcome, result.state) == (Outcome.KILLED, VariableState.ROLLED_BACK)
    assert await goes_on(shared_sandbox)


SABOTAGE = {
    "no way to write a result": "json.dumps = None",
    "no way to read an order": "json.loads = None",
    "no way to leave a spare": "os.fork = None",
    "a live process that takes itself for a spare": "os.fork = lambda: 0",
    "a spare that is a lie": "os.fork = lambda: 99",
    "a wait that never ends": "import select; select.poll = lambda: time.sleep(10**6)",
    "no standard streams": "sys.__stdout__ = sys.__stderr__ = sys.stdout = sys.stderr = None",
    "no memory of modules": "sys.modules.clear()",
}


@pytest.mark.parametrize("attack", SABOTAGE.values(), ids=SABOTAGE)
async def test_sabotage_of_the_platforms_code_in_its_process_holds_nobody_up(
    sandbox: Sandbox, attack: str
) -> None:
    """A cell may break what runs in its own process; every cell still ends in its time.

    Whether later cells can do anything is the saboteur's own affair.
    """
    for source in (attack, "tell(0)", "tell(0)"):
        async with asyncio.timeout(1 + CELL_LIMITS.grace_s + 2):
            await run(sandbox, source, timeout_s=1)


async def test_result_after_the_end_is_refused_and_owned_up_to(sandbox: Sandbox) -> None:
    """A thread that goes on claiming results loses the variables, and the next cell says so."""
    await run(
        sandbox,
        f"{CHANNEL}\nimport threading\nforged = result()\n"
        "def claim():\n    while True: channel.sendall(forged)\n"
        "threading.Thread(target=claim, daemon=True).start()\ntime.sleep(0.2)",
    )

    states = [(await run(sandbox, "pass")).state for _ in range(3)]

    assert VariableState.LOST in states
    assert await goes_on(sandbox)


class CountingQueries(EchoQueries):
    """Keeps what was asked."""

    def __init__(self) -> None:
        """Begins with nothing asked."""
        self.asked: list[QueryRequest] = []

    async def answer(self, request: QueryRequest) -> Sequence[QueryAnswer]:
        """Answers each prompt with itself."""
        self.asked.append(request)
        return await super().answer(request)


async def test_query_for_another_cell_is_not_asked(provider: SandboxProvider) -> None:
    """A query says which cell pays for it; the worker asks for the one that runs, and no other."""
    queries = CountingQueries()
    query = "channel.sendall(frame(QUERY, {'query_id': 'a', 'cell_id': %s, 'prompts': ['forged']}))"
    async with provider.open(queries) as sandbox:
        for claimed in ("CELL - 1", "CELL + 1", "None", "str(CELL)"):
            await probe(sandbox, f"{CHANNEL}\n{query % claimed}\ntell(llm_query('honest'))")

        assert {request.prompts for request in queries.asked} == {("honest",)}

        await probe(sandbox, f"{CHANNEL}\n{query % 'CELL'}\ntell(llm_query('honest'))")

        assert {request.prompts for request in queries.asked} == {("honest",), ("forged",)}


#: Each may end the session, and not otherwise than by an error that says so.
FATAL = {
    "a small frame of a large value": (
        "channel.sendall(frame(RESULT, b'[' + b'[],' * 10**7 + b'0]'))"
    ),
    "queries without end, answers unread": (
        "query = frame(QUERY, {'query_id': 'a', 'cell_id': CELL, 'prompts': ['a' * 10**5]})\n"
        "while True: channel.sendall(query)"
    ),
    "refusals of a query for nobody": (
        "query = frame(QUERY, {'query_id': 'a', 'cell_id': -5, 'prompts': [1] * 10**6})\n"
        "while True: channel.sendall(query)"
    ),
    "an impostor for a spare": (
        "near, far = socket.socketpair()\n"
        "pid = os.fork()\n"
        "while pid == 0: time.sleep(1)\n"
        "spare(far.fileno(), pid=pid)\n"
        "time.sleep(0.2)\n"
        "os._exit(0)"
    ),
    "a spare that only listens": (
        "near = socket.socket(socket.AF_UNIX)\n"
        "near.bind('/tmp/s')\n"
        "near.listen()\n"
        "pid = os.fork()\n"
        "while pid == 0: time.sleep(1)\n"
        "spare(near.fileno(), pid=pid)\n"
        "time.sleep(0.2)\n"
        "os._exit(0)"
    ),
    "a spare that is a process of the session": (
        "spare(socket.socketpair()[0].fileno(), pid=others()[0])\nos._exit(0)"
    ),
}


@pytest.mark.parametrize("attack", FATAL.values(), ids=FATAL)
async def test_attack_on_the_worker_ends_in_bounded_time_and_touches_nobody_else(
    provider: SandboxProvider, bare_provider: SandboxProvider, attack: str
) -> None:
    """A cell may end its own worker, and nothing else: no hang, no host memory, no next sandbox.

    Tried without the second stage, which would not let one of them have its socket.
    """
    host_bytes = psutil.Process().memory_info().rss
    async with asyncio.timeout(60):
        async with bare_provider.open(EchoQueries()) as sandbox:
            with suppress(SandboxLostError, ProtocolViolationError):
                for source in (f"{CHANNEL}\n{attack}", "pass", "pass"):
                    await run(sandbox, source, timeout_s=2)
                assert await goes_on(sandbox)
        async with provider.open(EchoQueries()) as next_sandbox:
            assert await goes_on(next_sandbox)

    assert psutil.Process().memory_info().rss - host_bytes < 64 * 2**20


async def test_descriptors_that_nobody_wants_are_closed() -> None:
    """A cell cannot fill the worker's table of descriptors by sending it some again and again."""
    async with (
        open_provider(sandbox=replace(LIMITS, open_files=64)) as provider,
        provider.open(EchoQueries()) as sandbox,
    ):
        for _ in range(40):
            await run(
                sandbox,
                f"{CHANNEL}\nsocket.send_fds(channel, [b'\\xff' * 9], [fd] * 4)\ntime.sleep(60)",
            )

        assert await goes_on(sandbox)
