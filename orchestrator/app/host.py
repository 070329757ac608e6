"""What can be done to and learned about this host: engine, image, weights, posture.

Without it each command would hand the settings on to those parts in its own way.
"""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from orchestrator.models.local.serve import serve
from orchestrator.models.local.weights import fetch, verified
from orchestrator.sandbox.engine_host import EngineInfo, find_engine
from orchestrator.sandbox.engine_setup import ensure_engine
from orchestrator.sandbox.image import BuiltBy, ImageRecord, list_images
from orchestrator.sandbox.image_build import build_image
from orchestrator.sandbox.posture import Finding, judge
from orchestrator.sandbox.posture_facts import collect_facts
from orchestrator.settings import Settings

#: Called with one sentence before each step that takes long or changes the host.
Report: TypeAlias = Callable[[str], None]


def release() -> str:
    """Returns the version of this project that is installed."""
    return importlib.metadata.version("rlm-sandbox")


def find_host_engine(settings: Settings) -> EngineInfo:
    """Finds the engine that the settings point to; see `find_engine`."""
    return find_engine(docker_host=settings.docker_host, runtime_dir=_runtime_dir(settings))


def set_up(settings: Settings, report: Report) -> tuple[EngineInfo, ImageRecord]:
    """Sees to it that this host has an engine and the image; does nothing where it has.

    Raises:
        SettingsError: The installation lacks files of the image, or an address is wrong.
        SandboxStartError: It could not be done; the message says what to do by hand.
    """
    engine = ensure_engine(
        report, docker_host=settings.docker_host, runtime_dir=_runtime_dir(settings)
    )
    return engine, build_image(report, engine=engine, release=release())


def build_host_image(
    settings: Settings, report: Report, *, way: BuiltBy | None, is_forced: bool
) -> ImageRecord:
    """Builds the image of the installed code on this host's engine; see `build_image`."""
    engine = find_host_engine(settings)
    return build_image(report, engine=engine, release=release(), way=way, is_forced=is_forced)


def list_host_images(settings: Settings) -> tuple[ImageRecord, ...]:
    """Returns the sandbox images of this host's engine; see `list_images`."""
    return list_images(find_host_engine(settings))


def examine_host(settings: Settings) -> tuple[Finding, ...]:
    """Returns what bears on how well a sandbox is sealed on this host; changes nothing."""
    return judge(
        collect_facts(
            docker_host=settings.docker_host,
            user_runtime_directory=settings.user_runtime_directory,
            runtime_directory=settings.runtime_directory,
        )
    )


def find_weights(settings: Settings) -> Path:
    """Returns the local model's checked weights; see `verified`."""
    return verified(_weights_directory(settings))


def fetch_weights(settings: Settings, report: Report, *, source: Path | None) -> Path:
    """Sees to it that the local model's weights are here; see `fetch`."""
    return fetch(_weights_directory(settings), source=source, report=report)


def serve_local_model(settings: Settings, report: Report, *, port: int) -> None:
    """Serves the local model on loopback until interrupted; see `serve`."""
    weights = find_weights(settings)
    serve(weights, port=port, on_ready=lambda url: report(f"serving at {url}; Ctrl-C ends it"))


def _weights_directory(settings: Settings) -> Path:
    return settings.data_directory / "weights"


def _runtime_dir(settings: Settings) -> str | None:
    found = settings.user_runtime_directory
    return None if found is None else str(found)
