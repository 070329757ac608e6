"""Speaks to a Docker engine over its Unix socket, and turns the SDK's errors into this project's.

The SDK lets three families of exceptions through (its own, those of requests, and bare socket
errors). Without one place that maps them, each caller would catch a different part of them, and
an engine that dies in the middle of a call would surface as an HTTP library's traceback.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import docker
import docker.errors
import requests.exceptions
from docker import DockerClient

from orchestrator.errors import SandboxError, SandboxStartError

__all__ = [  # names DockerClient so that it may be imported from here, the SDK's home
    "UNIX_SCHEME",
    "Dial",
    "DialOutcome",
    "DockerClient",
    "EngineAnswers",
    "ask_engine",
    "connect",
    "dial",
    "engine_errors",
]

UNIX_SCHEME = "unix://"


class DialOutcome(StrEnum):
    """What became of one attempt to open a socket."""

    OPENED = "opened"
    MISSING = "there is no such socket"
    DENIED = "permission denied"
    NOBODY_LISTENS = "the socket is there, but nobody listens on it"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """One attempt to open an engine's socket."""

    endpoint: str
    outcome: DialOutcome
    detail: str = ""  # the system's own words where the outcome alone says too little

    def __str__(self) -> str:
        """Returns the attempt as one phrase for an error message."""
        return f"{self.endpoint}: {self.detail or self.outcome.value}"


def dial(endpoint: str, *, timeout_s: float = 2.0) -> Dial:
    """Opens the Unix socket of `endpoint` and closes it again, to learn whether an engine is there.

    The SDK wraps the system's error three layers deep in text; the difference between
    "no socket" and "not yours to open" decides what the user has to do.

    Args:
        endpoint: A `unix://` address.
        timeout_s: Longest wait for the connection; a live engine accepts at once.
    """
    path = endpoint.removeprefix(UNIX_SCHEME)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(timeout_s)
            probe.connect(path)
    except FileNotFoundError:
        return Dial(endpoint=endpoint, outcome=DialOutcome.MISSING)
    except PermissionError:
        return Dial(endpoint=endpoint, outcome=DialOutcome.DENIED)
    except ConnectionRefusedError:
        return Dial(endpoint=endpoint, outcome=DialOutcome.NOBODY_LISTENS)
    except OSError as error:
        return Dial(endpoint=endpoint, outcome=DialOutcome.FAILED, detail=str(error))
    return Dial(endpoint=endpoint, outcome=DialOutcome.OPENED)


@contextmanager
def engine_errors(doing: str, *, raises: type[SandboxError] = SandboxStartError) -> Iterator[None]:
    """Turns whatever the SDK raises inside the block into one error of this project.

    Args:
        doing: What was being done, as a phrase that a message can begin with
            ("importing the image").
        raises: The error to raise; `SandboxLostError` once a sandbox is running.

    Raises:
        SandboxError: Of the type `raises`, with the engine's own words in its message.
    """
    try:
        yield
    except docker.errors.APIError as error:
        words = error.explanation or str(error)
        message = f"{doing}: the Docker engine refused ({error.status_code}): {words}"
        raise raises(message) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        message = f"{doing}: the Docker engine did not answer: {error}"
        raise raises(message) from error


def connect(endpoint: str, *, timeout_s: float = 60.0) -> DockerClient:
    """Connects to the engine at `endpoint` and agrees on an API version with it.

    The caller closes the client.

    Args:
        endpoint: A `unix://` address, as in `EngineInfo.endpoint`.
        timeout_s: Longest wait for any one answer of the engine.

    Raises:
        SandboxStartError: Nothing that speaks the Docker API answered there.
    """
    with engine_errors(f"connecting to {endpoint}"):
        return docker.DockerClient(base_url=endpoint, version="auto", timeout=round(timeout_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAnswers:
    """What an engine says of itself, as it says it (`/version` and `/info` of the Engine API)."""

    version: Mapping[str, Any]
    info: Mapping[str, Any]


def ask_engine(endpoint: str) -> EngineAnswers:
    """Asks the engine at `endpoint` for its version and its state.

    Raises:
        SandboxStartError: Nothing that speaks the Docker API answered there.
    """
    client = connect(endpoint, timeout_s=10.0)
    try:
        with engine_errors(f"asking {endpoint} what it is"):
            return EngineAnswers(version=client.version(), info=client.info())
    finally:
        client.close()
