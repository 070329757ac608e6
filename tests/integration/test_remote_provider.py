"""A run whose provider is another machine, as far as TCP can tell.

It is a container with a network of its own, reached over a bridge. testcontainers starts that
container, and never a sandbox.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import model_server
from support.model_server import ROOT_MODEL, SUB_MODEL
from support.real_host import RealHost, SandboxEngine
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

PORT = 8000
SCRIPT = """
[[root]]
text = '''
```repl
capitals = llm_query_batched([f"capital of {country}?" for country in context.split()])
FINAL(", ".join(capitals))
```
'''
[[sub]]
contains = "France"
text = "Paris"
[[sub]]
contains = "Peru"
text = "Lima"
"""


@pytest.fixture
def base_url(sandbox_engine: SandboxEngine, tmp_path: Path) -> Iterator[str]:
    """The address of a model server in a container; it has the image's Python and one file."""
    script = tmp_path / "script.toml"
    script.write_text(SCRIPT)
    script.chmod(0o644)  # read by the container's own user
    # The container that would clean up after this one comes from a registry, and is not needed:
    # leaving the context removes it.
    testcontainers_config.ryuk_disabled = True
    container = (
        DockerContainer(
            sandbox_engine.image.image_id,
            docker_client_kw={"environment": {"DOCKER_HOST": sandbox_engine.info.endpoint}},
            entrypoint=["/usr/bin/python3.13", "-I", "-S", "/srv/model_server.py"],
        )
        .with_command(f"--script /srv/script.toml --port {PORT} --host 0.0.0.0")
        .with_volume_mapping(Path(model_server.__file__), "/srv/model_server.py")
        .with_volume_mapping(script, "/srv/script.toml")
        .with_exposed_ports(PORT)
        .waiting_for(LogMessageWaitStrategy("listening on"))
    )
    with container as running:
        yield f"http://{running.get_container_host_ip()}:{running.get_exposed_port(PORT)}/v1"


def test_provider_over_tcp(host: RealHost, base_url: str, tmp_path: Path) -> None:
    """The real SDK asks a provider over the network, for a sandbox that has none."""
    context = tmp_path / "countries"
    context.write_text("France Peru")
    ended = host.command(
        *("run", "What are the capitals?", "--context", context),
        *("--model", ROOT_MODEL, "--sub-model", SUB_MODEL),
        environment=host.environment(OPENAI_BASE_URL=base_url),
    )

    assert (ended.exit_code, ended.stdout) == (0, "Paris, Lima\n"), ended.stderr
    assert "run ended (answered): 1 turn, 2 queries" in ended.stderr
