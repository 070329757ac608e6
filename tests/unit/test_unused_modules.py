"""A worker imports gRPC without what it never uses, the REPL process no asyncio before a cell."""

import subprocess
import sys

import pytest

_LEAVE_OUT = "from sandbox_image.unused_modules import leave_out; leave_out('grpc.aio', 'asyncio')"
_IMPORT = "import sandbox_image.worker, sandbox_image.query_calls"
_SAY = "import sys; print(*sorted({'asyncio.events', 'ssl', 'grpc.aio._call'} & set(sys.modules)))"


def said_by(*statements: str) -> list[str]:
    """Returns the words that a fresh interpreter prints that runs these."""
    done = subprocess.run(
        (sys.executable, "-c", "\n".join(statements)),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.split()


def test_worker_imports_no_asynchronous_half() -> None:
    """Neither asyncio nor TLS nor `grpc.aio` is there when everything of a worker is imported."""
    assert said_by(_LEAVE_OUT, _IMPORT, _SAY) == []


def test_worker_would_import_it_control() -> None:
    """Without being told, gRPC imports all of them: else the test above shows nothing."""
    assert said_by(_IMPORT, _SAY) == ["asyncio.events", "grpc.aio._call", "ssl"]


@pytest.mark.parametrize("wanted", ["asyncio.get_running_loop", "grpc.aio.insecure_channel"])
def test_what_is_wanted_after_all_is_there(wanted: str) -> None:
    """A stand-in that somebody uses is the module, so that no use of it can fail."""
    told = said_by(_LEAVE_OUT, "import asyncio, grpc", f"print({wanted}.__name__)")

    assert told == [wanted.rpartition(".")[2]]


def test_module_that_is_there_stays() -> None:
    """What has been imported before is not put away."""
    told = said_by("import asyncio", _LEAVE_OUT, "import asyncio", "print(asyncio.run.__name__)")

    assert told == ["run"]


def test_repl_process_imports_no_asyncio_before_a_cell() -> None:
    """Cells that await nothing do without: it is imported for the first that does."""
    assert said_by("import sandbox_image.repl.process", _SAY) == []
