"""Forks a process that sleeps at once: its interpreter is told of the fork when it wakes.

Without it each checkpoint would run what Python does after a fork, although hardly one ever takes
over: 140 pages are written to or mapped for it, and are its own from then on. What Python asks for
is kept: nothing but what is below happens between the fork and `PyOS_AfterFork_Child`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from typing import Final

#: Keeps the interpreter's lock in every call, and the error of each.
_c = ctypes.PyDLL(None, use_errno=True)
_MSG_PEEK: Final = 2  # recv(2)
_peeked = ctypes.create_string_buffer(1)


def fork_asleep(*, closing: Sequence[int], waking: int) -> int:
    """Forks; the child returns when something can be read from a socket, and ends if that closes.

    It has a session of its own: one that a cell has stopped, in a group whose leader then ends,
    would be sent SIGHUP (setpgid(2)). To be called while there is one thread.

    Args:
        closing: Descriptors that the child closes before it sleeps.
        waking: The socket; what is there to be read stays there.

    Returns:
        The child's number, or 0 in the child.

    Raises:
        OSError: There is no process or no memory to spare.
    """
    _c.PyOS_BeforeFork()
    pid: int = _c.fork()
    if pid:
        failure = ctypes.get_errno()
        _c.PyOS_AfterFork_Parent()
        if pid < 0:
            raise OSError(failure, os.strerror(failure))
        return pid
    _c.setsid()
    for descriptor in closing:
        _c.close(descriptor)
    while (count := _c.recv(waking, _peeked, 1, _MSG_PEEK)) <= 0:
        if count == 0 or ctypes.get_errno() != errno.EINTR:
            os._exit(0)
    _c.PyOS_AfterFork_Child()
    return 0
