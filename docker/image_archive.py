"""Makes an image out of a root, byte for byte the same each time, for an engine to load.

An engine that imports or builds an image writes the time and a container's name into its
configuration, so the same root had another id on every host. Here the configuration is written by
us: it comes from the Dockerfile's last stage and the root alone, and so does the id.

The archive is an OCI image layout with a Docker manifest beside it: engines since 1.10 load it.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import argparse
import hashlib
import io
import json
import platform
import shlex
import sys
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

_OCI = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # uname(2)'s name, Go's
_BLOCK_BYTES = 2**20


def main() -> None:
    """Writes the archive that the command line asks for, and prints its ids as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, help="tar file of the root")
    parser.add_argument("archive", type=Path, help="where the image is written")
    parser.add_argument("--dockerfile", type=Path, required=True, help="has the configuration")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    labels = dict(label.split("=", 1) for label in arguments.label)
    configuration = read_configuration(arguments.dockerfile.read_text("utf-8"))
    configuration["Labels"] = {**configuration.get("Labels", {}), **labels}
    with arguments.root.open("rb") as root, arguments.archive.open("wb") as archive:
        ids = write_archive(root, archive, configuration)
    sys.stdout.write(f"{json.dumps(ids)}\n")


def read_configuration(dockerfile: str) -> dict[str, Any]:
    """Returns the configuration that the last stage of a Dockerfile gives its image.

    Raises:
        ValueError: The stage has an instruction that this does not know; the message has the line.
    """
    found: dict[str, Any] = {"Labels": {}, "Env": []}
    lines = dockerfile.splitlines()
    last_stage = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    for line in lines[last_stage + 1 :]:
        instruction, _, rest = line.partition(" ")
        match instruction:
            case "LABEL":
                found["Labels"] |= dict(word.split("=", 1) for word in shlex.split(rest))
            case "ENV":
                found["Env"] += shlex.split(rest)
            case "USER":
                found["User"] = rest
            case "WORKDIR":
                found["WorkingDir"] = rest
            case "ENTRYPOINT":
                found["Entrypoint"] = json.loads(rest)
            case "" | "#" | "COPY":
                pass  # what it copies is the root
            case _:
                raise ValueError(f"expected an instruction that sets the configuration: {line!r}")
    return found


def write_archive(
    root: IO[bytes], archive: IO[bytes], configuration: Mapping[str, Any]
) -> dict[str, str]:
    """Writes an image of one layer.

    Args:
        root: An uncompressed tar file, every member of one age.
        archive: Where the image is written.
        configuration: As the Engine API has it.

    Returns:
        The digests of the `layer`, of the `config` (the image's id in an engine that keeps images
        itself) and of the `manifest` (its id in an engine that lets containerd keep them).
    """
    with tarfile.open(fileobj=root) as members:
        first = members.next()
    seconds = round(first.mtime) if first else 0
    created = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    layer, layer_bytes = _digest(root)
    config = _json({
        "architecture": _ARCHITECTURES[platform.machine()],
        "config": configuration,
        "created": created,
        "history": [{"created": created, "created_by": "rlm-sandbox docker/build_rootfs.py"}],
        "os": "linux",
        "rootfs": {"diff_ids": [layer], "type": "layers"},
    })  # fmt: skip
    manifest = _json({
        "config": _descriptor("config.v1+json", config),
        "layers": [{"digest": layer, "mediaType": f"{_OCI}.layer.v1.tar", "size": layer_bytes}],
        "mediaType": f"{_OCI}.manifest.v1+json",
        "schemaVersion": 2,
    })  # fmt: skip
    index = _json({
        "manifests": [_descriptor("manifest.v1+json", manifest)],
        "mediaType": f"{_OCI}.index.v1+json",
        "schemaVersion": 2,
    })  # fmt: skip
    ids = {"layer": layer, "config": _sha256(config), "manifest": _sha256(manifest)}
    docker = _json([
        {"Config": _blob(ids["config"]), "Layers": [_blob(layer)], "RepoTags": None}
    ])  # fmt: skip
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as written:
        for name in ("blobs", "blobs/sha256"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, seconds
            written.addfile(folder)
        _add(written, _blob(layer), root, layer_bytes, seconds)
        for name, data in (
            (_blob(ids["config"]), config),
            (_blob(ids["manifest"]), manifest),
            ("index.json", index),
            ("manifest.json", docker),
            ("oci-layout", _json({"imageLayoutVersion": "1.0.0"})),
        ):
            _add(written, name, io.BytesIO(data), len(data), seconds)
    return ids


def _digest(stream: IO[bytes]) -> tuple[str, int]:
    total, size_bytes = hashlib.sha256(), 0
    stream.seek(0)
    while block := stream.read(_BLOCK_BYTES):
        total.update(block)
        size_bytes += len(block)
    stream.seek(0)
    return f"sha256:{total.hexdigest()}", size_bytes


def _add(
    written: tarfile.TarFile, name: str, stream: IO[bytes], size_bytes: int, seconds: int
) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = size_bytes, seconds
    written.addfile(member, stream)


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"digest": _sha256(data), "mediaType": f"{_OCI}.{kind}", "size": len(data)}


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


if __name__ == "__main__":
    main()
