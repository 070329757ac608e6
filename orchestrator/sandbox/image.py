"""Finds the sandbox image that fits the installed code.

An image is found by the digest of everything it was made from, which it carries as a label: so
nothing about it is stored on the host, and no sandbox ever starts from another release's worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any

from orchestrator.errors import SandboxStartError
from orchestrator.sandbox.engine_host import EngineInfo
from orchestrator.sandbox.image_inputs import read_inputs
from orchestrator.sandbox.image_store import ImageStore

INPUTS_LABEL = "rlm-sandbox.image.inputs"
PACKAGES_LABEL = "rlm-sandbox.image.packages"
RELEASE_LABEL = "org.opencontainers.image.version"
REPOSITORY = "rlm-sandbox"


class PackageChoice(StrEnum):
    """Which versions of its Debian packages an image is to hold; see docs/adr/0016."""

    PINNED = "pinned"  # those that this release was locked with, or none
    NEWEST = "newest"  # what Debian's signed archive has now
    PINNED_OR_NEWEST = "pinned-or-newest"  # the latter where the mirror has the former no longer


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One sandbox image that the engine holds."""

    reference: str  # a name to show; start containers from `image_id`
    image_id: str  # content address, `sha256:…`
    inputs_sha256: str
    release: str
    packages: str  # "pinned" or "newest"; empty where the image is from before this was recorded
    size_bytes: int
    created: str  # RFC 3339; of what it was made from, so the age of its packages
    is_current: bool  # made from the code that is installed
    is_named: bool  # the one that was built last holds the name


def list_images(engine: EngineInfo) -> tuple[ImageRecord, ...]:
    """Returns every sandbox image the engine holds: those that fit first, the one in use foremost.

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
    """Returns the images with `label`: those that fit first, and of these the one built last.

    Args:
        store: The engine's images.
        label: `name` or `name=value`.
        current: Digest of the inputs of the installed code.

    Raises:
        SandboxStartError: The engine did not answer.
    """
    records = [read_record(attrs, current=current) for attrs in store.list_labelled(label)]
    order = attrgetter("is_current", "is_named", "created", "image_id")
    return tuple(sorted(records, key=order, reverse=True))


def read_record(attrs: Mapping[str, Any], *, current: str) -> ImageRecord:
    """Reads the engine's record of a sandbox image.

    Args:
        attrs: As `GET /images/{name}/json` of the Engine API returns it.
        current: Digest of the inputs of the installed code.
    """
    labels = attrs["Config"]["Labels"]
    tags = tuple(attrs.get("RepoTags") or ())
    own = [tag for tag in tags if tag.partition(":")[0] == REPOSITORY]
    return ImageRecord(
        reference=[*own, *tags, attrs["Id"]][0],
        image_id=attrs["Id"],
        inputs_sha256=labels[INPUTS_LABEL],
        release=labels.get(RELEASE_LABEL, ""),
        packages=labels.get(PACKAGES_LABEL, ""),
        size_bytes=attrs["Size"],
        created=attrs["Created"],
        is_current=labels[INPUTS_LABEL] == current,
        is_named=bool(own),
    )
