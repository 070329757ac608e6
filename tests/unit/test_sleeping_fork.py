"""A process that sleeps from its fork on: what it does when it wakes, and when it never will."""

from __future__ import annotations

import subprocess
import sys

#: Forks one; what `then` says is done by the parent, and what the child tells comes to a pipe.
_PROGRAM = """
import os, signal, socket, time
from sandbox_image.repl import sleeping_fork
read_end, write_end = os.pipe()
os.set_inheritable(write_end, True)
os.register_at_fork(after_in_child=lambda: os.write(write_end, b"woken "))
signal.signal(signal.SIGCHLD, lambda *_: None)
near, far = socket.socketpair()
extra = os.open("/dev/null", os.O_RDONLY)
pid = sleeping_fork.fork_asleep(closing=[far.fileno(), extra], waking=near.fileno())
if not pid:
    said = [near.recv(9), os.getsid(0) == os.getpid(), os.path.exists(f"/proc/self/fd/{extra}")]
    os.write(write_end, repr(said).encode())
    os._exit(7)
near.close()
os.close(write_end)
time.sleep(0.1)
%s
far.close()
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(status, os.read(read_end, 1000).decode())
"""


def told_after(*then: str) -> str:
    """Returns how the child ended and what it told."""
    done = subprocess.run(
        (sys.executable, "-c", _PROGRAM % "\n".join(then)),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_process_that_is_woken_goes_on_as_after_any_fork() -> None:
    """It finds what woke it, has a session of its own, and what it was to close is closed."""
    assert told_after("far.send(b'command')") == "7 woken [b'command', True, False]"


def test_process_that_is_never_woken_ends_in_its_sleep() -> None:
    """Once nobody can wake it, it is gone, and nothing was ever done in it."""
    assert told_after() == "0"


def test_signal_does_not_wake_it() -> None:
    """A signal with a handler, as a cell may send, neither ends nor wakes it."""
    then = ("os.kill(pid, signal.SIGCHLD)", "time.sleep(0.1)", "far.send(b'command')")

    assert told_after(*then) == "7 woken [b'command', True, False]"


def test_fork_that_is_refused_is_an_error() -> None:
    """Where the kernel makes no process, the caller is told why, and can go on importing."""
    refused = """
import ctypes, errno
from sandbox_image.repl import sleeping_fork
def refuse():
    ctypes.set_errno(errno.EAGAIN)
    return -1
sleeping_fork._c.fork = refuse
try:
    sleeping_fork.fork_asleep(closing=[], waking=-1)
except OSError as error:
    import colorsys
    print(errno.errorcode[error.errno])
"""
    done = subprocess.run(
        (sys.executable, "-c", refused), check=True, capture_output=True, text=True, timeout=60
    )

    assert done.stdout == "EAGAIN\n"
