"""What comes of a run that cannot be: what the user reads, the exit code, and nothing left."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.engine_proxy import EngineProxy
from support.model_server import Answer, ModelServer
from support.real_host import Ended, RealHost, cell

import orchestrator
from orchestrator import InputError
from orchestrator.sandbox.image_inputs import read_inputs

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

ANSWERED = cell("FINAL('answered')")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(root=[ANSWERED]) as serving:
        yield serving


def assert_refused(ended: Ended, *words: str, exit_code: int) -> None:
    """Holds what is promised of every refusal: nothing but one message, with these words in it."""
    assert ended.exit_code == exit_code, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith("rlm: ")
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr


@pytest.mark.parametrize("command", ["run", "exec"])
@pytest.mark.parametrize(
    ("docker_host", "came", "advice"),
    [
        ("unix:///nowhere/docker.sock", "nowhere/docker.sock: there is no such socket", "start"),
        ("unix:///etc/passwd", "/etc/passwd: the socket is there, but nobody listens", "start"),
        ("tcp://127.0.0.1:2375", "expected a unix:// address", "Linux host itself"),
    ],
    ids=["no-socket", "no-listener", "remote"],
)
def test_no_engine(  # noqa: PLR0917 - fixtures and a table
    host: RealHost,
    server: ModelServer,
    text: Path,
    command: str,
    docker_host: str,
    came: str,
    advice: str,
) -> None:
    """Without an engine nothing runs, unsealed least of all; the user reads where one was sought.

    No model is asked for anything, because nothing could run its cells.
    """
    arguments = ("run", "q", "--context", text) if command == "run" else ("exec", text)
    ended = host.call(*arguments, environment=host.environment(server, DOCKER_HOST=docker_host))

    assert_refused(ended, came, advice, exit_code=4)
    assert server.requests == []


async def test_engine_dies_in_mid_run(
    host: RealHost, engine_proxy: EngineProxy, text: Path
) -> None:
    """The draft is printed and the loss is told; the container ends, and the next command sweeps.

    Nobody can remove a container from an engine that is gone. Its worker ends with its stream.
    """
    replies = [cell("answer['content'] = 'so far'"), cell("llm_query('wait')")]
    with (
        ModelServer(root=replies, sub=lambda _prompt: Answer(delay_s=60)) as server,
        host.start(
            *("run", "q", "--context", text),
            environment=host.environment(server, DOCKER_HOST=engine_proxy.endpoint),
        ) as running,
    ):
        assert await asyncio.to_thread(
            server.wait_until, lambda: bool(server.sub_requests), timeout_s=30
        )
        (container_id,) = host.containers()
        await engine_proxy.go_away()
        ended = await asyncio.to_thread(running.wait)

    assert (ended.exit_code, ended.stdout) == (6, "so far\n"), ended.stderr
    assert "The Docker engine went away while the sandbox was running" in ended.stderr
    assert "Ended by sandbox_lost: " in ended.stderr
    assert f"container {container_id[:12]} is left to the sweep" in ended.stderr
    await asyncio.to_thread(host.engine.client.api.wait, container_id, timeout=20)
    swept = await asyncio.to_thread(host.command, "exec", text)
    assert swept.exit_code == 0, swept.stderr
    assert host.leftovers() == []


def test_container_dies_in_mid_run(host: RealHost, text: Path) -> None:
    """Whoever kills the container ends the run: the draft is printed, and what is known of why."""
    replies = [cell("answer['content'] = 'so far'"), cell("llm_query('wait')")]
    with (
        ModelServer(root=replies, sub=lambda _prompt: Answer(delay_s=60)) as server,
        host.start("run", "q", "--context", text, environment=host.environment(server)) as running,
    ):
        assert server.wait_until(lambda: bool(server.sub_requests), timeout_s=30)
        (container_id,) = host.containers()
        host.engine.client.api.kill(container_id)
        ended = running.wait()

    assert (ended.exit_code, ended.stdout) == (6, "so far\n"), ended.stderr
    assert "The container stopped with exit code 137: it was ended by signal 9." in ended.stderr
    assert "what is printed is the draft" in ended.stderr


@pytest.fixture
def other_code(tmp_path: Path) -> Path:
    """Copies the installed code, so that it can be changed."""
    folder = tmp_path / "code"
    read_inputs().write_folder(folder)
    installed = Path(orchestrator.__file__).parent
    shutil.copytree(installed, folder / "orchestrator", ignore=shutil.ignore_patterns("*.pyc"))
    # A wheel has it beside the code, and so has the copy; a source tree at its top.
    profile = installed.parent / "docker" / "seccomp.json"
    if profile.is_file():
        shutil.copy(profile, folder / "docker")
    return folder


def test_image_of_this_code_is_missing(
    host: RealHost, server: ModelServer, text: Path, other_code: Path
) -> None:
    """A worker that differs by one line never runs from another worker's image."""
    with (other_code / "sandbox_image" / "worker.py").open("a") as worker:
        worker.write("# one line more\n")
    path = f"{other_code}:{other_code / 'proto'}"
    ended = host.command(
        *("run", "q", "--context", text), environment=host.environment(server, PYTHONPATH=path)
    )

    assert_refused(ended, "The sandbox image is missing", "Run `rlm image build`", exit_code=4)
    assert server.requests == []


def test_image_of_this_code_control(
    host: RealHost, server: ModelServer, text: Path, other_code: Path
) -> None:
    """The same copy unchanged finds the image: the line made the difference, not the copying."""
    path = f"{other_code}:{other_code / 'proto'}"
    ended = host.command(
        *("run", "q", "--context", text), environment=host.environment(server, PYTHONPATH=path)
    )

    assert (ended.exit_code, ended.stdout) == (0, "answered\n"), ended.stderr


@pytest.mark.parametrize(
    ("data", "came", "advice"),
    [
        (None, "cannot be read: No such file or directory", "Name a file, a folder, or -"),
        (b"", "is empty", "Pass a text"),
        (b"%PDF-1.7\0\xff\xfe", "is binary: there is a NUL at offset 8", "extract it"),
        ("café".encode("latin-1"), "is not utf-8: the byte 0xe9 at offset 3", "--encoding latin-1"),
        ("text".encode("utf-16"), "begins with the mark of UTF-16 text", "--encoding utf-16"),
    ],
    ids=["missing", "empty", "binary", "latin-1", "utf-16"],
)
def test_context_that_is_no_text(  # noqa: PLR0917 - fixtures and a table
    host: RealHost, server: ModelServer, tmp_path: Path, data: bytes | None, came: str, advice: str
) -> None:
    """Half a file, mojibake or nothing is not asked about: it is refused before anything starts."""
    path = tmp_path / "context"
    if data is not None:
        path.write_bytes(data)
    ended = host.call(*("run", "q", "--context", path), environment=host.environment(server))

    assert_refused(ended, str(path), came, advice, exit_code=2)
    assert server.requests == []


def test_context_on_standard_input_is_empty(host: RealHost, server: ModelServer) -> None:
    """A pipe that brought nothing is told by its name."""
    ended = host.command(*("run", "q", "--context", "-"), environment=host.environment(server))

    assert_refused(ended, "standard input is empty".capitalize(), exit_code=2)
    assert server.requests == []


@pytest.fixture
def gigabyte(tmp_path: Path) -> Iterator[Path]:
    """Writes a text of 1 GB, and removes it again: pytest keeps what it finds."""
    path = tmp_path / "gigabyte"
    block = b"a line of plain text\n" * 100_000
    with path.open("wb") as file:
        while file.tell() < 10**9:
            file.write(block)
    yield path
    path.unlink()


@pytest.mark.slow
def test_context_of_a_gigabyte(host: RealHost, server: ModelServer, gigabyte: Path) -> None:
    """What the default sandbox cannot hold is refused unsent, and the size named instead does."""
    ended = host.command(
        *("run", "q", "--context", gigabyte, "--quiet"), environment=host.environment(server)
    )

    assert_refused(ended, "pass --memory ", exit_code=2)
    assert server.requests == []

    if psutil.virtual_memory().available < 6 * 2**30:
        pytest.skip("an answer over 1 GB takes 6 GiB: the text twice here, and twice in a sandbox")
    advised = ended.stderr.partition("pass --memory ")[2].split()[0]
    ended = host.command(
        *("run", "q", "--context", gigabyte, "--quiet", "--memory", advised),
        environment=host.environment(server),
    )
    assert (ended.exit_code, ended.stdout) == (0, "answered\n"), ended.stderr


def test_question_with_braces(host: RealHost, server: ModelServer, text: Path) -> None:
    """No character of a question means anything to us: it reaches the model as it was typed."""
    question = "What is {context}, {0}, {{x}}, %s, $HOME and ```repl?"
    ended = host.call(*("run", question, "--context", text), environment=host.environment(server))

    assert ended.exit_code == 0, ended.stderr
    assert question in server.root_requests[0].prompt


def test_question_with_nul(host: RealHost, server: ModelServer) -> None:
    """A NUL, which no command line can pass, is replaced: providers refuse it."""
    result = host.rlm(server).completion("x", "What\0is it?")

    assert result.answer == "answered"
    assert "What\N{REPLACEMENT CHARACTER}is it?" in server.root_requests[0].prompt


def test_question_that_is_a_text(host: RealHost, server: ModelServer, text: Path) -> None:
    """A question that would be paid for again with every turn is refused, and told where to go."""
    ended = host.call(
        *("run", "q" * 120_000, "--context", text), environment=host.environment(server)
    )

    assert_refused(
        ended, "has 120,000 characters", "pass the long text as the context", exit_code=2
    )
    assert server.requests == []


def test_question_of_ten_megabytes(host: RealHost, server: ModelServer) -> None:
    """Ten megabytes, more than a command line holds, are refused in a program as well."""
    with pytest.raises(InputError, match="10,000,000 characters"):
        host.rlm(server).completion("x", "q" * 10_000_000)

    assert server.requests == []


def test_prompt_of_ten_megabytes_is_its_own_question(host: RealHost) -> None:
    """As a context that says itself what to do, the same length is answered."""
    prompt = b"What comes most?\n" + b"filler\n" * 1_500_000
    source = "import collections\nFINAL(collections.Counter(context.splitlines()).most_common(1))"
    with ModelServer(root=[cell(source)]) as server:
        ended = host.command(
            *("run", "--context", "-"), stdin=prompt, environment=host.environment(server)
        )
        told = server.root_requests[0].prompt

    assert (ended.exit_code, ended.stdout) == (0, "[('filler', 1500000)]\n"), ended.stderr
    assert "What comes most?" in told
    assert len(told) < 10_000
