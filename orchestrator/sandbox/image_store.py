"""Keeps and makes images in one Docker engine, in the terms of this project.

The SDK hands a failed build over as a line in a stream that looks like any other; a caller that
misses it goes on with no image. Here every failure is an error.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import docker.errors

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.docker_client import connect, engine_errors
from orchestrator.sandbox.image_listing import ListedEntry, read_member


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerBuild:
    """A build from a Dockerfile, inside the engine."""

    dockerfile: str  # path in the context
    target: str  # the stage to build
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

    def load(self, archive: Path, *, candidates: Sequence[str]) -> str:
        """Takes over an image from an archive and returns its id.

        Args:
            archive: An OCI image layout with a Docker manifest.
            candidates: The ids that the image may have; which one depends on who keeps the images,
                the engine or containerd.

        Raises:
            SandboxStartError: It was refused, or none of the candidates is there afterwards.
        """
        with engine_errors("loading the image"), archive.open("rb") as stream:
            lines = self._client.api.load_image(stream)  # type: ignore[no-untyped-call] # its stub has no types
            for line in lines or ():
                _raise_if_failed(line, doing="loading the image")
        for candidate in candidates:
            with engine_errors("loading the image"), suppress(docker.errors.ImageNotFound):
                return str(self._client.images.get(candidate).id)
        message = f"loading the image: expected one of {', '.join(candidates)}, and none is there."
        raise SandboxStartError(message)

    def has(self, name: str) -> bool:
        """Whether there is an image of that name or id."""
        with engine_errors(f"looking for the image {name}"):
            try:
                self._client.images.get(name)
            except docker.errors.ImageNotFound:
                return False
        return True

    def import_root(self, root: IO[bytes], *, tag: str, changes: Sequence[str]) -> None:
        """Makes an image of one layer out of a tar file, without any label.

        Args:
            root: The tar file of its file system.
            tag: Its name, `repository:name`.
            changes: Instructions of a Dockerfile that configure it.
        """
        repository, _, name = tag.rpartition(":")
        with engine_errors("importing the image"):
            self._client.api.import_image_from_data(
                root, repository=repository, tag=name, changes=list(changes)
            )

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
                target=build.target,
                buildargs=dict(build.arguments),
                nocache=True,  # the steps fetch: what they fetched last time is not asked for
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
        """Lists every name in an image's file system, without running anything in it."""
        with self.export(image_id) as tar, tarfile.open(fileobj=tar) as archive:
            return tuple(read_member(member) for member in archive)

    @contextmanager
    def export(self, image_id: str) -> Iterator[IO[bytes]]:
        """Yields a tar file of an image's file system, as a container would find it."""
        with tempfile.TemporaryFile() as tar:
            with self._unstarted(image_id) as container:
                exported: Iterable[Any] = container.export()  # of bytes; its stub says str
                tar.writelines(exported)
            tar.seek(0)
            yield tar

    def copy_file(self, image_id: str, path: str, target: IO[bytes]) -> None:
        """Copies one file of an image into `target`, without running anything in it.

        Raises:
            SandboxStartError: The image has no such file.
        """
        with tempfile.TemporaryFile() as tar:
            with self._unstarted(image_id) as container:
                tar.writelines(container.get_archive(path)[0])
            tar.seek(0)
            with tarfile.open(fileobj=tar) as archive:
                member = archive.next()
                stream = archive.extractfile(member) if member and member.isreg() else None
                if stream is None:
                    raise SandboxStartError(f"Expected a file {path} in {image_id}; it is none.")
                shutil.copyfileobj(stream, target)

    @contextmanager
    def _unstarted(self, image_id: str) -> Iterator[Any]:
        """Yields a container that is never started, and is removed again."""
        with engine_errors(f"looking into the image {image_id}"):
            container = self._client.containers.create(
                image_id, ["none"], network_mode="none", entrypoint=["/none"]
            )
            try:
                yield container
            finally:
                container.remove(force=True)

    def list_used(self) -> frozenset[str]:
        """Returns the ids of the images that any container is made from, running or not."""
        with engine_errors("listing containers"):
            containers = self._client.api.containers(all=True)
        return frozenset(str(container["ImageID"]) for container in containers)

    def count_steps(self, image_id: str) -> int:
        """Returns how many steps an image was made in: more than one if it was derived."""
        with engine_errors(f"looking at the image {image_id}"):
            return len(self._client.api.history(image_id))  # type: ignore[no-untyped-call] # likewise

    def tag(self, image_id: str, tag: str) -> None:
        """Names an image by `tag` (`repository:name`) as well."""
        repository, _, name = tag.rpartition(":")
        with engine_errors(f"naming the image {tag}"):
            self._client.images.get(image_id).tag(repository, name)

    def remove(self, image_id: str) -> None:
        """Removes an image that no container uses, and every name of it."""
        with engine_errors(f"removing the image {image_id}"):
            # By its names, because by its id the engine refuses one that has several; never by
            # force, which would take it from under a container that was made a moment ago.
            for name in self._client.images.get(image_id).tags or [image_id]:
                self._client.images.remove(name)


def _raise_if_failed(line: Mapping[str, Any], *, doing: str) -> None:
    if "error" in line:
        message = f"{doing}: {str(line['error']).strip()}"
        raise SandboxStartError(message)
