"""Finds the sandbox image that fits the installed code.

An image is found by the digest of everything it was made from, which it carries as a label: so
nothing about it is stored on the host, and no sandbox ever starts from another release's worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.image_inputs import read_inputs
from orchestrator.sandbox.image_store import ImageStore

INPUTS_LABEL = "rlm-sandbox.image.inputs"
BUILT_BY_LABEL = "rlm-sandbox.image.built-by"
RELEASE_LABEL = "org.opencontainers.image.version"


class BuiltBy(StrEnum):
    """The two ways to build the image; both run the same script and give the same content."""

    MMDEBSTRAP = "mmdebstrap"  # on this host, from Debian packages, without a container registry
    DOCKERFILE = "dockerfile"  # in a builder stage, which a container registry must supply


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One sandbox image that the engine holds."""

    reference: str  # a name to show; start containers from `image_id`
    image_id: str  # content address, `sha256:…`
    inputs_sha256: str
    release: str
    built_by: BuiltBy
    size_bytes: int
    created: str  # RFC 3339
    is_current: bool  # made from the code that is installed


def list_images(engine: EngineInfo) -> tuple[ImageRecord, ...]:
    """Returns every sandbox image the engine holds, the newest first.

    Raises:
        SettingsError: The installation lacks files of the image.
        SandboxStartError: The engine did not answer.
    """
    with ImageStore(engine.endpoint) as store:
        return list_records(store, label=INPUTS_LABEL, current=read_inputs().digest())


def find_image(engine: EngineInfo) -> ImageRecord:
    """Returns the image that was made from the installed code.

    Raises:
        SettingsError: The installation lacks files of the image.
        SandboxStartError: The engine holds none, or did not answer.
    """
    current = read_inputs().digest()
    with ImageStore(engine.endpoint) as store:
        found = list_records(store, label=f"{INPUTS_LABEL}={current}", current=current)
    if not found:
        message = (
            "The sandbox image is missing: expected one made from the installed code "
            f"({INPUTS_LABEL}={current[:12]}…), and the engine has none. Run `rlm image build`."
        )
        raise SandboxStartError(message)
    return found[0]


def list_records(store: ImageStore, *, label: str, current: str) -> tuple[ImageRecord, ...]:
    """Returns the images with `label`, the newest first.

    Args:
        store: The engine's images.
        label: `name` or `name=value`.
        current: Digest of the inputs of the installed code.

    Raises:
        SandboxStartError: The engine did not answer.
    """
    records = [read_record(attrs, current=current) for attrs in store.list_labelled(label)]
    return tuple(sorted(records, key=lambda record: record.created, reverse=True))


def read_record(attrs: Mapping[str, Any], *, current: str) -> ImageRecord:
    """Reads the engine's record of a sandbox image.

    Args:
        attrs: As `GET /images/{name}/json` of the Engine API returns it.
        current: Digest of the inputs of the installed code.
    """
    labels = attrs["Config"]["Labels"]
    tags = attrs.get("RepoTags") or ()
    return ImageRecord(
        reference=tags[0] if tags else attrs["Id"],
        image_id=attrs["Id"],
        inputs_sha256=labels[INPUTS_LABEL],
        release=labels.get(RELEASE_LABEL, ""),
        built_by=BuiltBy(labels[BUILT_BY_LABEL]),
        size_bytes=attrs["Size"],
        created=attrs["Created"],
        is_current=labels[INPUTS_LABEL] == current,
    )
