"""What is left of a run that a signal ends: its bill, and nothing else."""

import asyncio
import signal
from pathlib import Path

import pytest
from support.engine_proxy import EngineProxy
from support.model_server import Answer, ModelServer
from support.real_host import RealHost, cell

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WAIT_FOR_AN_ANSWER = cell("print(llm_query('wait'))")


def waiting_server() -> ModelServer:
    """Returns a server under which a run comes to wait for the answer to a query."""
    return ModelServer(root=[WAIT_FOR_AN_ANSWER], sub=lambda _prompt: Answer(delay_s=60))


@pytest.mark.parametrize("number", EXIT_CODES)
def test_signal_in_mid_run(host: RealHost, text: Path, number: signal.Signals) -> None:
    """The query is cancelled up to the provider, the sandbox destroyed, and the cost printed."""
    with (
        waiting_server() as server,
        host.start("run", "q", "--context", text, environment=host.environment(server)) as running,
    ):
        assert server.wait_until(lambda: bool(server.sub_requests), timeout_s=30)
        assert len(host.containers()) == 1
        running.send(number)
        ended = running.wait(timeout_s=20)
        left_over = host.leftovers()
        assert server.wait_until(lambda: server.disconnect_count == 1)

    assert (ended.exit_code, ended.stdout) == (EXIT_CODES[number], ""), ended.stderr
    assert f"{number.name}: ending the run and destroying its sandbox" in ended.stderr
    assert "Interrupted. Spent: 1 turn, 1 query" in ended.stderr
    assert "10 + 5 tokens" in ended.stderr
    assert left_over == []


@pytest.mark.parametrize("number", EXIT_CODES)
@pytest.mark.parametrize("request_line", [b"/containers/create", b"/start"])
async def test_signal_during_the_start(
    host: RealHost,
    engine_proxy: EngineProxy,
    text: Path,
    number: signal.Signals,
    request_line: bytes,
) -> None:
    """A sandbox that the engine is being asked for is undone as soon as it has answered."""
    engine_proxy.hold_up_at(request_line)
    with (
        waiting_server() as server,
        host.start(
            *("run", "q", "--context", text),
            environment=host.environment(server, DOCKER_HOST=engine_proxy.endpoint),
        ) as running,
    ):
        await asyncio.wait_for(engine_proxy.is_held(), 30)
        running.send(number)
        await asyncio.to_thread(running.wait_until_told, number.name)
        engine_proxy.let_go()
        ended = await asyncio.to_thread(running.wait, timeout_s=20)
        left_over = host.containers()

    assert (ended.exit_code, ended.stdout) == (EXIT_CODES[number], ""), ended.stderr
    assert "Interrupted. Spent: 0 turns, 0 queries" in ended.stderr
    assert left_over == []
    assert server.requests == []


@pytest.mark.parametrize("number", EXIT_CODES)
def test_signal_while_standard_input_is_read(host: RealHost, number: signal.Signals) -> None:
    """A command that waits for its context ends on a signal, without a traceback."""
    with host.start("run", "q", "--context", "-") as running:
        running.give(b"x" * 2**20, is_all=False)  # more than a pipe holds: it is being read
        running.send(number)
        ended = running.wait(timeout_s=20)

    # A shell says 130 and 143 of both: by its own number, and by what ended it.
    expected = {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM}
    assert (ended.exit_code, ended.stdout, ended.stderr) == (expected[number], "", "")


def test_signal_while_a_file_runs(host: RealHost, tmp_path: Path) -> None:
    """`rlm exec` ends as `rlm run` does."""
    (tmp_path / "cell.py").write_text("print(llm_query('wait'))")
    with (
        waiting_server() as server,
        host.start(
            *("exec", tmp_path / "cell.py", "--model", "sub-model"),
            environment=host.environment(server),
        ) as running,
    ):
        assert server.wait_until(lambda: bool(server.sub_requests), timeout_s=30)
        running.send(signal.SIGINT)
        ended = running.wait(timeout_s=20)

    assert (ended.exit_code, ended.stdout) == (130, ""), ended.stderr
    assert host.leftovers() == []


def test_killed_orchestrator(host: RealHost, text: Path) -> None:
    """After kill -9 the container ends by itself, and the next command removes all that is left."""
    with (
        waiting_server() as server,
        host.start("run", "q", "--context", text, environment=host.environment(server)) as running,
    ):
        assert server.wait_until(lambda: bool(server.sub_requests), timeout_s=30)
        (container_id,) = host.containers()
        running.send(signal.SIGKILL)
        assert running.wait(timeout_s=20).exit_code == -signal.SIGKILL

    host.engine.client.api.wait(container_id, timeout=20)
    assert not host.engine.state(container_id)["Running"]
    assert len(host.leftovers()) == 3  # container, socket directory, lock

    assert host.command("exec", text).exit_code == 0
    assert host.leftovers() == []
