"""A cell that looks into the worker, which has the token: memory, descriptors, environment."""

from contextlib import suppress

import pytest
from support.broker_host import EchoQueries
from support.docker_sandboxes import told_in_another
from support.probes import goes_on, probe, run
from support.runtimes import RuntimeUnderTest
from support.second_stage import NO_SECOND_STAGE, together
from support.weakenings import HOST_PROCESSES, NO_SECCOMP

from orchestrator.domain import Outcome
from orchestrator.errors import SandboxLostError
from orchestrator.ports import Sandbox, SandboxProvider

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: What of a process is its own business (proc(5)): each entry, and how it is looked at.
LOOK = """
def read(path):
    with open(path, "rb", buffering=0):
        pass

PRIVATE = {"mem": read, "environ": read, "auxv": read, "io": read, "maps": read, "smaps": read,
           "fd": os.listdir, "fdinfo": os.listdir, "cwd": os.listdir, "root": os.listdir,
           "exe": os.readlink, "ns/net": os.readlink}
def look(pid):
    return {name: attempt(way, f"/proc/{pid}/{name}") for name, way in PRIVATE.items()}
"""
#: Reads a few bytes of a process's memory (process_vm_readv(2)), or becomes its debugger.
SEIZE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
held = ctypes.create_string_buffer(b"here")
into = ctypes.create_string_buffer(4)

class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def seize(pid):
    near, far = Piece(ctypes.addressof(into), 4), Piece(ctypes.addressof(held), 4)
    size = libc.process_vm_readv(pid, ctypes.byref(near), 1, ctypes.byref(far), 1, 0)
    copied = into.raw.decode() if size == 4 else errno.errorcode[ctypes.get_errno()]
    is_traced = libc.ptrace(16, pid, 0, 0) == 0  # PTRACE_ATTACH
    return [copied, "traced" if is_traced else errno.errorcode[ctypes.get_errno()]]

child = os.fork()
while child == 0: time.sleep(1)
"""
UNFILTERED = together(NO_SECOND_STAGE, NO_SECCOMP)
#: The first words of each process's command line.
COMMANDS = """
found = []
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            found.append(open(f"/proc/{name}/cmdline").read().split("\\0")[:4])
        except OSError:
            pass
tell([words for words in found if words != [""]])  # but of those that have ended
"""


OPEN_DESCRIPTORS = """
found = {}
for number in os.listdir("/proc/1/fd"):
    path = f"/proc/1/fd/{number}"
    found[os.readlink(path)] = attempt(os.open, path, os.O_RDWR | os.O_NONBLOCK)
tell(found)
"""
PIPES = """
pipes = [f"/proc/1/fd/{number}" for number in os.listdir("/proc/1/fd")
         if os.readlink(f"/proc/1/fd/{number}").startswith("pipe:")]
pipes = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in pipes]
assert pipes
"""
FILL_PIPES = f"""
{PIPES}
for _ in range(100):
    for pipe in pipes:
        attempt(os.write, pipe, bytes(2**16))
"""
DRAIN_PIPES = f"""
{PIPES}
for _ in range(100):
    print("a" * 1000, flush=True)
    for pipe in pipes:
        attempt(os.read, pipe, 2**16)
"""
#: What gVisor shows to the same user all the same, and what is in it.
SHOWN_BY_GVISOR = {
    "auxv": "addresses of the worker's program",
    "environ": "the container's environment, which holds no secret",
    "fd": "numbers of descriptors",
    "fdinfo": "likewise",
    "maps": "addresses of the worker's memory, not what is there",
    "ns/net": "the number of gVisor's own network",
    "smaps": "as maps",
}


async def test_the_worker_cannot_be_looked_into(
    shared_sandbox: Sandbox, runtime: RuntimeUnderTest
) -> None:
    """The same user's process, and still nothing of it can be read; under gVisor no memory."""
    found: dict[str, str] = await probe(shared_sandbox, f"{LOOK}\ntell(look(1))")

    readable = {name for name, end in found.items() if end not in {"EACCES", "EPERM"}}
    assert readable <= (SHOWN_BY_GVISOR.keys() if runtime.is_gvisor else set())


@pytest.mark.gvisor_only("runc's kernel shows no descriptor of the worker's")
async def test_streams_of_the_worker_cannot_be_opened(bare_sandbox: Sandbox) -> None:
    """Of what the worker has open gVisor gives pipes to the same user, and no stream."""
    found: dict[str, str] = await probe(bare_sandbox, OPEN_DESCRIPTORS)

    opened = {name.partition(":")[0] for name, end in found.items() if end == "done"}
    assert opened <= {"pipe", "host"}
    assert {end for name, end in found.items() if name.startswith("socket:")} == {"ENXIO"}


@pytest.mark.gvisor_only("runc's kernel shows no descriptor of the worker's")
@pytest.mark.parametrize("attack", [FILL_PIPES, DRAIN_PIPES], ids=["fill", "drain"])
async def test_pipes_of_the_worker_are_of_no_use(sandbox: Sandbox, attack: str) -> None:
    """A cell that fills or empties them while it runs has its own output and its own time alone."""
    result = await run(sandbox, attack, timeout_s=20)

    assert result.outcome is Outcome.SUCCEEDED
    assert await goes_on(sandbox)


async def test_the_worker_cannot_be_looked_into_control(bare_sandbox: Sandbox) -> None:
    """A process that did not close itself has no such wall around it, and all of it is read."""
    found: dict[str, str] = await probe(bare_sandbox, f"{LOOK}\ntell(look('self'))")

    assert set(found.values()) == {"done"}


async def test_the_worker_cannot_be_seized(shared_sandbox: Sandbox) -> None:
    """Nobody copies the worker's memory by the system call that needs no file, nor traces it."""
    told = await probe(shared_sandbox, f"{SEIZE}\ntell(seize(1))")

    assert told == ["EPERM", "EPERM"]
    assert await goes_on(shared_sandbox)


async def test_the_worker_cannot_be_seized_where_system_calls_are_not_filtered(
    runtime: RuntimeUnderTest,
) -> None:
    """The worker's own wall holds by itself; as a control, a child of the cell's has none."""
    told = await told_in_another(f"{SEIZE}\ntell([seize(1), seize(child)])", weakening=UNFILTERED)

    if runtime.is_gvisor:  # which has no call that copies another's memory
        assert told == [["ENOSYS", "EPERM"], ["ENOSYS", "traced"]]
    else:
        assert told == [["EPERM", "EPERM"], ["here", "traced"]]


STANDING = "tell([attempt(open, f'/proc/{pid}/oom_score_adj', 'w') for pid in (1, os.getpid())])"


async def test_nobodys_standing_can_be_raised_or_lowered(shared_sandbox: Sandbox) -> None:
    """The kernel's choice of whom to end for want of memory stays as the worker set it."""
    assert await probe(shared_sandbox, STANDING) == ["EACCES", "EACCES"]


async def test_nobodys_standing_control(bare_sandbox: Sandbox) -> None:
    """The worker's is its own by itself; the other one is what the second stage closes."""
    assert await probe(bare_sandbox, STANDING) == ["EACCES", "done"]


async def test_limits_set_on_the_worker_end_the_sandbox_at_worst(
    provider: SandboxProvider, bare_provider: SandboxProvider
) -> None:
    """A process may set limits of any other of its user's (prlimit(2)): then its sandbox is lost.

    Nobody waits for a worker that cannot open a file any more, and nobody else notices. It takes a
    cell that got past the second stage.
    """
    async with bare_provider.open(EchoQueries()) as sandbox:
        with suppress(SandboxLostError):
            await run(
                sandbox,
                "import resource\n"
                "for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CPU):\n"
                "    resource.prlimit(1, limit, (0, 0))",
                timeout_s=2,
            )
            await run(sandbox, "pass", timeout_s=2)

    async with provider.open(EchoQueries()) as next_sandbox:
        assert await goes_on(next_sandbox)


async def test_there_are_no_processes_but_the_sandboxs(shared_sandbox: Sandbox) -> None:
    """PID 1 is the worker, and all that is to be seen descends from it."""
    found: list[list[str]] = await probe(shared_sandbox, COMMANDS)

    assert len(found) <= 4  # the worker, the live process, two spares
    assert all("sandbox_image" in command for command in found)


async def test_there_are_no_processes_control() -> None:
    """In the host's own namespace the same cell sees this test run."""
    found: list[list[str]] = await told_in_another(COMMANDS, weakening=HOST_PROCESSES)

    assert any("pytest" in word for command in found for word in command)
