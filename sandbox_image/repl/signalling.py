"""`os.kill` for the processes of cells, whose kernel takes no kill(2) from them.

Without it `multiprocessing` could not end its own processes: `terminate` and `kill` call `os.kill`.
"""

from __future__ import annotations

import errno
import os

from sandbox_image.repl.system_calls import make_system_call, this_machine


def signal_by_thread() -> None:
    """Makes `os.kill` send its signal to the first thread of a process.

    What ends, stops or continues a process does so whichever of its threads it was sent to
    (signal(7)).
    """
    number = this_machine().numbers["tgkill"]

    def kill(pid: int, signal: int, /) -> None:
        """Sends a signal to one process; groups, and all processes at once, are refused."""
        if pid <= 0:
            raise PermissionError(errno.EPERM, "a cell may signal one process at a time")
        result, error = make_system_call(number, pid, pid, signal)
        if result != 0:
            raise OSError(error, os.strerror(error))

    os.kill = kill
