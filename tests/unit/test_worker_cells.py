"""The worker and its REPL process as real processes of this host, without a container."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripted_broker import ScriptedBroker

from rlm_sandbox.v1 import sandbox_pb2 as pb

_MIB = 2**20


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short, because the path of a Unix socket holds 108 bytes at most (unix(7)).
    with tempfile.TemporaryDirectory(prefix="rlm", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def broker(directory: Path) -> Iterator[ScriptedBroker]:
    with ScriptedBroker(directory) as started:
        yield started


def _wait_for_output(broker: ScriptedBroker, text: bytes) -> None:
    """Waits until the running cell has printed `text`."""
    message = broker.next_message()
    assert message.HasField("cell_output"), message
    assert text in message.cell_output.data


def test_names_bound_by_one_cell_are_visible_to_the_next(broker: ScriptedBroker) -> None:
    """A session has one live interpreter."""
    broker.run("import collections\nfound = collections.Counter('abca')")

    result, stdout, _ = broker.run("print(found['a'])")

    assert (result.outcome, result.state) == (pb.OUTCOME_SUCCEEDED, pb.VARIABLE_STATE_KEPT)
    assert stdout == b"2\n"


def test_hello_tells_the_walls_and_the_token(broker: ScriptedBroker) -> None:
    """The worker shows its token, and says what it finds before it has read anything."""
    assert broker.metadata["rlm-session-token"] == "0123456789abcdef" * 4
    assert broker.worker_hello.walls.HasField("seccomp_mode")
    assert "lo" in broker.worker_hello.walls.network_interfaces


def test_sequence_has_no_gaps(broker: ScriptedBroker) -> None:
    """Messages count from 1 without gaps, output and results alike."""
    broker.run("print(1)")
    broker.run("1/0")

    assert [message.sequence for message in broker.heard] == [*range(1, len(broker.heard) + 1)]


def test_output_is_forwarded_while_the_cell_runs(broker: ScriptedBroker) -> None:
    """What a cell prints is seen before it ends, on both streams."""
    broker.start("import sys\nprint('early')\nn = 0\nwhile True: n += 1")
    _wait_for_output(broker, b"early")
    broker.stop()

    result, _, _ = broker.finish()

    assert result.outcome == pb.OUTCOME_TIMED_OUT


def test_output_below_python_is_captured_too(broker: ScriptedBroker) -> None:
    """A cell's own descriptors 1 and 2 are read, whatever writes to them."""
    _, stdout, stderr = broker.run("import os\nos.write(1, b'one')\nos.write(2, b'two')")

    assert (stdout, stderr) == (b"one", b"two")


def test_flood_keeps_both_ends_and_states_the_rest(broker: ScriptedBroker) -> None:
    """Output over the limit loses its middle; the number of lost bytes is exact."""
    limit = broker.limits.output_bytes
    result, stdout, _ = broker.run("for i in range(200_000): print(f'{i:09d}')\nprint('END')")

    total = 200_000 * 10 + len("END\n")
    assert len(stdout) == limit
    assert result.dropped_stdout_bytes == total - limit
    assert stdout.startswith(b"000000000\n")
    assert stdout.endswith(b"END\n")


def test_lone_surrogate_can_be_printed(broker: ScriptedBroker) -> None:
    """Output never fails on what a string may hold."""
    result, stdout, _ = broker.run("print('a\\ud800b')")

    assert (result.outcome, stdout) == (pb.OUTCOME_SUCCEEDED, b"a\\ud800b\n")


def test_error_shows_the_cells_own_frames_only(broker: ScriptedBroker) -> None:
    """A traceback has the cell's lines and none of the platform's."""
    result, _, _ = broker.run("def f(x):\n    return 1 / x\nf(0)")

    assert result.outcome == pb.OUTCOME_RAISED
    assert result.error.type_name == "ZeroDivisionError"
    assert "return 1 / x" in result.error.traceback
    assert "sandbox_image" not in result.error.traceback


def test_refused_cell_runs_nothing(broker: ScriptedBroker) -> None:
    """A cell the compiler refuses leaves no trace but its error."""
    result, stdout, _ = broker.run("print('ran')\nif True print('no')")

    assert (result.outcome, stdout) == (pb.OUTCOME_REJECTED, b"")
    assert result.error.type_name == "SyntaxError"


def test_interrupted_cell_runs_finally_and_keeps_its_variables(broker: ScriptedBroker) -> None:
    """An interrupt is an exception in the cell; what it computed stays."""
    broker.start(
        "n = 1\ntry:\n    print('in')\n    while True: n += 1\nfinally:\n    done = 'cleaned up'"
    )
    _wait_for_output(broker, b"in")
    broker.stop()

    result, _, _ = broker.finish()
    _, stdout, _ = broker.run("print(done)")

    assert (result.outcome, result.state) == (pb.OUTCOME_TIMED_OUT, pb.VARIABLE_STATE_KEPT)
    assert result.error.type_name == "TimeoutError"
    assert stdout == b"cleaned up\n"


def test_cell_that_eats_the_interrupt_is_killed_and_rolled_back(broker: ScriptedBroker) -> None:
    """After the grace the interpreter is killed, and the variables are as before the cell."""
    broker.run("x = 'before'")
    # It says so inside the `try`, so that the interrupt cannot come before it.
    broker.start(
        "import time\nx = 'after'\nwhile True:\n"
        "    try:\n        print('in')\n        time.sleep(60)\n"
        "    except KeyboardInterrupt: pass"
    )
    _wait_for_output(broker, b"in")
    broker.stop()

    result, _, _ = broker.finish()
    _, stdout, _ = broker.run("print(x)")

    assert (result.outcome, result.state) == (pb.OUTCOME_TIMED_OUT, pb.VARIABLE_STATE_ROLLED_BACK)
    assert "stopped after" in result.error.message
    assert stdout == b"before\n"


def test_stop_by_the_caller_has_its_own_outcome(broker: ScriptedBroker) -> None:
    """A cell the caller stops did not time out."""
    broker.start("print('in')\nn = 0\nwhile True: n += 1")
    _wait_for_output(broker, b"in")
    broker.stop(pb.STOP_REASON_CANCELLED)

    result, _, _ = broker.finish()

    assert result.outcome == pb.OUTCOME_STOPPED


def test_stop_for_an_ended_cell_is_ignored(broker: ScriptedBroker) -> None:
    """The end of a cell and the order to stop it may cross."""
    broker.run("x = 1")
    broker.stop()

    result, stdout, _ = broker.run("print(x)")

    assert (result.outcome, stdout) == (pb.OUTCOME_SUCCEEDED, b"1\n")


@pytest.mark.parametrize(
    ("source", "type_name"),
    [
        ("import os\nos._exit(3)", "InterpreterExit"),
        ("import os, sys\nos.kill(os.getpid(), 11)", "InterpreterKilled"),
        ("import os\nos.kill(os.getpid(), 9)", "InterpreterKilled"),
    ],
)
def test_dead_interpreter_costs_only_its_cell(
    broker: ScriptedBroker, source: str, type_name: str
) -> None:
    """A session survives the death of its interpreter, again and again."""
    broker.bind(b"the context", kind=pb.CONTEXT_KIND_TEXT)
    broker.run("x = 1")
    for _ in range(3):
        result, _, _ = broker.run(f"x = 2\n{source}")

        assert (result.outcome, result.state) == (pb.OUTCOME_KILLED, pb.VARIABLE_STATE_ROLLED_BACK)
        assert result.error.type_name == type_name
    _, stdout, _ = broker.run("print(x, context)")

    assert stdout == b"1 the context\n"


def test_lost_variables_are_said_to_be_lost(broker: ScriptedBroker) -> None:
    """While threads live no checkpoint can be taken; a death then costs the variables, said so."""
    broker.bind(b"the context", kind=pb.CONTEXT_KIND_TEXT)
    broker.run("x = 1")
    broker.run(
        "import threading\nhold = threading.Event()\n"
        "threading.Thread(target=hold.wait, daemon=True).start()"
    )

    result, _, _ = broker.run("import os\nos._exit(1)")
    _, stdout, _ = broker.run("print('x' in globals(), context)")

    assert result.state == pb.VARIABLE_STATE_LOST
    assert stdout == b"False the context\n"


def test_too_much_memory_is_an_exception_in_the_cell(directory: Path) -> None:
    """The soft limit is hit before the kernel's: the cell gets a MemoryError and goes on."""
    with ScriptedBroker(directory, memory_bytes=256 * _MIB) as broker:
        broker.run("x = 1")
        result, _, _ = broker.run("x = 2\nbig = 'a' * 300_000_000")
        _, stdout, _ = broker.run("print(x)")

    assert (result.outcome, result.state) == (pb.OUTCOME_RAISED, pb.VARIABLE_STATE_KEPT)
    assert result.error.type_name == "MemoryError"
    assert "smaller pieces" in result.error.message
    assert stdout == b"2\n"


def test_memory_within_the_limit_control(directory: Path) -> None:
    """The same cell succeeds where the memory is there, so the limit is what stopped it."""
    with ScriptedBroker(directory, memory_bytes=1024 * _MIB) as broker:
        result, _, _ = broker.run("big = 'a' * 300_000_000")

    assert result.outcome == pb.OUTCOME_SUCCEEDED


def test_processes_a_cell_leaves_behind_end_with_it(broker: ScriptedBroker) -> None:
    """A double fork into a session of its own does not outlive the cell."""
    _, stdout, _ = broker.run(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "time.sleep(0.2)"
    )
    pid = int(stdout)
    deadline_s = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
        broker.run("pass")

    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pb.CONTEXT_KIND_JSON, {"a": [1, None, "ü"]}),
        (pb.CONTEXT_KIND_DOCUMENTS, ["one", "two"]),
        (pb.CONTEXT_KIND_MESSAGES, [{"role": "user", "content": "hi"}]),
    ],
)
def test_structured_contexts_arrive_as_values(
    broker: ScriptedBroker, kind: pb.ContextKind.ValueType, value: object
) -> None:
    """Lists, dicts and messages are Python values in the cell."""
    broker.bind(json.dumps(value).encode(), kind=kind)

    _, stdout, _ = broker.run("import json\nprint(json.dumps(context))")

    assert json.loads(stdout) == value


def test_large_context_arrives_whole(broker: ScriptedBroker) -> None:
    """40 MB of text cross in pieces, cut anywhere, and are one `str`."""
    text = "añb€" * 8_000_000
    broker.bind(text.encode(), kind=pb.CONTEXT_KIND_TEXT)

    _, stdout, _ = broker.run("print(len(context), context[:4], context[-4:])")

    assert stdout.decode() == f"{len(text)} añb€ añb€\n"


@pytest.mark.parametrize("text", ["añb€" * 2_000_000, "x" * 8_000_000, "x" * 8_000_000 + "€"])
def test_context_in_a_file_is_what_it_was(broker: ScriptedBroker, text: str) -> None:
    """A text that is a file is one `str`, whatever is in it; one without any is empty."""
    broker.bind_file(text.encode(), kind=pb.CONTEXT_KIND_TEXT)
    broker.bind_file(b"", kind=pb.CONTEXT_KIND_TEXT, name="empty", aliases=["other"])

    _, stdout, _ = broker.run("print(len(context), context[:4], context[-4:], [empty, other])")

    assert stdout.decode() == f"{len(text)} {text[:4]} {text[-4:]} ['', '']\n"


def test_context_in_a_file_outlives_a_cell(broker: ScriptedBroker) -> None:
    """What takes over after a cell that killed its process has the context."""
    broker.bind_file(b'[{"name": "a",\n"text": "x"}]', kind=pb.CONTEXT_KIND_DOCUMENTS)
    killed, _, _ = broker.run("import os\nos._exit(3)")

    _, stdout, _ = broker.run("print(context)")

    assert killed.outcome == pb.OUTCOME_KILLED
    assert stdout == b"[{'name': 'a', 'text': 'x'}]\n"


def test_cell_finds_nothing_of_the_file_of_a_context(broker: ScriptedBroker) -> None:
    """A context's file is closed before a cell runs."""
    probe = "import os\nprint(sorted(os.listdir('/proc/self/fd')))"
    _, before, _ = broker.run(probe)
    broker.bind_file(b"x" * 2_000_000, kind=pb.CONTEXT_KIND_TEXT)
    _, after, _ = broker.run(probe)

    assert before == after != b""


@pytest.mark.parametrize("length", [0, 2])
def test_context_file_of_another_length_ends_the_worker(
    broker: ScriptedBroker, length: int
) -> None:
    """A context that is not what was announced is never bound."""
    (broker.directory / "context").write_bytes(b"x" * length)
    broker.send(
        context_file=pb.ContextFile(name="context", kind=pb.CONTEXT_KIND_TEXT, total_bytes=1)
    )

    assert "another length" in broker.wait_for_end()


def test_context_file_that_is_missing_ends_the_worker(broker: ScriptedBroker) -> None:
    """Where nothing lies, the worker says what it missed."""
    broker.send(
        context_file=pb.ContextFile(name="context", kind=pb.CONTEXT_KIND_TEXT, total_bytes=1)
    )

    assert "'context' cannot be read" in broker.wait_for_end()


def test_wrong_digest_ends_the_worker(broker: ScriptedBroker) -> None:
    """A context that is not what was sent is never bound."""
    broker.send(
        context_chunk=pb.ContextChunk(
            name="context",
            kind=pb.CONTEXT_KIND_TEXT,
            total_bytes=1,
            data=b"x",
            sha256=bytes(32),
        )
    )

    assert "another digest" in broker.wait_for_end()


@pytest.mark.parametrize(
    "spoiler",
    [
        "context = 'mine'",
        "del context",
        "llm_query = None",
        "FINAL = print",
        "answer = {'content': 'kept', 'ready': False}",
        "import sys\nsys.stdout = None",
        "__builtins__ = {}",
    ],
)
def test_reserved_names_are_restored_after_each_cell(broker: ScriptedBroker, spoiler: str) -> None:
    """A cell that rebinds what the platform gave spoils nothing for the next."""
    broker.bind(b"original", kind=pb.CONTEXT_KIND_TEXT)
    broker.run(spoiler)

    result, stdout, _ = broker.run("print(context, llm_query('q'), type(answer).__name__)")

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
    assert stdout == b"original echo: q dict\n"


def test_worker_ends_with_its_broker(directory: Path) -> None:
    """A worker whose stream ends leaves nothing running."""
    with ScriptedBroker(directory) as broker:
        broker.start("import time\nprint('in')\ntime.sleep(600)")
        _wait_for_output(broker, b"in")

    assert broker.worker.returncode == 1
    assert "the broker ended the stream" in broker.last_words


def test_source_that_keeps_the_parser_busy_can_be_stopped(broker: ScriptedBroker) -> None:
    """Compiling is part of a cell: it ends with the cell's clock and costs nothing but the cell."""
    broker.run("x = 'before'")
    broker.start("f'{" * 100_000)
    broker.stop()

    result, _, _ = broker.finish()
    _, stdout, _ = broker.run("print(x)")

    assert result.outcome in {pb.OUTCOME_TIMED_OUT, pb.OUTCOME_REJECTED}
    assert stdout == b"before\n"


def test_name_bound_by_an_earlier_cell_shadows_a_refused_builtin(broker: ScriptedBroker) -> None:
    """A cell's own `input` is a name like any other, in later cells too."""
    broker.run("def input(): return 'mine'")

    result, stdout, _ = broker.run("print(input())")

    assert (result.outcome, stdout) == (pb.OUTCOME_SUCCEEDED, b"mine\n"), result.error


def test_context_without_room_ends_the_worker_and_is_named(directory: Path) -> None:
    """A context that does not fit is never silently left out, nor blamed on a cell."""
    with ScriptedBroker(directory, memory_bytes=160 * _MIB) as broker:
        broker.bind(b"x" * (100 * _MIB), kind=pb.CONTEXT_KIND_TEXT)
        broker.start("print(len(context))")

        assert "the context could not be bound" in broker.wait_for_end()


def test_context_with_room_control(directory: Path) -> None:
    """The same context is bound where the memory is there."""
    with ScriptedBroker(directory, memory_bytes=512 * _MIB) as broker:
        broker.bind(b"x" * (100 * _MIB), kind=pb.CONTEXT_KIND_TEXT)
        _, stdout, _ = broker.run("print(len(context))")

    assert int(stdout) == 100 * _MIB


_ODD_TYPE = (
    "class Meta(type):\n    __hash__ = None\n    {member}\n"
    "class Odd(metaclass=Meta): pass\nodd = Odd()"
)


@pytest.mark.parametrize(
    "source",
    [
        "view = memoryview(b'abc')\nview.release()",
        "many = range(10**30)",
        "globals()[5] = 'five'",
        _ODD_TYPE.format(member="__name__ = property(lambda cls: 1 / 0)"),
        _ODD_TYPE.format(member="def __eq__(cls, other): 1 / 0"),
        "class Odd:\n    __class__ = property(lambda self: 1 / 0)\nodd = Odd()",
    ],
    ids=["released", "too-long", "no-name", "name-of-type", "comparison", "class"],
)
def test_variable_that_cannot_be_described_costs_nothing(
    broker: ScriptedBroker, source: str
) -> None:
    """Variables are described without running a line of theirs, so none can end the session."""
    result, _, stderr = broker.run(f"kept = 7\n{source}")
    _, stdout, _ = broker.run("print(kept)")

    assert (result.outcome, stderr) == (pb.OUTCOME_SUCCEEDED, b"")
    assert stdout == b"7\n"


def test_error_whose_type_hides_its_name_is_told(broker: ScriptedBroker) -> None:
    """An error is named by its type, whatever the type's own type says."""
    result, _, _ = broker.run(
        "class Meta(type):\n    __name__ = property(lambda cls: 5)\n"
        "class Odd(Exception, metaclass=Meta): pass\nraise Odd('why')"
    )

    assert (result.error.type_name, result.error.message) == ("Odd", "why")


def test_main_module_is_the_cells_own(broker: ScriptedBroker) -> None:
    """What looks up a name by its module finds what cells define, and nothing of the worker."""
    result, stdout, _ = broker.run(
        "import sys, typing\n"
        "class Node:\n    next: 'Node'\n"
        "main = vars(sys)['modules']['__main__']\n"
        "print(typing.get_type_hints(Node)['next'] is Node, vars(main) is globals())"
    )

    assert (result.outcome, stdout) == (pb.OUTCOME_SUCCEEDED, b"True True\n"), result.error


def test_query_of_a_process_that_a_cell_started_is_refused(broker: ScriptedBroker) -> None:
    """A fork of the REPL process does not take answers from the channel, and is told what to do."""
    result, stdout, _ = broker.run(
        "import os\n"
        "near, far = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    try:\n        llm_query('any?')\n"
        "    except RuntimeError as error:\n        os.write(far, str(error).encode())\n"
        "    os._exit(0)\n"
        "os.wait()\nprint(os.read(near, 4096).decode())"
    )

    assert result.outcome == pb.OUTCOME_SUCCEEDED, result.error
    assert b"llm_query_batched" in stdout
