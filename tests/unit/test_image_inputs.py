"""Which files name an image, and that both ways of building are given the same ones."""

import fnmatch
import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest

from orchestrator.sandbox.engine_host import Host
from orchestrator.sandbox.image_inputs import (
    BUILD_SCRIPT,
    DOCKERFILE,
    PACKAGE_FOLDERS,
    PACKAGE_LOCK,
    ImageInputs,
    collect,
    read_inputs,
)
from orchestrator.sandbox.image_making import BuildWay, HostTools, choose_way

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of everything the image is made from, to be changed at will."""
    for folder in ("docker", *PACKAGE_FOLDERS):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def inputs_of(tree: Path) -> ImageInputs:
    return collect(tree / "docker", {folder: tree / folder for folder in PACKAGE_FOLDERS})


def test_digest_does_not_depend_on_where_the_files_are(tree: Path) -> None:
    """A wheel installed anywhere finds the image that a source tree built."""
    here = collect(REPOSITORY / "docker", {at: REPOSITORY / at for at in PACKAGE_FOLDERS})

    assert inputs_of(tree).digest() == here.digest()


@pytest.mark.parametrize(
    "changed",
    [
        "docker/build_rootfs.py",
        "docker/root_layout.py",
        "docker/packages.lock",
        "docker/requirements.lock",
        "docker/sbom-tools.lock",
        "docker/sandbox.Dockerfile",
        "sandbox_image/__init__.py",
        "proto/rlm_sandbox/v1/sandbox_pb2.py",
    ],
)
def test_any_changed_input_names_another_image(tree: Path, changed: str) -> None:
    """One byte more in any input, and the old image no longer fits."""
    before = inputs_of(tree).digest()

    with (tree / changed).open("a") as file:
        file.write("\n")

    assert inputs_of(tree).digest() != before


def test_added_module_names_another_image(tree: Path) -> None:
    """A new module of the worker counts without being listed anywhere."""
    before = inputs_of(tree).digest()

    (tree / "sandbox_image" / "addition.py").touch()

    assert inputs_of(tree).digest() != before


def test_leftovers_of_a_run_do_not_count(tree: Path) -> None:
    """Bytecode beside the sources, and host-side files in the same folder, change nothing."""
    before = inputs_of(tree).digest()

    cache = tree / "sandbox_image" / "__pycache__"
    cache.mkdir()
    (cache / "worker.cpython-313.pyc").write_bytes(b"x")
    (tree / "docker" / "notes.txt").write_text("x")

    assert inputs_of(tree).digest() == before


def test_installed_inputs_are_found() -> None:
    """The build files and both packages are found from the installed modules alone."""
    names = read_inputs().files

    assert BUILD_SCRIPT in names
    assert all(f"{folder}/__init__.py" in names for folder in PACKAGE_FOLDERS)


def test_dockerfile_copies_what_the_context_holds() -> None:
    """Every source of a COPY is in the context, so the builder stage has the host's inputs."""
    inputs = read_inputs()
    stream = io.BytesIO()
    inputs.write_context(stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        held = {
            path for name in archive.getnames() for path in (name, *map(str, Path(name).parents))
        }

    dockerfile = inputs.files[DOCKERFILE].decode()
    copies = re.findall(r"^COPY (?!--from)(.+)$", dockerfile, flags=re.MULTILINE)
    patterns = {source for line in copies for source in shlex.split(line)[:-1]}
    copied = {name for name in held if any(fnmatch.fnmatchcase(name, p) for p in patterns)}

    assert all(fnmatch.filter(held, pattern) for pattern in patterns)
    assert copied >= {name for name in inputs.files if name.endswith((".lock", BUILD_SCRIPT))}
    assert set(PACKAGE_FOLDERS) <= copied


def test_another_lock_is_another_input_alone() -> None:
    """An image is built again with the packages it holds, and from nothing else than before."""
    inputs = read_inputs()

    other = inputs.with_lock(b"x")

    assert other.files[PACKAGE_LOCK] == b"x"
    assert {name for name in inputs.files if inputs.files[name] != other.files[name]} == {
        PACKAGE_LOCK
    }


def test_every_module_of_the_build_is_an_input() -> None:
    """What the build scripts import from each other is among what names the image."""
    scripts = {
        name: data for name, data in read_inputs().files.items() if name.startswith("docker")
    }
    siblings = {path.stem for path in (REPOSITORY / "docker").glob("*.py")}

    imported = {
        module
        for name, data in scripts.items()
        if name.endswith(".py")
        for module in re.findall(r"^from (\w+) import", data.decode(), flags=re.MULTILINE)
    }

    assert {f"docker/{name}.py" for name in imported & siblings} <= scripts.keys()


@pytest.mark.parametrize(
    ("distribution", "uid", "tools", "way"),
    [
        ("fedora", 1000, HostTools(has_apt=True, has_keyring=True), BuildWay.HOST),
        ("debian", 1000, HostTools(has_apt=True, has_keyring=True), BuildWay.HOST),
        ("ubuntu", 0, HostTools(has_apt=True, has_keyring=False), BuildWay.HOST),
        ("ubuntu", 1000, HostTools(has_apt=True, has_keyring=False), BuildWay.CONTAINER),
        ("fedora", 0, HostTools(has_apt=False, has_keyring=False), BuildWay.CONTAINER),
    ],
)
def test_registry_is_asked_only_where_it_must_be(
    distribution: str, uid: int, tools: HostTools, way: BuildWay
) -> None:
    """Wherever apt and Debian's keys are or may be installed, no container registry is needed."""
    host = Host(
        platform="linux",
        kernel="6.1.0",
        uid=uid,
        distribution=distribution,
        home=Path("/root"),
        runtime_dir=None,
    )

    assert choose_way(host, tools) is way
