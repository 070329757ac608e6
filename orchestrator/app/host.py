"""What can be done to and learned about this host: engine, image, weights, posture.

Without it each command would hand the settings on to those parts in its own way.
"""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from orchestrator.models.local.serve import serve
from orchestrator.models.local.weights import fetch, verified
from orchestrator.sandbox.engine_host import EngineInfo, find_engine, read_host
from orchestrator.sandbox.engine_setup import ensure_engine
from orchestrator.sandbox.finding import Finding
from orchestrator.sandbox.gvisor_setup import ensure_gvisor
from orchestrator.sandbox.image import ImageRecord, PackageChoice, list_images
from orchestrator.sandbox.image_build import build_image
from orchestrator.sandbox.image_making import BuildOptions, BuildWay
from orchestrator.sandbox.image_prune import Verdict, prune_images
from orchestrator.sandbox.image_verify import Verification, read_bill_of_materials, verify_image
from orchestrator.sandbox.posture import judge
from orchestrator.sandbox.posture_facts import collect_facts
from orchestrator.sandbox.runtimes import RegisteredRuntime
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
    return engine, _build(settings, report, engine=engine)


def set_up_gvisor(
    settings: Settings, report: Report, *, engine: EngineInfo, image: ImageRecord
) -> RegisteredRuntime:
    """Sees to it that this host's engine has gVisor; see `ensure_gvisor`."""
    host = read_host(runtime_dir=_runtime_dir(settings))
    return ensure_gvisor(report, engine=engine, host=host, image_id=image.image_id)


def build_host_image(
    settings: Settings, report: Report, *, way: BuildWay | None, is_forced: bool
) -> ImageRecord:
    """Builds the image of the installed code on this host's engine; see `build_image`."""
    return _build(settings, report, engine=find_host_engine(settings), way=way, is_forced=is_forced)


def _build(
    settings: Settings,
    report: Report,
    *,
    engine: EngineInfo,
    way: BuildWay | None = None,
    is_forced: bool = False,
) -> ImageRecord:
    return build_image(
        report,
        engine=engine,
        release=release(),
        options=_options(settings, way=way),
        is_forced=is_forced,
    )


def _options(settings: Settings, *, way: BuildWay | None) -> BuildOptions:
    return BuildOptions(
        way=way,
        packages=PackageChoice(settings.debian_packages),
        snapshots=settings.debian_snapshots,
    )


def verify_host_image(settings: Settings, report: Report, *, way: BuildWay | None) -> Verification:
    """Builds the image in use again and compares; see `verify_image`."""
    return verify_image(
        report,
        engine=find_host_engine(settings),
        options=_options(settings, way=way),
    )


def read_host_bill_of_materials(settings: Settings) -> str:
    """Returns the bill of materials of the image in use; see `read_bill_of_materials`."""
    return read_bill_of_materials(find_host_engine(settings))


def prune_host_images(settings: Settings, *, is_dry: bool) -> tuple[Verdict, ...]:
    """Removes superseded sandbox images from this host's engine; see `prune_images`."""
    return prune_images(find_host_engine(settings), is_dry=is_dry)


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
