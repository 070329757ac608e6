"""Keeps and makes images in one Docker engine, in the terms of this project.

The SDK hands a failed build over as a line in a stream that looks like any other; a caller that
misses it goes on with no image. Here every failure is an error.
"""

import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.docker_client import connect, engine_errors
from orchestrator.sandbox.image_listing import ListedEntry, read_member


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerBuild:
    """A build from a Dockerfile, inside the engine."""

    dockerfile: str  # path in the context
    labels: Mapping[str, str]
    arguments: Mapping[str, str] = field(default_factory=dict)  # for the Dockerfile's ARGs
    network: str | None = None  # that the steps run in; the engine's default if None


class ImageStore:
    """The images of one engine. A context manager: leaving it closes the connection.

    Every method raises `SandboxStartError` when the engine refuses or does not answer.
    """

    def __init__(self, endpoint: str, *, timeout_s: float = 60.0) -> None:
        """Connects to the engine at `endpoint`.

        Args:
            endpoint: As in `EngineInfo.endpoint`.
            timeout_s: Longest silence of the engine; a build may need many minutes.
        """
        self._client = connect(endpoint, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the connection."""
        self._client.close()

    def list_labelled(self, label: str) -> list[Mapping[str, Any]]:
        """Returns the engine's record of every image with `label` (`name` or `name=value`)."""
        with engine_errors("listing images"):
            return [image.attrs for image in self._client.images.list(filters={"label": label})]

    def inspect(self, image_id: str) -> Mapping[str, Any]:
        """Returns the engine's record of one image."""
        with engine_errors(f"looking at the image {image_id}"):
            return dict(self._client.images.get(image_id).attrs)

    def import_root(self, tar: Path, *, changes: list[str]) -> str:
        """Makes an unnamed image of one layer out of a tar file of a root file system.

        Args:
            tar: The root file system.
            changes: Dockerfile instructions that set the image's configuration.

        Returns:
            The new image's id (`sha256:…`).
        """
        with engine_errors("importing the image"), tar.open("rb") as stream:
            answer = self._client.api.import_image(src=stream, changes=changes)
        progress = [json.loads(line) for line in answer.splitlines()]
        for line in progress:
            _raise_if_failed(line, doing="importing the image")
        return str(progress[-1]["status"])

    def build(
        self, context: IO[bytes], build: ContainerBuild, report: Callable[[str], None]
    ) -> str:
        """Builds an unnamed image from a Dockerfile.

        Args:
            context: Tar file with the Dockerfile and everything that it copies.
            build: What to build, and how.
            report: Called with each line the build prints.

        Returns:
            The new image's id (`sha256:…`).

        Raises:
            SandboxStartError: A step failed; the message has the step's error.
        """
        image_id = ""
        with engine_errors("building the image"):
            for line in self._client.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=build.dockerfile,
                labels=dict(build.labels),
                buildargs=dict(build.arguments),
                network_mode=build.network,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                _raise_if_failed(line, doing="building the image")
                if text := line.get("stream", "").strip():
                    report(text)
                image_id = line.get("aux", {}).get("ID", image_id)
        return image_id

    def list_content(self, image_id: str) -> tuple[ListedEntry, ...]:
        """Lists every name in an image's file system, without running anything in it.

        The container that this needs is created, never started, and removed again.
        """
        with engine_errors(f"listing the image {image_id}"), tempfile.TemporaryFile() as tar:
            container = self._client.containers.create(image_id, network_mode="none")
            try:
                exported: Iterable[Any] = container.export()  # of bytes; its stub says str
                tar.writelines(exported)
            finally:
                container.remove(force=True)
            tar.seek(0)
            with tarfile.open(fileobj=tar) as archive:
                return tuple(read_member(member) for member in archive)

    def tag(self, image_id: str, tag: str) -> None:
        """Names an image by `tag` (`repository:name`) as well."""
        repository, _, name = tag.rpartition(":")
        with engine_errors(f"naming the image {tag}"):
            self._client.images.get(image_id).tag(repository, name)

    def remove(self, image_id: str) -> None:
        """Removes an image that no container uses."""
        with engine_errors(f"removing the image {image_id}"):
            self._client.images.remove(image_id)


def _raise_if_failed(line: Mapping[str, Any], *, doing: str) -> None:
    if "error" in line:
        message = f"{doing}: {str(line['error']).strip()}"
        raise SandboxStartError(message)
