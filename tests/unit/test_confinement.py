"""What a process of this very host gives up, tried in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from sandbox_image.repl import landlock
from sandbox_image.repl.confinement import Confinement

PRELUDE = """
import errno, fcntl, json, os, signal, socket, subprocess, sys, time
from pathlib import Path
from sandbox_image.repl.confinement import confine
from sandbox_image.repl.signalling import signal_by_thread

def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
"""
CONFINE = "found = confine(worker_pid=os.getppid(), hidden=Path('/usr/share'))\n"


def told(source: str) -> Any:  # noqa: ANN401 - JSON
    """Runs a script in a fresh interpreter; returns what it printed as JSON."""
    # A session of its own would make `setsid` fail, as it does for any leader of a group.
    script = f"{PRELUDE}if os.fork():\n    os.wait()\n    os._exit(0)\n{source}"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60
    )
    assert ended.stderr == b""
    return json.loads(ended.stdout)


def test_confined_process_finds_nothing_open() -> None:
    """All that is to be refused is, and it is found by trying."""
    found = Confinement.from_json(told(f"{CONFINE}print(json.dumps(found.as_json()))"))

    assert found == Confinement(
        open_calls=(),
        seccomp_mode=2,
        is_inspectable=False,
        landlock_abi=landlock.version() if landlock.version() > 1 else 0,
    )


def test_unconfined_process_finds_much_open() -> None:
    """As a control: without the filter the same attempts are let through, and do no harm."""
    found = told(
        "from sandbox_image.repl import system_call_filter\n"
        "system_call_filter.install = lambda *_: None\n"
        f"{CONFINE}print(json.dumps(found.as_json()))"
    )

    assert {"socket", "execve", "flock", "fcntl(F_SETLK)", "prlimit64(worker)"} <= set(
        found["open_calls"]
    )


REFUSED = """
[attempt(socket.socket), attempt(os.execv, sys.executable, ["python"]),
 attempt(subprocess.run, [sys.executable]), attempt(fcntl.flock, 0, fcntl.LOCK_EX),
 attempt(os.kill, os.getppid(), 0), attempt(os.setpriority, 2, 0, 0)]
"""


def test_children_inherit_it() -> None:
    """What a process has given up, none that comes from it gets back."""
    assert (
        told(
            f"{CONFINE}if os.fork():\n    os.wait()\n    os._exit(0)\nprint(json.dumps({REFUSED}))"
        )
        == ["EPERM"] * 6
    )


def test_refusals_control() -> None:
    """Before it gave them up the process is given each."""
    assert (
        told(
            "print(json.dumps([attempt(socket.socket),"
            " attempt(subprocess.run, [sys.executable, '-c', '0']),"
            " attempt(fcntl.flock, os.open('/tmp', 0), fcntl.LOCK_SH),"
            " attempt(os.kill, os.getppid(), 0), attempt(os.setpriority, 2, 0, 0)]), flush=True)"
        )
        == ["done"] * 5
    )


def test_processes_of_its_own_can_be_ended() -> None:
    """`os.kill` reaches a child by the one way that stays, and says what it always said."""
    assert told(
        f"signal_by_thread()\n{CONFINE}"
        "pid = os.fork()\n"
        "while pid == 0: time.sleep(1)\n"
        "ends = [attempt(os.kill, pid, 0), attempt(os.kill, pid, signal.SIGTERM)]\n"
        "ends.append(os.WTERMSIG(os.waitpid(pid, 0)[1]))\n"
        "ends += [attempt(os.kill, pid, 0), attempt(os.kill, -1, 0), attempt(os.kill, 0, 0)]\n"
        "try: os.kill('x', 9)\n"
        "except TypeError: ends.append('TypeError')\n"
        "print(json.dumps(ends))"
    ) == ["done", "done", 15, "ESRCH", "EPERM", "EPERM", "TypeError"]


def test_worker_whose_repl_process_cannot_be_confined_ends_in_words() -> None:
    """Without a wall that was to be put up nobody says hello, and the log says which it was."""
    script = (
        "import runpy, sys\n"
        "from sandbox_image.repl import system_call_filter\n"
        "def refuse(*_): raise OSError(22, 'no seccomp filter')\n"
        "system_call_filter.install = refuse\n"
        "runpy.run_module('sandbox_image', run_name='__main__', alter_sys=True)"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "token").write_text("0" * 64)
        ended = subprocess.run(
            [sys.executable, "-c", script, directory],
            capture_output=True,
            check=False,
            timeout=60,
            text=True,
        )

    assert ended.returncode == 1
    assert "the REPL process: it ended before it was confined" in ended.stderr
    assert "no seccomp filter" in ended.stderr


@pytest.mark.skipif(landlock.version() < 2, reason="this kernel has no Landlock to try")
def test_hidden_directory_is_out_of_reach() -> None:
    """Files below it are not opened; those beside it are, and directories are listed."""
    assert told(
        f"before = attempt(lambda: os.listdir('/usr/share'))\n{CONFINE}"
        "files = (path for path in Path('/usr/share').rglob('*')"
        " if path.is_file() and not path.is_symlink())\n"
        "print(json.dumps([before, attempt(next(files).read_bytes),"
        " attempt(Path('/etc/passwd').read_text), attempt(open, '/etc/new', 'w')]))"
    ) == ["done", "EACCES", "done", "EACCES"]
