"""What whoever takes over a broker's process would try, run within one that is real and sealed.

A nursery begins here instead of in the product: it tries everything once before it gives anything
up, which is the control, and once more in the child after its seal. What is tried is told in the
log.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import mmap
import os
import resource
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from orchestrator.broker_process.confinement import Enclosure
from orchestrator.broker_process.nursery_main import main as run_nursery
from orchestrator.broker_process.serving import serve

#: Begins what a probing nursery logs.
TOLD: Final = "PROBED "
_DONE = "done"
_libc = ctypes.CDLL(None, use_errno=True)


class Targets:
    """What is tried on: files, sockets and processes of the test's own.

    The names of the keys of what it is made of, which crosses as JSON.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        """Takes what the test has laid out."""
        self.file = Path(told["file"])
        self.engine_socket = str(told["engine_socket"])
        self.abstract_socket = "\0" + str(told["abstract_socket"])
        self.tcp_port = int(told["tcp_port"])
        self.orchestrator_pid = int(told["orchestrator_pid"])


def _connect(family: socket.AddressFamily, address: Any) -> None:  # noqa: ANN401 - as sockets take
    with socket.socket(family) as client:
        client.settimeout(5)
        client.connect(address)


def _execute() -> None:
    # A path that is not there: where programs may be run the kernel looks for it, and says so.
    _libc.execve(b"/not/there", None, None)
    if ctypes.get_errno() != errno.ENOENT:
        raise OSError(ctypes.get_errno(), "execve")


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _read_memory_of(pid: int) -> None:
    """Reads nothing out of another process, which takes the right to read everything."""
    if _libc.process_vm_readv(pid, None, 0, None, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def _map(protection: int) -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=protection).close()


def _start_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def _make_user_namespace() -> None:
    """Asks for a namespace with an impossible flag beside it: EINVAL where asking is allowed."""
    _libc.unshare(ctypes.c_int(0x10000000 | 1))
    if ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), "unshare")


def probes(targets: Targets) -> dict[str, Callable[[], object]]:
    """Returns everything that is tried, by name."""
    process = Path("/proc") / str(targets.orchestrator_pid)
    return {
        "read a file": targets.file.read_bytes,
        "list a directory": lambda: list(targets.file.parent.iterdir()),
        "make a file": lambda: Path("made").write_bytes(b"x"),
        "read the orchestrator's environment": (process / "environ").read_bytes,
        "open the orchestrator's memory": lambda: (process / "mem").open("rb").close(),
        "reach into the orchestrator": lambda: _read_memory_of(targets.orchestrator_pid),
        "signal the orchestrator": lambda: os.kill(targets.orchestrator_pid, 0),
        "call the engine's socket": lambda: _connect(socket.AF_UNIX, targets.engine_socket),
        "call an abstract socket": lambda: _connect(socket.AF_UNIX, targets.abstract_socket),
        "call over TCP": lambda: _connect(socket.AF_INET, ("127.0.0.1", targets.tcp_port)),
        "run a program": _execute,
        "start a process": _fork,
        "map memory to run it": lambda: _map(mmap.PROT_READ | mmap.PROT_EXEC),
        "make a namespace": _make_user_namespace,
        # What it may do: without these, being refused would say nothing of the walls.
        "map memory": lambda: _map(mmap.PROT_READ | mmap.PROT_WRITE),
        "start a thread": _start_thread,
        "make a pair of sockets": socket.socketpair,
    }


def _tried(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    return _DONE


def _descriptors() -> list[str]:
    """Returns what kind of thing each open descriptor is, without a look at /proc."""
    kinds = []
    for number in range(1024):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        tests = {
            "socket": stat.S_ISSOCK,
            "pipe": stat.S_ISFIFO,
            "device": stat.S_ISCHR,
            "file": stat.S_ISREG,
            "directory": stat.S_ISDIR,
        }
        kinds.append(next((kind for kind, is_it in tests.items() if is_it(mode)), "of the kernel"))
    return sorted(kinds)


class _ProbedEnclosure(Enclosure):
    """Tries everything again once it is sealed."""

    targets: Targets
    control: dict[str, str]
    inner: Enclosure

    def __init__(self, inner: Enclosure) -> None:
        """Stands before the real one."""
        self.inner = inner
        self.root = inner.root

    def seal(self) -> tuple[str, ...]:
        # Before: what limits there are is nothing that serving needs to ask.
        limits = {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
            for name in ("NOFILE", "CORE", "FSIZE", "DATA")
        }
        walls = self.inner.seal()
        told = {
            "control": self.control,
            "sealed": {name: _tried(attempt) for name, attempt in probes(self.targets).items()},
            "environment": sorted(os.environ),  # noqa: TID251 - that it holds nothing is the rule
            "arguments": sys.orig_argv,
            "descriptors": _descriptors(),
            "uids": os.getresuid(),
            "limits": limits,
        }
        logging.getLogger("orchestrator.probe").critical("%s%s", TOLD, json.dumps(told))
        return walls


def probing_main(control_number: int, parent_pid: int, *, targets: dict[str, Any]) -> None:
    """Runs a nursery whose children tell what they can still do."""
    found = _ProbedEnclosure.targets = Targets(targets)
    # In a directory of its own, because one of them makes a file.
    os.chdir(found.file.parent)
    _ProbedEnclosure.control = {name: _tried(attempt) for name, attempt in probes(found).items()}

    def serve_one(end: socket.socket, enclosure: Enclosure) -> None:
        serve(end, _ProbedEnclosure(enclosure))

    run_nursery(control_number, parent_pid, serve_one=serve_one)


def entry_module(targets: dict[str, Any]) -> str:
    """Returns the source of a module whose `main` is the beginning of a probing nursery."""
    return f"""\
from functools import partial
from {__name__} import probing_main
main = partial(probing_main, targets={targets!r})
"""
