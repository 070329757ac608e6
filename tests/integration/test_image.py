"""The image as it was really built: what is in it, and that it starts."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from orchestrator.sandbox.docker_client import connect
from orchestrator.sandbox.engine_host import EngineInfo, find_engine
from orchestrator.sandbox.image import ImageRecord, find_image, list_images
from orchestrator.sandbox.image_build import build_image
from orchestrator.sandbox.image_listing import ListedEntry, find_faults
from orchestrator.sandbox.image_store import ImageStore

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]  # the first one may have to build

REPOSITORY = Path(__file__).parents[2]
RELEASE = version("rlm-sandbox")
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "busybox", "perl", "awk", "mawk"}
PACKAGE_MANAGERS = {"apt", "apt-get", "dpkg", "pip", "pip3", "uv", "ensurepip"}


@pytest.fixture(scope="module")
def engine() -> EngineInfo:
    return find_engine(docker_host=None, runtime_dir=None)


@pytest.fixture(scope="module")
def image(engine: EngineInfo) -> ImageRecord:
    return build_image(print, engine=engine, release=RELEASE)


@pytest.fixture(scope="module")
def listing(engine: EngineInfo, image: ImageRecord) -> tuple[ListedEntry, ...]:
    with ImageStore(engine.endpoint) as store:
        return store.list_content(image.image_id)


def run_python(engine: EngineInfo, image: ImageRecord, source: str) -> str:
    """Runs a line of Python in the image, sealed as far as this file needs it."""
    client = connect(engine.endpoint)
    try:
        output = client.containers.run(
            image.image_id,
            entrypoint=["/usr/bin/python3.13", "-I"],
            command=["-c", source],
            network_mode="none",
            read_only=True,
            remove=True,
        )
    finally:
        client.close()
    return output.decode().strip()


def test_image_has_no_faults(listing: tuple[ListedEntry, ...]) -> None:
    """The check that every build passes finds nothing, on more than a handful of names."""
    assert len(listing) > 1000
    assert find_faults(listing) == []


def test_no_shell_and_no_package_manager(listing: tuple[ListedEntry, ...]) -> None:
    """No name in the image, file or link, is that of a shell or of a package manager."""
    database = {"var/lib/dpkg", "var/lib/dpkg/status"}  # a text for scanners
    names = {Path(entry.path).name for entry in listing if entry.path not in database}

    assert names & (SHELLS | PACKAGE_MANAGERS) == set()
    assert {entry.path for entry in listing if entry.path.startswith("var/lib/dpkg")} == database
    assert "python3.13" in names


def test_one_program_and_its_loader_are_executable(listing: tuple[ListedEntry, ...]) -> None:
    """Python and the loader are all that execve(2) can start."""
    made_by_engine = {".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf"}
    executable = {entry.path for entry in listing if entry.is_executable} - made_by_engine

    loaders = {path for path in executable if "/ld-linux-" in path}
    assert len(loaders) == 1
    assert executable - loaders == {"usr/bin/python3.13"}


def test_nothing_changes_identity_or_is_open_to_all(listing: tuple[ListedEntry, ...]) -> None:
    """No set-user-id or set-group-id bit anywhere; only /tmp is writable by everybody."""
    assert [entry.path for entry in listing if entry.mode & 0o6000] == []
    assert [entry.path for entry in listing if entry.mode & 0o002 and not entry.is_link] == ["tmp"]


def test_only_locked_wheels_are_installed(listing: tuple[ListedEntry, ...]) -> None:
    """The distributions in the image are those of the hashed lock, and no other."""
    lock = (REPOSITORY / "docker" / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+==[\w.]+)", lock, flags=re.MULTILINE))
    found = [re.search(r"/([\w.]+)-([\w.]+)\.dist-info$", entry.path) for entry in listing]

    installed = {f"{hit[1].lower().replace('_', '-')}=={hit[2]}" for hit in found if hit}
    assert installed == locked
    assert lock.count("--hash=sha256:") >= len(locked)


def test_every_module_is_compiled(listing: tuple[ListedEntry, ...]) -> None:
    """No module is compiled at start: a read-only root could never keep the result."""
    names = {entry.path for entry in listing}
    sources = [Path(name) for name in names if name.endswith(".py") and "/python3" in name]

    compiled = {str(s.parent / "__pycache__" / f"{s.stem}.cpython-313.pyc") for s in sources}
    assert sources
    assert compiled <= names


def test_python_starts_as_an_unprivileged_user(engine: EngineInfo, image: ImageRecord) -> None:
    """The interpreter runs on a read-only root as the sandbox's user, with no group beside."""
    source = "import os, sys; print(sys.version_info[:2], os.getuid(), os.getgid(), os.getgroups())"

    assert run_python(engine, image, source) == "(3, 13) 10001 10001 [10001]"


def test_everything_installed_can_be_imported(engine: EngineInfo, image: ImageRecord) -> None:
    """Each extension module finds the libraries it needs, so none was left out of the root."""
    source = (
        "import bz2, ctypes, grpc, hashlib, lzma, RestrictedPython, sqlite3, ssl, uuid, "
        "zlib, zoneinfo, google._upb._message, rlm_sandbox.v1.sandbox_pb2_grpc, sandbox_image; "
        "hashlib.sha256(); zoneinfo.ZoneInfo('Europe/Berlin'); print('imported')"
    )

    assert run_python(engine, image, source) == "imported"


def test_second_build_does_nothing(engine: EngineInfo, image: ImageRecord) -> None:
    """An image that fits is found again, silently, by what it was made from."""
    said: list[str] = []

    assert build_image(said.append, engine=engine, release=RELEASE) == image
    assert said == []
    assert find_image(engine) == image
    assert image in list_images(engine)


def test_image_rests_on_no_other_image(engine: EngineInfo, image: ImageRecord) -> None:
    """The image is one layer with nothing pulled beneath it."""
    with ImageStore(engine.endpoint) as store:
        attrs = store.inspect(image.image_id)

    assert len(attrs["RootFS"]["Layers"]) == 1


def test_configuration_is_the_dockerfiles(engine: EngineInfo, image: ImageRecord) -> None:
    """The image starts the worker as the sandbox's user, with nothing of the builder's."""
    with ImageStore(engine.endpoint) as store:
        configuration = store.inspect(image.image_id)["Config"]

    assert configuration["Entrypoint"] == ["/usr/bin/python3.13", "-I", "-m", "sandbox_image"]
    assert configuration["User"] == "10001:10001"
    assert configuration["WorkingDir"] == "/tmp"
    assert configuration["Env"] == ["PATH=/usr/bin"]
