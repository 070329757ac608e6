"""A cell that asks the kernel for what the REPL process gave up before it: each thing, one by one.

The container's own filter is off here, or it would be the one to refuse most of it. Every attack is
tried twice: against the second stage alone, and without that as well; there it succeeds.
"""

import platform
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from support.broker_host import EchoQueries
from support.docker_sandboxes import open_provider, open_sandbox
from support.probes import goes_on, probe
from support.runtimes import RuntimeUnderTest, under_test
from support.second_stage import NO_CALL_FILTER, NO_SECOND_STAGE, together
from support.weakenings import NO_SECCOMP

from orchestrator.errors import SandboxStartError
from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: What the attacks are written with.
TOOLS = """
import ctypes, fcntl, platform, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"

def call(number, *arguments):
    "Makes a system call by its number on x86_64 and on aarch64."
    number = number[0 if X86 else 1]
    arguments = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def in_a_child(act):
    "Runs what would end or change its process in a process of its own; passes its error on."
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    ended = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(ended) and os.WEXITSTATUS(ended):
        raise OSError(os.WEXITSTATUS(ended), "in a child")

def image_file():
    "A file that every sandbox of the image has."
    return os.open("/etc/passwd", os.O_RDONLY)

def own_file():
    path = f"/tmp/own{time.monotonic_ns()}"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.unlink(path)
    return file

LOCK = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)

def started_by_posix_spawn():
    pid = os.posix_spawn("/usr/bin/python3.13", ["python3.13", "-c", "0"], {})
    if os.waitpid(pid, 0)[1]:
        raise OSError(errno.EPERM, "it did not run")

def from_a_file_in_memory():
    with open("/usr/bin/python3.13", "rb") as program:
        file = os.memfd_create("program")
        os.sendfile(file, program.fileno(), 0, os.fstat(program.fileno()).st_size)
    in_a_child(lambda: os.execve(file, ["python3.13", "-c", "0"], {}))

def by_the_old_door():
    "socketcall(2) of i386, SYS_SOCKET, by machine code: int 0x80 (x86_64 alone has that door)."
    import mmap
    low = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)  # below 2 GiB
    low.write(struct.pack("III", socket.AF_UNIX, socket.SOCK_STREAM, 0))
    base = ctypes.addressof(ctypes.c_char.from_buffer(low))
    code = (b"\\x53\\xb8\\x66\\0\\0\\0\\xbb\\x01\\0\\0\\0\\xb9" + struct.pack("I", base)
            + b"\\xcd\\x80\\x5b\\xc3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    result = run()
    if result < 0:
        raise OSError(-result, "refused")
    try:
        socket.socket(fileno=result).close()
    except OSError:  # it was taken for a call of the same number by the other door
        raise OSError(errno.EPERM, "no socket")
"""

SOCKETS = {
    "a TCP socket": "socket.socket(socket.AF_INET)",
    "a datagram socket": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "a Unix socket": "socket.socket(socket.AF_UNIX)",
    "a pair's end that lets go of the other": (
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "    call((42, 203), a.fileno(), bytes(16), 16)"  # connect(2) to AF_UNSPEC
    ),
    "a pair's end with a name": "socket.socketpair()[0].bind('/tmp/name'); os.unlink('/tmp/name')",
}
PROGRAMS = {
    "a program in place of this one": (
        "in_a_child(lambda: os.execv('/usr/bin/python3.13', ['python3.13', '-c', '0']))"
    ),
    "a program in a child": "subprocess.check_call(['/usr/bin/python3.13', '-c', '0'])",
    "a program by posix_spawn": "started_by_posix_spawn()",
    "a program from memory": "from_a_file_in_memory()",
}
LOCKS = {
    "a lock on a file of the image": "fcntl.flock(image_file(), fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "a record lock": "fcntl.lockf(own_file(), fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "a look at others' locks": "fcntl.fcntl(image_file(), fcntl.F_GETLK, LOCK)",
    "a lock of the open file": "fcntl.fcntl(image_file(), 37, LOCK)",  # F_OFD_SETLK
    "a lease": "fcntl.fcntl(own_file(), fcntl.F_SETLEASE, fcntl.F_WRLCK)",
    "a watch on a directory": (
        "fcntl.fcntl(os.open('/usr', os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_CREATE)"
    ),
}
SHARED = {
    "a watch by inotify": "os.close(call((294, 26), 0))",
}
OTHERS = {
    "the worker's limits": (
        "import resource\n    resource.prlimit(1, resource.RLIMIT_CORE, (0, 0))"
    ),
    "the worker's processors": "os.sched_setaffinity(1, os.sched_getaffinity(1))",
    "the worker's class": "os.sched_setscheduler(1, os.SCHED_OTHER, os.sched_param(0))",
    "the worker's priority": "os.setpriority(os.PRIO_PROCESS, 1, os.getpriority(0, 1))",
    "the priority of all of this user's": "os.setpriority(os.PRIO_USER, 0, os.getpriority(0, 1))",
    "the worker's disk priority": "call((251, 30), 1, 1, 0)",
}
UNDOING = {
    "a filter of its own": "call((157, 167), 22, 2, ctypes.byref(PROGRAM))",
    "its own inspection": "call((157, 167), 4, 1)",
    "adopting orphans": "call((157, 167), 36, 1)",
}
#: struct sock_fprog (linux/filter.h) of one instruction that allows everything.
OWN_FILTER = """
STEP = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

PROGRAM = Program(1, ctypes.addressof(STEP))
"""
ATTACKS = SOCKETS | PROGRAMS | LOCKS | SHARED | OTHERS | UNDOING


def attempting(statement: str) -> str:
    """Returns a cell that tells how a statement ends."""
    return f"{TOOLS}{OWN_FILTER}\ndef act():\n    {statement}\ntell(attempt(act))"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second_stage_alone(runtime: RuntimeUnderTest) -> AsyncIterator[Sandbox]:
    """A sandbox in which nobody but the REPL process itself refuses a call."""
    assert runtime == under_test()
    async with open_sandbox(weakening=NO_SECCOMP) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unfiltered(runtime: RuntimeUnderTest) -> AsyncIterator[Sandbox]:
    """A sandbox in which nobody at all does."""
    assert runtime == under_test()
    async with open_sandbox(weakening=together(NO_SECCOMP, NO_SECOND_STAGE)) as opened:
        yield opened


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_what_was_given_up_is_refused(second_stage_alone: Sandbox, attack: str) -> None:
    """The kernel refuses it, as an ordinary `PermissionError`."""
    assert await probe(second_stage_alone, attempting(attack)) in {"EPERM", "EACCES"}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_what_was_given_up_control(unfiltered: Sandbox, attack: str) -> None:
    """Where the REPL process gave nothing up the same cell gets it."""
    assert await probe(unfiltered, attempting(attack)) == "done"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has a 32-bit way in")
async def test_the_32_bit_way_in_is_closed(second_stage_alone: Sandbox) -> None:
    """By its old number and interrupt a socket is refused."""
    assert await probe(second_stage_alone, f"{TOOLS}\ntell(attempt(by_the_old_door))") == "EPERM"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 has a 32-bit way in")
async def test_the_32_bit_way_in_control(unfiltered: Sandbox) -> None:
    """Without the filter it is given one."""
    assert await probe(unfiltered, f"{TOOLS}\ntell(attempt(by_the_old_door))") == "done"


async def test_numbers_with_noise_are_no_way_past(second_stage_alone: Sandbox) -> None:
    """The kernel drops the upper half of a process's number, and so does the filter."""
    told = await probe(
        second_stage_alone,
        f"{TOOLS}\n"
        "noise = 0x7EADBEEF << 32\n"
        "tell([attempt(call, (62, 129), noise | pid, 0) for pid in (0, 1, 0xFFFFFFFF)]\n"
        "     + [attempt(call, (302, 261), noise | 1, 0, 0, 0)])",
    )

    assert told == ["EPERM"] * 4


async def test_what_the_filter_leaves_open_refuses_the_sandbox() -> None:
    """A REPL process that could give nothing up runs no cell: what it finds open is named.

    Its control is every control above: told of it, the same container starts.
    """
    unannounced = replace(NO_CALL_FILTER, walls=())
    async with open_provider(weakening=unannounced) as provider:
        with pytest.raises(SandboxStartError, match="repl_open_calls: promised"):
            async with provider.open(EchoQueries()):
                pass


async def test_what_was_found_is_stated(shared_sandbox: Sandbox, unfiltered: Sandbox) -> None:
    """The statement of controls says that nothing is left open, and names what is where some is."""
    walls = shared_sandbox.controls.walls

    assert (walls.repl_open_calls, walls.repl_seccomp_mode) == (frozenset(), 2)
    assert walls.is_repl_inspectable is False
    assert {"socket", "execve", "flock", "kill"} <= (
        unfiltered.controls.walls.repl_open_calls or frozenset()
    )
    assert unfiltered.controls.walls.is_repl_inspectable is True


async def test_refusals_cost_no_session(second_stage_alone: Sandbox) -> None:
    """After all of them the session answers, with what it held."""
    assert await goes_on(second_stage_alone)
