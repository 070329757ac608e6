"""What comes of a run whose provider refuses, is away, is slow or answers nonsense."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.model_server import ROOT_MODEL, Answer, ModelServer, failure, raw_json
from support.real_host import KEY, RealHost, cell

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

REFUSED_KEY = failure(401, f"Incorrect API key provided: {KEY}", code="invalid_api_key")
SLOW = Answer(delay_s=30)
HTML = Answer(body=b"<html><title>Sign in</title></html>", content_type="text/html")
TRUNCATED = Answer(body=b'{"choices": [{"message": {"content": "FINAL')
BROKEN_OFF = Answer(text="FINAL", promised_extra_bytes=100)
NO_CHOICES = raw_json({"choices": []})


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(root=[cell("FINAL('answered')")]) as serving:
        yield serving


@pytest.mark.parametrize(
    ("answer", "came", "advice"),
    [
        pytest.param(REFUSED_KEY, "status 401", "Set OPENAI_API_KEY to a key that", id="key"),
        pytest.param(
            SLOW, "nothing whole within 1 s", "RLM_PROVIDER__REQUEST_TIMEOUT_S", id="slow"
        ),
        pytest.param(failure(503), "status 503", "Run again later", id="down-behind-a-proxy"),
        pytest.param(HTML, "a body that is not JSON", "Check OPENAI_BASE_URL", id="html"),
        pytest.param(TRUNCATED, "a body that is not JSON", "Check OPENAI_BASE_URL", id="truncated"),
        pytest.param(BROKEN_OFF, "no connection", "Check OPENAI_BASE_URL", id="broken-off"),
        pytest.param(NO_CHOICES, "without choices", "Check OPENAI_BASE_URL", id="no-choices"),
    ],
)
def test_root_model_gives_no_first_reply(  # noqa: PLR0917 - fixtures and a table
    host: RealHost, server: ModelServer, text: Path, answer: Answer, came: str, advice: str
) -> None:
    """The user reads what was expected, what came and what to do, and never a key; exit code 5."""
    server.next_answers.append(answer)
    ended = host.call(
        *("run", "q", "--context", text, "--quiet"),
        environment=host.environment(server, RLM_PROVIDER__REQUEST_TIMEOUT_S="1"),
    )

    assert (ended.exit_code, ended.stdout) == (5, ""), ended.stderr
    assert ended.stderr.startswith(f"rlm: expected a reply from model '{ROOT_MODEL}' at 127.0.0.1")
    assert came in ended.stderr
    assert advice in ended.stderr
    assert KEY not in ended.stderr


def test_model_that_the_provider_does_not_know(
    host: RealHost, server: ModelServer, text: Path
) -> None:
    """A misspelt model is named together with the endpoint that does not know it."""
    ended = host.call(
        *("run", "q", "--context", text, "--quiet", "--model", "no-such-model"),
        environment=host.environment(server),
    )

    assert (ended.exit_code, ended.stdout) == (5, ""), ended.stderr
    assert f"Check --model; the endpoint at 127.0.0.1:{server.port} does not know" in ended.stderr
    assert "no-such-model" in ended.stderr


def test_provider_is_down(host: RealHost, text: Path) -> None:
    """Where nobody listens the user reads where that is."""
    with ModelServer() as gone:
        environment = host.environment(gone)
    ended = host.call(*("run", "q", "--context", text, "--quiet"), environment=environment)

    assert (ended.exit_code, ended.stdout) == (5, ""), ended.stderr
    assert f"and that 127.0.0.1:{gone.port} is up and reachable" in ended.stderr


def test_no_key_at_all(host: RealHost, text: Path) -> None:
    """Without a key nothing is sent to anybody, and each way to go on is named; exit code 4."""
    ended = host.call(
        *("run", "q", "--context", text), environment=host.environment(OPENAI_API_KEY="")
    )

    assert (ended.exit_code, ended.stdout) == (4, ""), ended.stderr
    for way in ("set OPENAI_API_KEY", "or OPENAI_BASE_URL", "--model local"):
        assert way in ended.stderr


@pytest.mark.parametrize("answer", [REFUSED_KEY, HTML, failure(500)], ids=["key", "html", "500"])
def test_root_model_falls_silent_in_mid_run(host: RealHost, text: Path, answer: Answer) -> None:
    """What was paid for is printed: the draft, marked as one, beside the reason; exit code 5."""
    with ModelServer(root=[cell("answer['content'] = 'so far'"), answer]) as server:
        ended = host.call(
            *("run", "q", "--context", text, "--quiet"), environment=host.environment(server)
        )

    assert (ended.exit_code, ended.stdout) == (5, "so far\n"), ended.stderr
    assert "Ended by model_failed: expected a reply" in ended.stderr
    assert "what is printed is the draft" in ended.stderr
    assert KEY not in ended.stderr


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        pytest.param(REFUSED_KEY, "ModelRefusedError", "refused this prompt for good", id="key"),
        pytest.param(
            failure(404, "no such model", code="model_not_found"),
            "ModelRefusedError",
            "refused this prompt for good",
            id="model",
        ),
        pytest.param(SLOW, "ModelFailedError", "did not answer", id="slow"),
        pytest.param(HTML, "ModelFailedError", "did not answer", id="html"),
        pytest.param(NO_CHOICES, "ModelFailedError", "did not answer", id="no-choices"),
    ],
)
def test_sub_model_gives_no_reply(
    host: RealHost, text: Path, answer: Answer, error: str, sentence: str
) -> None:
    """The root model reads a typed error and what to do; nothing of key, address or model names.

    A provider's page of HTML is never taken for an answer, and the run goes on.
    """
    replies = [cell("print(llm_query('hello'))"), cell("FINAL('went on')")]
    with ModelServer(root=replies, sub=lambda _prompt: answer, sub_model="hidden-7b") as server:
        ended = host.call(
            *("run", "q", "--context", text, "--sub-model", "hidden-7b"),
            environment=host.environment(server, RLM_PROVIDER__REQUEST_TIMEOUT_S="1"),
        )
        report = server.root_requests[1].prompt

    assert (ended.exit_code, ended.stdout) == (0, "went on\n"), ended.stderr
    assert f"{error}: the sub-model" in report
    assert sentence in report
    for secret in (KEY, "127.0.0.1", "hidden-7b", "html"):
        assert secret not in report
    assert KEY not in ended.stderr
