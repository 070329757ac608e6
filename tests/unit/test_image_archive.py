"""The image's file: the same bytes for the same root, and nothing of the day it was made on."""

import hashlib
import io
import json
import tarfile
from typing import Any

import pytest
from support.build_scripts import FOLDER, load

archives = load("image_archive")

MOMENT_S = 1_767_225_600


def root_of(content: bytes) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("file")
        member.size, member.mtime = len(content), MOMENT_S
        archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def made(content: bytes = b"x", **configuration: object) -> tuple[bytes, dict[str, str]]:
    stream = io.BytesIO()
    ids = archives.write_archive(root_of(content), stream, configuration)
    return stream.getvalue(), ids


def files_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            member.name: stream.read()
            for member in opened
            if (stream := opened.extractfile(member)) is not None
        }


def test_same_root_gives_the_same_bytes() -> None:
    """Nothing of the moment, the machine or the user is in the file."""
    assert made(User="1:1") == made(User="1:1")


@pytest.mark.parametrize("changed", [made(b"y", User="1:1"), made(User="2:2")])
def test_another_root_or_configuration_is_another_image(
    changed: tuple[bytes, dict[str, str]],
) -> None:
    """The control: a changed byte, or a changed user, changes both ids."""
    _, ids = made(User="1:1")

    assert changed[1]["config"] != ids["config"]
    assert changed[1]["manifest"] != ids["manifest"]


def test_every_blob_is_named_by_its_digest() -> None:
    """Whatever refers to a blob can be followed, by an engine of either kind."""
    archive, ids = made()
    files = files_of(archive)
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}

    assert {f"blobs/sha256/{hashlib.sha256(data).hexdigest()}" for data in blobs.values()} == set(
        blobs
    )
    docker = json.loads(files["manifest.json"])[0]
    assert {docker["Config"], *docker["Layers"]} <= blobs.keys()
    manifest = json.loads(blobs[f"blobs/{ids['manifest'].replace(':', '/')}"])
    assert manifest["config"]["digest"] == ids["config"]
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == ids["manifest"]


def test_layer_and_date_are_those_of_the_root() -> None:
    """The image says when its root is from, and names the root as it is."""
    archive, ids = made()
    config: dict[str, Any] = json.loads(
        files_of(archive)[f"blobs/{ids['config'].replace(':', '/')}"]
    )

    assert config["created"] == "2026-01-01T00:00:00Z"
    assert config["rootfs"]["diff_ids"] == [ids["layer"]]
    assert ids["layer"] == f"sha256:{hashlib.sha256(root_of(b'x').read()).hexdigest()}"


def test_configuration_is_the_dockerfiles() -> None:
    """User, entry point, folder and labels are written once, in the Dockerfile's last stage."""
    read = archives.read_configuration((FOLDER / "sandbox.Dockerfile").read_text("utf-8"))

    assert read["User"] == "10001:10001"
    assert read["Entrypoint"] == ["/usr/bin/python3.13", "-I", "-m", "sandbox_image"]
    assert read["WorkingDir"] == "/tmp"
    assert read["Env"] == ["PATH=/usr/bin"]
    assert read["Labels"]["org.opencontainers.image.title"] == "rlm-sandbox"


def test_instruction_that_is_not_known_is_refused() -> None:
    """What the last stage says may not be lost on the way that does not go through an engine."""
    with pytest.raises(ValueError, match="VOLUME"):
        archives.read_configuration("FROM scratch\nUSER 1:1\nVOLUME /data\n")
