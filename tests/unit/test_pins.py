"""Nothing that is installed, built with or shipped is left to what an index has on the day."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.build_scripts import load_from

ROOT = Path(__file__).parents[2]
LOCKS = sorted({*ROOT.glob("*.lock"), *ROOT.glob("docker/*.lock"), *ROOT.glob("sbom/*.lock")})
PYTHON_LOCKS = [path for path in LOCKS if path.name != "packages.lock"]
BILL = ROOT / "sbom/rlm_sandbox.cdx.json"


def requirements_of(lock: Path) -> list[tuple[Requirement, int]]:
    """Returns each requirement of a lock, and how many hashes it has."""
    logical = lock.read_text("utf-8").replace("\\\n", " ").splitlines()
    found = []
    for line in logical:
        if line.strip() and not line.lstrip().startswith("#"):
            stated, *hashes = line.split("--hash=sha256:")
            found.append((Requirement(stated.strip()), len(hashes)))
    return found


def versions_of(lock: Path) -> dict[str, str]:
    return {
        canonicalize_name(stated.name): str(stated.specifier) for stated, _ in requirements_of(lock)
    }


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("lock", PYTHON_LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_package_has_one_version_and_a_hash(lock: Path) -> None:
    """No line of a lock leaves open what is installed."""
    loose = [
        str(requirement)
        for requirement, hash_count in requirements_of(lock)
        if not re.fullmatch(r"==[^*,]+", str(requirement.specifier)) or not hash_count
    ]

    assert requirements_of(lock)
    assert loose == []


def test_every_dependency_is_locked(project: dict[str, Any]) -> None:
    """What the wheel asks for, and what builds it, has its place in a lock."""
    runtime = versions_of(ROOT / "requirements-runtime.lock")
    development = versions_of(ROOT / "requirements.lock")

    def names(lines: list[str]) -> set[str]:
        return {canonicalize_name(Requirement(line).name) for line in lines}

    assert names(project["project"]["dependencies"]) <= runtime.keys()
    assert names(project["build-system"]["requires"]) <= development.keys()
    assert names(project["dependency-groups"]["dev"]) <= development.keys()


def test_build_backend_is_the_locked_one(project: dict[str, Any]) -> None:
    """The wheel is built with one version of the backend, whoever builds it."""
    [backend] = map(Requirement, project["build-system"]["requires"])

    locked = versions_of(ROOT / "requirements.lock")
    assert str(backend.specifier) == locked[canonicalize_name(backend.name)]


def test_locks_agree() -> None:
    """What users are told to install is what the tests ran with."""
    tested = versions_of(ROOT / "requirements.lock")
    for name in ("requirements-runtime.lock", "requirements-local.lock"):
        other = versions_of(ROOT / name)
        assert {key: other[key] for key in other if key in tested} == {
            key: tested[key] for key in other if key in tested
        }
    assert versions_of(ROOT / "requirements-runtime.lock").keys() <= tested.keys()


def test_base_image_is_named_by_its_digest() -> None:
    """A tag can be moved to another image; a digest cannot."""
    dockerfile = (ROOT / "docker/sandbox.Dockerfile").read_text("utf-8")
    images = re.findall(r"^(?:FROM|ARG BUILDER=)\s*(\S+)", dockerfile, flags=re.MULTILINE)
    outside = [name for name in images if name not in {"${BUILDER}", "scratch"}]

    assert outside
    assert all(re.fullmatch(r".+@sha256:[0-9a-f]{64}", name) for name in outside)


def test_bill_of_the_wheel_follows_its_schema() -> None:
    """The committed bill is CycloneDX to the letter; the control breaks one letter."""
    text = BILL.read_text("utf-8")
    validator = JsonStrictValidator(SchemaVersion.V1_6)

    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"components"', '"component"', 1)) is not None


def test_bill_of_the_wheel_is_what_is_locked() -> None:
    """Each package that is installed on Linux is in the bill, at its version, with its hashes."""
    linux = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "python_version": "3.11",
        "python_full_version": "3.11.0",
        "os_name": "posix",
        "platform_python_implementation": "CPython",
    }
    locked = {
        canonicalize_name(requirement.name): (str(requirement.specifier), hash_count)
        for requirement, hash_count in requirements_of(ROOT / "requirements-runtime.lock")
        if requirement.marker is None or requirement.marker.evaluate(linux)
    }
    bill = json.loads(BILL.read_text("utf-8"))

    listed = {
        canonicalize_name(component["name"]): (
            f"=={component['version']}",
            len(component["properties"]),
        )
        for component in bill["components"]
    }

    assert listed == locked


def test_licences_are_listed() -> None:
    """Everything that is shipped has a licence, and the page that lists them is whole."""
    bill = json.loads(BILL.read_text("utf-8"))
    page = (ROOT / "docs/licences.md").read_text("utf-8")

    assert all(component["licenses"] for component in bill["components"])
    assert page == load_from(ROOT / "sbom", "describe_wheel").format_licences(bill)


def test_nothing_beside_a_lock_is_looked_for() -> None:
    """An index with a newer release of what a lock names does not stop an installation."""
    told = [
        line
        for path in (ROOT / "Makefile", ROOT / "docs/host-setup.md", ROOT / "SECURITY.md")
        for line in path.read_text("utf-8").splitlines()
        if "--require-hashes" in line
    ]

    assert len(told) >= 6
    assert [line for line in told if "--no-deps" not in line] == []
