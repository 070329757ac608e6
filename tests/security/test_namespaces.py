"""A cell that looks at what it shares with the host: names, devices, a terminal.

The list of what a tidy jail shows is sunwalker-box's, as far as it holds for a container.
"""

import asyncio
import os
from contextlib import closing
from pathlib import Path

import pytest
from support.docker_sandboxes import LIMITS, container_id_of, engine_client, told_in_another
from support.probes import probe
from support.runtimes import RuntimeUnderTest
from support.weakenings import (
    FOREIGN_INIT,
    HOST_NAMES,
    HOST_PROCESSES,
    NOTHING_ABOUT_MEMORY_PRESSURE,
    TERMINAL,
)

from orchestrator.ports import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

#: `user` is the host's unless the engine maps users; `time` is everybody's.
KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
NAMESPACES = f"tell({{kind: os.readlink('/proc/self/ns/' + kind) for kind in {KINDS}}})"

#: The domain's name is not in every kernel's /proc.
NODE_NAME = """
domain = "/proc/sys/kernel/domainname"
tell([os.uname().nodename,
      open(domain).read().strip() if os.path.exists(domain) else "(none)"])
"""
PLACES = "tell(sorted({line.strip().split(':', 2)[2] for line in open('/proc/self/cgroup')}))"

#: What a program may expect to find, and nothing that stands for hardware or a terminal in use.
DEVICES = {
    *("fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
    *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
}
#: What gVisor's own kernel has besides: neither leads to a device of the host.
DEVICES_OF_GVISOR = {"fuse", "net"}
USE_DEVICES_OF_GVISOR = """
import fcntl, struct
def be_a_network_device():
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", b"tap0", 0x1002))  # TUNSETIFF

def be_a_file_system():
    os.read(os.open("/dev/fuse", os.O_RDWR), 2**17)

tell([attempt(be_a_network_device), attempt(be_a_file_system)])
"""
#: Memory, ports, the kernel's log, KVM, disks: what a device file would be of use for.
MAKE_DEVICES = """
import stat
def use(kind, major, minor):
    path = f"/tmp/{kind}-{major}-{minor}"
    os.mknod(path, 0o600 | kind, os.makedev(major, minor))
    os.close(os.open(path, os.O_RDWR))

tell([attempt(use, *device) for device in (
    (stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 1, 2), (stat.S_IFCHR, 1, 4), (stat.S_IFCHR, 1, 11),
    (stat.S_IFCHR, 10, 232), (stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 7, 0), (stat.S_IFBLK, 254, 0),
)])
"""
LIST_DEVICES = "tell(os.listdir('/dev'))"
TERMINALS = """
tell([attempt(os.open, path, os.O_RDONLY) for path in ("/dev/console", "/dev/tty")])
"""

FIRST_PROCESS = "tell(open('/proc/1/cmdline').read().split('\\0')[0])"

PRESSURE = """
def read(*paths):
    for path in paths:
        if os.path.exists(path):
            return open(path).read().split()
    return None

group = "/sys/fs/cgroup/memory/memory."
tell({
    "score": read("/proc/1/oom_score_adj"),
    "own score": read("/proc/self/oom_score_adj"),
    "swappiness": read(group + "swappiness"),
    "killing": read(group + "oom_control"),
})
"""


def score_on_the_host(container_id: str) -> str:
    """Returns how gladly the host's kernel ends a container's first process (proc(5))."""
    with closing(engine_client()) as client:
        process_id = client.api.inspect_container(container_id)["State"]["Pid"]
    return Path(f"/proc/{process_id}/oom_score_adj").read_text("ascii").strip()


def namespace_of_host(kind: str) -> str:
    return str(Path(f"/proc/self/ns/{kind}").readlink())


@pytest.mark.runc_only("gVisor's namespaces are its own kernel's: none could be the host's")
async def test_every_namespace_is_the_sandboxs_own(shared_sandbox: Sandbox) -> None:
    """A cell shares none of the six with the host, so nothing that is named in them."""
    told = await probe(shared_sandbox, NAMESPACES)

    assert [kind for kind in KINDS if told[kind] == namespace_of_host(kind)] == []


async def test_every_namespace_control() -> None:
    """Where the host's were asked for, the same links are the host's."""
    told = await told_in_another(NAMESPACES, weakening=HOST_NAMES)

    shared = {kind for kind in KINDS if told[kind] == namespace_of_host(kind)}
    assert shared == {"cgroup", "ipc", "uts"}


async def test_the_host_is_not_named(shared_sandbox: Sandbox) -> None:
    """Neither the host's name nor the container's place on it is told."""
    assert await probe(shared_sandbox, NODE_NAME) == ["sandbox", "(none)"]
    assert set(await probe(shared_sandbox, PLACES)) <= {"/"}  # gVisor lists no group


async def test_the_host_is_named_control() -> None:
    """Where its namespaces were asked for, both are."""
    name, _ = await told_in_another(NODE_NAME, weakening=HOST_NAMES)
    assert name == os.uname().nodename

    assert await told_in_another(PLACES, weakening=HOST_NAMES) != ["/"]


async def test_whose_kernel_it_is(shared_sandbox: Sandbox, runtime: RuntimeUnderTest) -> None:
    """Under gVisor it is not the host's, whatever the engine calls the runtime."""
    release = await probe(shared_sandbox, "tell(os.uname().release)")

    assert (release != os.uname().release) is runtime.is_gvisor


async def test_no_device_is_there_but_the_harmless(
    shared_sandbox: Sandbox, runtime: RuntimeUnderTest
) -> None:
    """What is in /dev is a list that is known, and none of it is hardware."""
    found = set(await probe(shared_sandbox, LIST_DEVICES))

    assert found <= (DEVICES | DEVICES_OF_GVISOR if runtime.is_gvisor else DEVICES)


@pytest.mark.gvisor_only("runc's containers have neither")
async def test_devices_of_gvisor_cannot_be_used(shared_sandbox: Sandbox) -> None:
    """Whoever has opened one gains nothing: what they do needs capabilities, which nobody has."""
    assert set(await probe(shared_sandbox, USE_DEVICES_OF_GVISOR)) == {"EPERM"}


@pytest.mark.gvisor_only("under runc no device can be made: MKNOD is refused")
async def test_devices_that_a_cell_makes_lead_nowhere(bare_sandbox: Sandbox) -> None:
    """GVisor asks nobody for MKNOD: behind memory, KVM and disks of the host there is no driver."""
    assert set(await probe(bare_sandbox, MAKE_DEVICES)) == {"ENXIO"}


async def test_there_is_no_terminal(shared_sandbox: Sandbox) -> None:
    """No console and no controlling terminal: nothing can be typed into (CVE-2025-52565)."""
    console, own = await probe(shared_sandbox, TERMINALS)

    assert console == "ENOENT"
    assert own in {"ENXIO", "EIO"}  # of Linux and of gVisor: no process has one


async def test_there_is_no_terminal_control() -> None:
    """A container that was given a terminal has a console."""
    assert "console" in await told_in_another(LIST_DEVICES, weakening=TERMINAL)


async def test_the_worker_is_the_first_process(shared_sandbox: Sandbox) -> None:
    """PID 1, whom the kernel shields from the namespace's signals, is the worker itself."""
    assert await probe(shared_sandbox, FIRST_PROCESS) == "/usr/bin/python3.13"


async def test_the_worker_is_the_first_process_control() -> None:
    """With the engine's own first process the worker is another, and nobody shields it."""
    assert await told_in_another(FIRST_PROCESS, weakening=FOREIGN_INIT) != "/usr/bin/python3.13"


@pytest.mark.gvisor_only("the scores inside are gVisor's own: those that count are its threads'")
async def test_memory_pressure_ends_gvisor_before_the_host(shared_sandbox: Sandbox) -> None:
    """To the host's kernel the sandbox is one process, which goes before the host's own."""
    container_id = container_id_of(shared_sandbox)

    assert await asyncio.to_thread(score_on_the_host, container_id) == "500"


@pytest.mark.runc_only("the scores inside are gVisor's own: those that count are its threads'")
async def test_memory_pressure_ends_sandboxes_before_the_host(shared_sandbox: Sandbox) -> None:
    """A host short of memory takes a sandbox, of it the cell first, and swaps none of it out."""
    told = await probe(shared_sandbox, PRESSURE)

    assert told["score"] == ["500"]
    assert told["own score"] == ["1000"]
    assert told["swappiness"] in (["0"], None)  # version 2 has no such knob: swap.max is 0
    assert told["killing"] is None or told["killing"][:2] == ["oom_kill_disable", "0"]


async def test_memory_pressure_control() -> None:
    """Where nothing is asked for, a sandbox is worth as much as any process of the host."""
    told = await told_in_another(PRESSURE, limits=LIMITS, weakening=NOTHING_ABOUT_MEMORY_PRESSURE)

    assert told["score"] == ["0"]


async def test_processes_of_the_host_control() -> None:
    """With the host's processes in sight the first one is another."""
    assert await told_in_another(FIRST_PROCESS, weakening=HOST_PROCESSES) != "/usr/bin/python3.13"
