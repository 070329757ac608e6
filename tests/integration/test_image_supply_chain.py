"""The image in use is what its inputs give, says what it is made of, and is removed with care."""

from __future__ import annotations

import io
import json
import re
import tarfile
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.build_scripts import load

from orchestrator.sandbox.docker_client import connect
from orchestrator.sandbox.engine_host import EngineInfo, find_engine
from orchestrator.sandbox.image import INPUTS_LABEL, RELEASE_LABEL, ImageRecord, list_records
from orchestrator.sandbox.image_build import build_image
from orchestrator.sandbox.image_making import LOCK_IN_IMAGE, BuildOptions
from orchestrator.sandbox.image_prune import carry_out, look_at_images, plan_prune
from orchestrator.sandbox.image_store import ImageStore
from orchestrator.sandbox.image_verify import read_bill_of_materials, verify_image

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

archives = load("image_archive")
assembly = load("assembly")
locks = load("package_lock")
layout = load("root_layout")
rootfs = load("build_rootfs")


@pytest.fixture(scope="module")
def engine() -> EngineInfo:
    return find_engine(docker_host=None, runtime_dir=None)


@pytest.fixture(scope="module")
def image(engine: EngineInfo) -> ImageRecord:
    return build_image(print, engine=engine, release=version("rlm-sandbox"))


@pytest.fixture(scope="module")
def store(engine: EngineInfo) -> Iterator[ImageStore]:
    with ImageStore(engine.endpoint) as opened:
        yield opened


@pytest.fixture(scope="module")
def files(store: ImageStore, image: ImageRecord) -> dict[str, bytes | None]:
    """What the image holds: the content of each file, None for what is none."""
    with store.export(image.image_id) as tar, tarfile.open(fileobj=tar) as archive:
        return {
            member.name.rstrip("/"): stream.read()
            if member.isreg() and (stream := archive.extractfile(member))
            else None
            for member in archive
        }


@pytest.fixture(scope="module")
def bill(engine: EngineInfo, image: ImageRecord) -> dict[str, Any]:
    assert image.is_current
    read: dict[str, Any] = json.loads(read_bill_of_materials(engine))
    return read


@pytest.mark.slow
def test_image_is_built_again_to_the_bit(engine: EngineInfo, image: ImageRecord) -> None:
    """A second build gives the id of the first, and the engine holds what that id stands for."""
    found = verify_image(print, engine=engine, options=BuildOptions())

    assert found.image == image
    assert found.differences == ()
    assert image.image_id in {found.rebuilt_id, found.rebuilt_manifest}
    assert found.is_same


def test_bill_of_materials_follows_its_schema(engine: EngineInfo, image: ImageRecord) -> None:
    """It is CycloneDX to the letter; the control breaks one letter."""
    assert image.is_current
    text = read_bill_of_materials(engine)
    validator = JsonStrictValidator(SchemaVersion.V1_6)

    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"components"', '"component"', 1)) is not None


def listed(bill: dict[str, Any], kind: str) -> set[tuple[str, str]]:
    """Returns name and version of what a bill lists of one kind, but for Debian's sources."""
    return {
        (component["name"], component["version"])
        for component in bill["components"]
        if (purl := component.get("purl", "")).startswith(kind) and "arch=source" not in purl
    }


def test_bill_of_materials_names_every_package(
    bill: dict[str, Any], files: dict[str, bytes | None]
) -> None:
    """Debian's database, the licences, the lock and the wheels in the image are what it lists."""
    debian, wheels = listed(bill, "pkg:deb/"), listed(bill, "pkg:pypi/")
    status = (files["var/lib/dpkg/status"] or b"").decode()
    lock = locks.parse_lock((files[LOCK_IN_IMAGE] or b"").decode())
    [locked] = lock.packages.values()
    metadata = [re.search(r"/([\w.]+)-([\w.]+)\.dist-info/METADATA$", name) for name in files]
    documented = {name.split("/")[3] for name in files if name.startswith("usr/share/doc/")}

    assert debian == {(package.name, package.version) for package in locked}
    assert debian == set(
        re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", status, re.MULTILINE)
    )
    assert {name for name, _ in debian} == documented
    assert wheels == {(hit[1].lower().replace("_", "-"), hit[2]) for hit in metadata if hit}
    assert len(debian) > 10
    assert len(wheels) > 3


def test_bill_of_materials_has_the_locked_hashes(
    bill: dict[str, Any], files: dict[str, bytes | None]
) -> None:
    """What it says of a .deb can be compared with Debian's own index."""
    lock = locks.parse_lock((files[LOCK_IN_IMAGE] or b"").decode())
    [locked] = lock.packages.values()

    hashes = {
        component["name"]: component["hashes"][0]["content"]
        for component in bill["components"]
        if "hashes" in component
    }

    assert hashes == {package.name: package.sha256 for package in locked}


def test_bill_of_materials_has_nothing_of_its_day(
    bill: dict[str, Any], files: dict[str, bytes | None]
) -> None:
    """Its date is the lock's, and its number is made from the content it describes."""
    lock = locks.parse_lock((files[LOCK_IN_IMAGE] or b"").decode())

    assert bill["metadata"]["timestamp"].startswith(f"{lock.moment:%Y-%m-%dT%H:%M:%S}")
    assert uuid.UUID(bill["serialNumber"].removeprefix("urn:uuid:")).version == 5
    described = {
        item["name"]: item["value"] for item in bill["metadata"]["component"]["properties"]
    }
    assert re.fullmatch(r"[0-9a-f]{64}", described["rlm-sandbox:root-sha256"])


@pytest.mark.parametrize("named", [["a", "rlm-sandbox"], ["a", "b", "c", "rlm-sandbox"]])
def test_bill_that_misses_or_invents_a_package_ends_the_build(named: list[str]) -> None:
    """What files are from and what is listed are one set; the control is a bill with just these."""
    root = layout.Root()
    layout.add_mount_points(root)
    for origin in ("a", "b"):
        root.add_file(f"usr/{origin}", b"", origin=origin)

    def bill_of(names: list[str]) -> str:
        return json.dumps({"components": [{"type": "library", "name": name} for name in names]})

    rootfs.check_complete(bill_of(["a", "b", "rlm-sandbox"]), root)
    with pytest.raises(SystemExit, match=r"\['[bc]'\] is in one of them only"):
        rootfs.check_complete(bill_of(named), root)


def load_fake(store: ImageStore, folder: Path, **labels: str) -> str:
    """Gives the engine an image of one empty file, labelled as ours are; returns its id."""
    root, archive = folder / "root.tar", folder / "image.tar"
    with tarfile.open(root, "w") as written:
        written.addfile(tarfile.TarInfo("empty"), io.BytesIO())
    with root.open("rb") as layer, archive.open("wb") as target:
        own = {INPUTS_LABEL: uuid.uuid4().hex, RELEASE_LABEL: "0", **labels}
        ids = archives.write_archive(layer, target, {"Labels": own})
    return store.load(archive, candidates=(ids["config"], ids["manifest"]))


def test_superseded_images_are_removed_and_used_ones_kept(
    engine: EngineInfo, store: ImageStore, image: ImageRecord, tmp_path: Path
) -> None:
    """Of images that look like ours, the engine loses those that nothing needs, and no other."""
    fakes = {name: load_fake(store, tmp_path) for name in ("idle", "used", "named", "twice")}
    store.tag(fakes["named"], f"somebodys-own:{uuid.uuid4().hex}")
    store.tag(fakes["twice"], f"rlm-sandbox:test-{uuid.uuid4().hex}")
    store.tag(fakes["twice"], f"rlm-sandbox:test-{uuid.uuid4().hex}")
    client = connect(engine.endpoint)
    container = client.containers.create(fakes["used"], ["/none"], network_mode="none")
    try:
        records = list_records(store, label=INPUTS_LABEL, current=image.inputs_sha256)
        # The engine is shared with whatever else runs on this host: only these may go here.
        held = look_at_images(store, [item for item in records if item.image_id in fakes.values()])
        verdicts = plan_prune(held, in_use=image.image_id)
        carry_out(store, verdicts)

        left = {item.image_id for item in list_records(store, label=INPUTS_LABEL, current="")}
        assert {name for name, image_id in fakes.items() if image_id in left} == {"used", "named"}
        assert len(verdicts) == len(fakes)
        assert image.image_id in left
    finally:
        container.remove(force=True)
        client.close()
        for image_id in {fakes["used"], fakes["named"]}:
            store.remove(image_id)


def test_derived_image_is_not_taken_for_ours(
    store: ImageStore, image: ImageRecord, engine: EngineInfo
) -> None:
    """An image that somebody built on top of ours has our labels, and is theirs."""
    client = connect(engine.endpoint)
    try:
        container = client.containers.create(image.image_id, network_mode="none")
        try:
            derived = str(container.commit(changes=["ENV A=B"]).id)
        finally:
            container.remove(force=True)
        records = list_records(store, label=INPUTS_LABEL, current="")
        held = look_at_images(store, [item for item in records if item.image_id == derived])
        verdicts = plan_prune(held, in_use=None)
        # Alone: the engine would take an image without a name with the last one derived from it.
        client.images.remove(derived, noprune=True)
    finally:
        client.close()

    assert [verdict.is_removed for verdict in verdicts] == [False]
    assert "derived" in verdicts[0].reason
