"""A worker imports gRPC without what it never uses, the REPL process no asyncio before a cell."""

import subprocess
import sys

import pytest

_LEAVE_OUT = "from sandbox_image.unused_modules import NEEDLESS, leave_out; leave_out(*NEEDLESS)"
_IMPORT = "import sandbox_image.worker, sandbox_image.query_calls"
#: What is imported with what is left out, and with nothing else.
_SIGNS = {"asyncio.events", "dis", "google.protobuf.text_format", "grpc.aio._call", "ssl"}
_SAY = f"import sys; print(*sorted({_SIGNS} & set(sys.modules)))"


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
    """None of it is there when everything of a worker is imported."""
    assert said_by(_LEAVE_OUT, _IMPORT, _SAY) == []


def test_worker_would_import_it_control() -> None:
    """Without being told, gRPC imports all of them: else the test above shows nothing."""
    assert set(said_by(_IMPORT, _SAY)) == _SIGNS


@pytest.mark.parametrize(
    "wanted", ["asyncio.get_running_loop", "grpc.aio.insecure_channel", "inspect.signature"]
)
def test_what_is_wanted_after_all_is_there(wanted: str) -> None:
    """A stand-in that somebody uses is the module, so that no use of it can fail."""
    told = said_by(_LEAVE_OUT, "import asyncio, grpc, inspect", f"print({wanted}.__name__)")

    assert told == [wanted.rpartition(".")[2]]


def test_module_that_is_there_stays() -> None:
    """What has been imported before is not put away."""
    told = said_by("import asyncio", _LEAVE_OUT, "import asyncio", "print(asyncio.run.__name__)")

    assert told == ["run"]


def test_repl_process_imports_no_asyncio_before_a_cell() -> None:
    """Cells that await nothing do without: it is imported for the first that does.

    So with what takes long and few cells use: a cell that does imports it.
    """
    rare = {"dataclasses", "tempfile", "difflib"}
    say = f"import sys; print(*sorted({_SIGNS | rare} & set(sys.modules)))"

    assert said_by("import sandbox_image.repl.process", say) == []
