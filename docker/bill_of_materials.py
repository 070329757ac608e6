"""Writes the image's bill of materials (CycloneDX) from the root itself.

Run as a program of its own, with the locked tools on its path: debsbom reads dpkg's database and
the copyright files as scanners do, and the wheels are added from their own metadata. Made from the
locks alone it would say what was meant to be in the image.
"""

# ruff: noqa: INP001 - docker/ may not be a package: it would hide the SDK of that name

import argparse
import io
import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from debsbom.cli import main as run_debsbom
from package_lock import PackageLock, parse_lock
from packageurl import PackageURL
from python_wheels import normalise
from root_layout import OWN_PACKAGE, PACKAGE_LOCK, SITE

_NAMESPACE = uuid.UUID("6f6c1f3c-2f0e-5d3b-9a53-1f6a8f0b7c11")  # any, as long as it stays
_OWN_LICENCE = "Apache-2.0"
_PINNED = re.compile(r"^([\w.-]+)==\S+((?:\s*\\\n\s*--hash=sha256:[0-9a-f]{64})+)", re.MULTILINE)
_HASH = re.compile(r"sha256:([0-9a-f]{64})")


def main() -> None:
    """Prints the bill of materials of the root that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, help="folder with the image's root")
    parser.add_argument("--architecture", required=True, help="Debian's name of it")
    parser.add_argument("--wheels", type=Path, required=True, help="the lock of the wheels")
    parser.add_argument("--content", required=True, help="digest of everything else in the root")
    arguments = parser.parse_args()
    root: Path = arguments.root
    lock = parse_lock((root / PACKAGE_LOCK).read_text("utf-8"))
    bom = _read_debian(root, lock, architecture=arguments.architecture)
    debian = bom.metadata.component  # what debsbom takes the whole for: here it is one part
    image = Component(
        type=ComponentType.CONTAINER,
        name=OWN_PACKAGE,
        bom_ref="image",
        description="The image that sandboxes are started from",
        properties=[Property(name="rlm-sandbox:root-sha256", value=arguments.content)],
    )
    own = Component(
        type=ComponentType.APPLICATION,
        name=OWN_PACKAGE,
        bom_ref="worker",
        description="The worker, the REPL process and the wire code",
        licenses=[LicenseFactory().make_from_string(_OWN_LICENCE)],
    )
    wheels = dict(_read_wheels(root / SITE, arguments.wheels.read_text("utf-8")))
    components = {name: component for name, (component, _) in wheels.items()}
    bom.metadata.component = image
    bom.components.update([own, *([debian] if debian else []), *components.values()])
    bom.register_dependency(image, [own, *([debian] if debian else [])])
    bom.register_dependency(own, components.values())
    for component, needs in wheels.values():
        bom.register_dependency(component, [components[n] for n in needs if n in components])
    bom.serial_number = uuid.uuid5(_NAMESPACE, arguments.content)
    bom.metadata.timestamp = lock.moment
    outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    sys.stdout.write(f"{outputter.output_as_string(indent=1)}\n")


def _read_debian(root: Path, lock: PackageLock, *, architecture: str) -> Bom:
    release = dict(
        line.split("=", 1)
        for line in (root / "usr/lib/os-release").read_text("utf-8").splitlines()
        if "=" in line
    )
    sys.argv = ["debsbom", "generate", "--sbom-type", "cdx", "--cdx-schema-version", "1.6",
                "--root", str(root), "--distro-arch", architecture, "--with-licenses",
                "--distro-name", release["ID"],
                "--distro-version", release["VERSION_ID"].strip('"'),
                "--timestamp", lock.moment.isoformat(), "--out", "-"]  # fmt: skip
    with redirect_stdout(io.StringIO()) as printed:
        run_debsbom()
    bom: Bom = Bom.from_json(json.loads(printed.getvalue()))  # type: ignore[attr-defined] # added by a decorator
    hashes = {str(package): package.sha256 for package in lock.of(architecture)}
    for component in bom.components:
        is_source = component.purl and (component.purl.qualifiers or {}).get("arch") == "source"
        if not is_source and (sha256 := hashes.get(f"{component.name}={component.version}")):
            component.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=sha256))
    return bom


def _read_wheels(site: Path, lock: str) -> Iterator[tuple[str, tuple[Component, list[str]]]]:
    """Yields the name of each distribution, its component, and the names of what it needs."""
    locked = {normalise(name): _HASH.findall(hashes) for name, hashes in _PINNED.findall(lock)}
    for distribution in distributions(path=[str(site)]):
        name = normalise(distribution.metadata["Name"])
        component = Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=distribution.version,
            bom_ref=f"pkg:pypi/{name}@{distribution.version}",
            purl=PackageURL("pypi", None, name, distribution.version),
            description=distribution.metadata["Summary"],
            licenses=[LicenseFactory().make_from_string(_licence(distribution))],
            # Which of the locked wheels it was depends on the machine: the lock allows these.
            properties=[
                Property(name="rlm-sandbox:locked-sha256", value=value) for value in locked[name]
            ],
        )
        needs = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in distribution.requires or ()]
        yield name, (component, [normalise(need) for need in needs])


def _licence(distribution: Distribution) -> str:
    fields: Mapping[str, str] = distribution.metadata.json  # type: ignore[assignment] # of text here
    return str(fields.get("license_expression") or fields.get("license") or "unknown")


if __name__ == "__main__":
    main()
